"""The seam: what is still to be rounded, and what is put in its place."""

from __future__ import annotations

import torch

from puna.quant.apply import quantize_model
from puna.quant.calibrate import Inputs, Stage, stages
from puna.quant.formats import FORMATS, quantize_weight
from puna.quant.linear import QuantLinear
from puna.quant.methods.method import Method, Work
from puna.quant.methods.registry import METHODS
from puna.quant.plan import QuantPlan
from puna.testing import tiny_model

NAME = "layers.0.mlp.up_proj"


def test_planned_layers_are_those_not_rounded_yet() -> None:
    model = tiny_model()
    work = Work(model, QuantPlan({NAME: "int8", "layers.1.mlp.up_proj": "fp8-tensor"}))
    first, second = stages(model, None, head=False)
    assert [(name, format.name) for name, _, format in work.planned(first)] == [(NAME, "int8")]
    assert (work.is_static(first), work.is_static(second)) == (False, True)
    weight = first.linears()[NAME].weight.detach()
    work.install(NAME, quantize_weight(weight, FORMATS["int8"]), None)
    assert list(work.planned(first)) == []


def test_inputs_that_are_all_zero_have_a_scale() -> None:
    model = tiny_model()
    work = Work(model, QuantPlan({NAME: "fp8-tensor"}))
    inputs = Inputs()
    inputs.add(torch.zeros(4, 32))
    weight = model.get_submodule(NAME).weight
    assert isinstance(weight, torch.Tensor)
    work.install(NAME, quantize_weight(weight.detach(), FORMATS["fp8-tensor"]), inputs)
    layer = model.get_submodule(NAME)
    assert isinstance(layer, QuantLinear)
    assert float(layer.tensors["input_scale"]) == 1


class Halve(Method):
    """A method of another package: weights are halved before they are rounded."""

    def layer(self, work: Work, stage: Stage) -> None:
        with torch.no_grad():
            for _, linear, _ in work.planned(stage):
                linear.weight.mul_(0.5)


def test_another_method_joins_a_chain() -> None:
    METHODS.add("halve", Halve)
    original = tiny_model()
    model = quantize_model(tiny_model(), QuantPlan({NAME: "int8"}), "halve+rtn")
    layer, weight = model.get_submodule(NAME), original.get_submodule(NAME).weight
    assert isinstance(layer, QuantLinear)
    assert isinstance(weight, torch.Tensor)
    torch.testing.assert_close(layer.dequantized(), weight / 2, rtol=0.1, atol=0.01)
