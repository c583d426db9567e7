"""Quantising a model in place, and skeletons that stored tensors fill."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from puna.base.errors import ConfigError, InputError
from puna.model.lora import LoraConfig, apply_lora
from puna.quant.apply import quantize_model, quantized_skeleton
from puna.quant.calibrate import Calibration
from puna.quant.linear import QuantLinear
from puna.quant.plan import QuantPlan, from_recipe
from puna.quant.qat import prepare_qat
from puna.testing import tiny_model

METHODS = ["rtn", "smoothquant", "awq", "gptq", "rotate+smoothquant:0.8+gptq", "rotate+awq"]


@pytest.mark.parametrize("recipe", ["fp8", "fp8-tensor", "fp8-block", "int8", "int8-wo", "int4-g32"])
@pytest.mark.parametrize("method", ["rtn", "gptq"])
def test_the_named_layers_are_replaced_and_the_outputs_stay_near(
    recipe: str, method: str, ids: torch.Tensor, random_texts: Calibration
) -> None:
    model = tiny_model()
    before = model(ids).detach()
    plan = from_recipe(recipe, model.config, head="int8")
    assert quantize_model(model, plan, method, random_texts) is model
    found = {name: layer.format.name for name, layer in model.named_modules() if isinstance(layer, QuantLinear)}
    assert found == plan.modules
    with torch.inference_mode():
        error = (model(ids) - before).norm() / before.norm()
    assert float(error) < (0.3 if recipe == "int4-g32" else 0.12)


@pytest.mark.parametrize("method", METHODS)
def test_every_chain_of_methods_works_on_a_tied_model(
    method: str, ids: torch.Tensor, random_texts: Calibration
) -> None:
    model = tiny_model(tie_word_embeddings=True)
    before = model(ids).detach()
    quantize_model(model, from_recipe("int8", model.config), method, random_texts)
    assert model.config.tie_word_embeddings is ("rotate" not in method)
    with torch.inference_mode():
        assert float((model(ids) - before).norm() / before.norm()) < 0.05


@pytest.mark.parametrize("head", ["bf16", "int8"])
def test_a_skeleton_is_filled_with_the_tensors_of_a_quantised_model(head: str, ids: torch.Tensor) -> None:
    model = tiny_model(tie_word_embeddings=True)
    plan = from_recipe("int4-g32", model.config, head=head)
    empty = quantized_skeleton(model.config, plan)
    quantize_model(model, plan)
    assert {tensor.device.type for tensor in empty.state_dict().values()} == {"meta"}
    empty.load_state_dict(model.state_dict(), assign=True)
    assert empty.config == model.config
    with torch.inference_mode():
        assert torch.equal(empty(ids), model(ids))


def test_the_float_tensors_are_not_written_to(random_texts: Calibration) -> None:
    model = tiny_model(tie_word_embeddings=True)
    kept = dict(model.named_parameters())
    before = {name: parameter.detach().clone() for name, parameter in kept.items()}
    quantize_model(model, from_recipe("int8", model.config, head="int8"), "rotate+awq+gptq", random_texts)
    assert all(torch.equal(parameter, before[name]) for name, parameter in kept.items())


def test_texts_decide_nothing_where_none_are_needed(random_texts: Calibration) -> None:
    models = [tiny_model(), tiny_model()]
    for model, texts in zip(models, (None, random_texts), strict=True):
        quantize_model(model, from_recipe("int8", model.config), "rtn", texts)
    assert all(torch.equal(a, b) for a, b in zip(*(model.buffers() for model in models), strict=True))


def test_an_empty_plan_changes_nothing(ids: torch.Tensor) -> None:
    model = tiny_model()
    before = model(ids).detach()
    assert torch.equal(quantize_model(model, QuantPlan({}))(ids), before)


# What cannot be -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("recipe", "method"), [("int8", "gptq"), ("int8", "awq+rtn"), ("fp8-tensor", "rtn")])
def test_what_needs_texts_says_so(recipe: str, method: str) -> None:
    model = tiny_model()
    with pytest.raises(ConfigError, match="needs texts to calibrate with"):
        quantize_model(model, from_recipe(recipe, model.config), method)
    assert not any(isinstance(module, QuantLinear) for module in model.modules())


def test_a_quantised_model_is_not_quantised_again() -> None:
    model = tiny_model()
    plan = from_recipe("int8", model.config)
    quantize_model(model, plan)
    with pytest.raises(ConfigError, match="quantised already"):
        quantize_model(model, plan)


def test_adapters_and_fake_quantisation_are_named_with_the_way_out() -> None:
    plan = from_recipe("int8", tiny_model().config)
    with pytest.raises(ConfigError, match="LoraLinear") as caught:
        quantize_model(apply_lora(tiny_model(), LoraConfig(rank=2)), plan)
    assert "lora.merge" in caught.value.hint
    with pytest.raises(ConfigError, match="QatLinear") as caught:
        quantize_model(prepare_qat(tiny_model(), plan), plan)
    assert "convert_qat" in caught.value.hint


def test_a_weight_that_is_no_number_is_named() -> None:
    model = tiny_model()
    with torch.no_grad():
        model.get_submodule("layers.1.mlp.up_proj").weight[2, 3] = torch.nan  # type: ignore[index, union-attr]
    with pytest.raises(InputError, match=r"layers\.1\.mlp\.up_proj has 1 of"):
        quantize_model(model, from_recipe("int8", model.config))


def test_a_plan_for_another_shape_is_refused() -> None:
    model = tiny_model()
    with pytest.raises(ConfigError, match=r"layers\.7"):
        quantize_model(model, QuantPlan({"layers.7.mlp.up_proj": "int8"}))


def test_texts_of_another_tokenizer_are_refused() -> None:
    model = tiny_model()
    plan = from_recipe("int8", model.config)
    with pytest.raises(InputError, match="holds the id 300"):
        quantize_model(copy.deepcopy(model), plan, "gptq", Calibration([[1, 300, 2]]))
    assert isinstance(model.get_submodule("layers.0.mlp.up_proj"), nn.Linear)
