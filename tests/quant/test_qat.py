"""Quantisation-aware training: gradients pass, what is converted is what was trained, and it beats rounding after."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

from puna.base.errors import ConfigError
from puna.data.shards import TokenShards
from puna.model.heads import cross_entropy
from puna.model.transformer import Transformer
from puna.quant.apply import quantize_model
from puna.quant.calibrate import Calibration
from puna.quant.compare import compare
from puna.quant.linear import QuantLinear
from puna.quant.plan import QuantPlan, from_recipe
from puna.quant.qat import QatLinear, convert_qat, prepare_qat, qat_plan, straight_through
from puna.testing import tiny_model
from puna.train.optimizer import OptimizerConfig

from .conftest import fit

GENTLE = OptimizerConfig(lr=5e-4)  # large steps would leave the weights no time to settle on the grid

FORMATS = ["fp8", "fp8-block", "int8", "int8-wo", "int4-g32"]


@pytest.mark.parametrize("name", FORMATS)
def test_converting_gives_the_very_numbers_that_training_saw(name: str, ids: torch.Tensor) -> None:
    model = tiny_model(tie_word_embeddings=True)
    plan = from_recipe(name, model.config, head="int8")
    prepare_qat(model, plan)
    seen = {name: m.rounded_weight().detach() for name, m in model.named_modules() if isinstance(m, QatLinear)}
    with torch.inference_mode():
        before = model(ids)
    convert_qat(model)
    assert seen.keys() == plan.modules.keys()
    for module, weight in seen.items():
        layer = model.get_submodule(module)
        assert isinstance(layer, QuantLinear)
        assert torch.equal(layer.dequantized(), weight)
    with torch.inference_mode():
        torch.testing.assert_close(model(ids), before, rtol=0, atol=2e-2 * float(before.abs().max()))


def test_converting_is_rounding_to_nearest() -> None:
    model = tiny_model()
    plan = from_recipe("int4-g32", model.config)
    nearest = quantize_model(copy.deepcopy(model), plan)
    converted = convert_qat(prepare_qat(model, plan))
    assert all(torch.equal(a, b) for a, b in zip(nearest.buffers(), converted.buffers(), strict=True))


def test_the_gradient_is_that_of_the_rounded_model_at_the_float_weights(ids: torch.Tensor) -> None:
    model = tiny_model()
    plan = QuantPlan({"layers.1.mlp.down_proj": "int4-g32"})
    rounded = copy.deepcopy(model)
    prepare_qat(model, plan)
    layer = model.get_submodule("layers.1.mlp.down_proj")
    assert isinstance(layer, QatLinear)
    with torch.no_grad():
        rounded.get_submodule("layers.1.mlp.down_proj").weight.copy_(layer.rounded_weight())  # type: ignore[operator, union-attr]
    for each in (model, rounded):
        each(ids).square().sum().backward()
    for (name, a), b in zip(model.named_parameters(), rounded.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-3, msg=name)


def test_names_of_parameters_stay_and_training_moves_them(ids: torch.Tensor) -> None:
    model = tiny_model()
    names = [name for name, _ in model.named_parameters()]
    prepare_qat(model, from_recipe("int8", model.config, head="int8"))
    assert [name for name, _ in model.named_parameters()] == names
    targets = ids.roll(-1, 1)
    loss = model(ids, head=lambda h, w: cross_entropy(h, w, targets, targets >= 0))
    loss.backward()
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in model.parameters())


def test_the_loss_sees_the_rounded_head(ids: torch.Tensor) -> None:
    model = prepare_qat(tiny_model(), QuantPlan({"lm_head": "int8"}))
    head = model.lm_head
    assert isinstance(head, QatLinear)
    hidden = model(ids, head=lambda h, _: h)
    seen, weight = head.for_head(tiny_model()(ids, head=lambda h, _: h))
    assert torch.equal(hidden, seen)
    assert torch.equal(model(ids, head=lambda _, w: w), weight)
    torch.testing.assert_close(model(ids), seen @ weight.T)


def test_autocast_computes_in_its_dtype(ids: torch.Tensor) -> None:
    model = prepare_qat(tiny_model(), from_recipe("int8", tiny_model().config))
    with torch.autocast("cpu", torch.bfloat16):
        model(ids).sum().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())


def test_straight_through_is_exact_where_a_sum_would_not_be() -> None:
    exact = torch.tensor([1e8, 0.3], requires_grad=True)
    rounded = torch.tensor([0.1, 0.25])
    out = straight_through(exact, rounded)
    assert torch.equal(out, rounded)
    (out * torch.tensor([2.0, 3.0])).sum().backward()
    assert exact.grad is not None
    assert exact.grad.tolist() == [2, 3]


def test_a_tied_model_is_untied_where_its_head_is_rounded() -> None:
    model = prepare_qat(tiny_model(tie_word_embeddings=True), QuantPlan({"lm_head": "int8"}))
    assert not model.config.tie_word_embeddings
    assert model.lm_head.weight.data_ptr() != model.embed_tokens.weight.data_ptr()


def test_a_prepared_model_knows_its_plan() -> None:
    model = tiny_model()
    plan = from_recipe("int8", model.config)
    assert qat_plan(prepare_qat(model, plan)).modules == plan.modules


def test_what_cannot_be_prepared_or_converted() -> None:
    plan = from_recipe("int8", tiny_model().config)
    with pytest.raises(ConfigError, match="one scale for all"):
        prepare_qat(tiny_model(), from_recipe("fp8-tensor", tiny_model().config))
    with pytest.raises(ConfigError, match="QatLinear"):
        prepare_qat(prepare_qat(tiny_model(), plan), plan)
    with pytest.raises(ConfigError, match="no fake quantisation"):
        convert_qat(tiny_model())
    assert isinstance(tiny_model().get_submodule("layers.0.mlp.up_proj"), nn.Linear)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_training_for_four_bits_beats_rounding_after_the_same_training(
    seed: int, trained: Callable[[int], Transformer], shards: TokenShards, held_out: Calibration
) -> None:
    original, plan = trained(seed), from_recipe("int4-g128", trained(seed).config)
    after = quantize_model(fit(trained(seed), shards, 32, 100 + seed, GENTLE), plan)
    during = convert_qat(fit(prepare_qat(trained(seed), plan), shards, 32, 100 + seed, GENTLE))
    scores = [compare(original, model, held_out, plan).perplexity_quantized for model in (after, during)]
    assert scores[1] < scores[0]
