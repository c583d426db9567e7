"""Round to nearest: weights alone, and the largest inputs where a format is static."""

from __future__ import annotations

import pytest
import torch

from puna.quant.apply import quantize_model
from puna.quant.calibrate import Calibration, stages
from puna.quant.formats import quantize_weight
from puna.quant.linear import QuantLinear
from puna.quant.plan import QuantPlan
from puna.testing import tiny_model


def test_stored_numbers_are_those_of_the_format() -> None:
    plan = QuantPlan({"layers.0.mlp.up_proj": "int4-g32", "layers.1.self_attn.q_proj": "fp8"})
    original, model = tiny_model(), quantize_model(tiny_model(), plan)
    for name in plan.modules:
        layer = model.get_submodule(name)
        assert isinstance(layer, QuantLinear)
        weight = original.get_submodule(name).weight
        assert isinstance(weight, torch.Tensor)
        for key, tensor in quantize_weight(weight.detach(), plan.format(name)).items():
            assert torch.equal(tensor.view(torch.uint8), layer.tensors[key].view(torch.uint8))


def test_static_scales_are_the_largest_inputs_seen(random_texts: Calibration) -> None:
    plan = QuantPlan(dict.fromkeys(("layers.0.self_attn.q_proj", "layers.0.mlp.down_proj", "lm_head"), "fp8-tensor"))
    seen = {}
    for stage in stages(tiny_model(), random_texts, head=True):
        seen |= {name: float(inputs.absmax_K.max()) for name, inputs in stage.inputs().items()}
    model = quantize_model(tiny_model(), plan, "rtn", random_texts)
    first = model.get_submodule("layers.0.self_attn.q_proj")
    assert isinstance(first, QuantLinear)
    assert float(first.tensors["input_scale"]) == pytest.approx(seen["layers.0.self_attn.q_proj"] / 448)
    # What comes after a rounded layer is what that layer makes of it.
    last = model.get_submodule("lm_head")
    assert isinstance(last, QuantLinear)
    assert float(last.tensors["input_scale"]) == pytest.approx(seen["lm_head"] / 448, rel=0.2)
