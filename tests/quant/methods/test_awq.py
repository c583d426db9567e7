"""AWQ: scales change no float model, are chosen by error, and help on a trained model over three seeds."""

from __future__ import annotations

import copy

import pytest
import torch

from puna.base.errors import ConfigError
from puna.quant.calibrate import Calibration, stages
from puna.quant.methods.awq import ActivationAware
from puna.quant.methods.method import Work
from puna.quant.plan import QuantPlan, from_recipe
from puna.testing import tiny_model


def test_the_float_model_is_unchanged(ids: torch.Tensor, random_texts: Calibration) -> None:
    model = tiny_model().requires_grad_(False)
    before, weights = model(ids).detach(), copy.deepcopy(model.state_dict())
    work = Work(model, from_recipe("int4-g32", model.config))
    for stage in stages(model, random_texts, head=False):
        ActivationAware(grid=4, clip=False).layer(work, stage)
    torch.testing.assert_close(model(ids), before, rtol=0, atol=1e-4 * float(before.abs().max()))
    assert any(not torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())


def test_one_grid_point_is_round_to_nearest(random_texts: Calibration) -> None:
    model = tiny_model()
    before = copy.deepcopy(model.state_dict())
    work = Work(model, from_recipe("int4-g32", model.config))
    for stage in stages(model, random_texts, head=False):
        ActivationAware(grid=1, clip=False).layer(work, stage)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_weight_that_meets_large_inputs_is_scaled_up(random_texts: Calibration) -> None:
    model = tiny_model().requires_grad_(False)
    block = model.layers[0]
    block.post_attention_layernorm.weight[5] *= 30  # type: ignore[union-attr, operator]
    work = Work(model, QuantPlan(dict.fromkeys(("layers.0.mlp.up_proj", "layers.0.mlp.gate_proj"), "int4-g32")))
    before = block.mlp.up_proj.weight.norm(dim=0)  # type: ignore[union-attr, operator]
    ActivationAware(clip=False).layer(work, next(stages(model, random_texts, head=False)))
    growth = block.mlp.up_proj.weight.norm(dim=0) / before  # type: ignore[union-attr, operator]
    assert float(growth[5] / growth.median()) > 1.1
    assert int(growth.argmax()) == 5


def test_queries_and_keys_are_not_clipped(random_texts: Calibration) -> None:
    model = tiny_model()
    before = copy.deepcopy(model.state_dict())
    work = Work(model, from_recipe("int4-g32", model.config))
    for stage in stages(model, random_texts, head=False):
        ActivationAware(grid=1).layer(work, stage)
    changed = {name.split(".")[3] for name, t in model.state_dict().items() if not torch.equal(t, before[name])}
    assert changed <= {"v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert "up_proj" in changed


def test_settings_that_cannot_be() -> None:
    with pytest.raises(ConfigError, match="grid is 0"):
        ActivationAware(0)
    with pytest.raises(ConfigError, match="samples is 0"):
        ActivationAware(samples=0)
