"""What a plan asks of a model, and models that are not what their plan says."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from puna.base.errors import CheckpointError, ConfigError
from puna.export.quantized import layers_of, tensor_specs, torn_apart
from puna.model import lora
from puna.quant.plan import QuantPlan, from_rows
from puna.testing import tiny_config, tiny_model


def test_the_layers_of_a_plan_are_found(quantized: Callable) -> None:
    model, plan, _ = quantized([("layers.*.mlp.*_proj", "int8"), ("lm_head", "fp8")])
    layers = layers_of(model, plan)
    assert set(layers) == set(plan.modules)
    assert layers["lm_head"].format.name == "fp8"


def test_a_plan_that_quantises_nothing_is_refused(quantized: Callable) -> None:
    for plan in (QuantPlan({}), QuantPlan({"lm_head": "bf16"})):
        with pytest.raises(ConfigError, match="quantises no layer"):
            layers_of(tiny_model(), plan)


def test_a_model_that_is_not_what_its_plan_says_is_refused(quantized: Callable) -> None:
    model, plan, _ = quantized("int8")
    name = "layers.1.mlp.up_proj"
    with pytest.raises(CheckpointError, match=f"1 layers: {name} is int8, and the plan says int4-g32"):
        layers_of(model, QuantPlan({**plan.modules, name: "int4-g32"}))
    with pytest.raises(CheckpointError, match=f"{name} is int8, and the plan says not to quantise it"):
        layers_of(model, QuantPlan({key: value for key, value in plan.modules.items() if key != name}))
    with pytest.raises(CheckpointError, match="is not quantised, and the plan says fp8"):
        layers_of(tiny_model(), from_rows([("layers.*_proj", "fp8")], tiny_config()))


def test_a_model_with_adapters_is_refused(quantized: Callable) -> None:
    model, plan, _ = quantized([("layers.*.mlp.*_proj", "int8")])
    lora.apply_lora(model, lora.LoraConfig(rank=2, targets=("q_proj",)))
    with pytest.raises(CheckpointError, match="no plain Llama"):
        layers_of(model, plan)


def test_the_tensors_of_a_model_are_those_it_holds(quantized: Callable) -> None:
    model, plan, _ = quantized([("layers.*_proj", "int4-g32"), ("layers.0.mlp.*", "fp8-tensor"), ("lm_head", "int8")])
    specs = tensor_specs(model.config, plan, torch.float32)
    held = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in model.state_dict().items()}
    assert {name: (spec.shape, spec.dtype) for name, spec in specs.items()} == held


def test_matrices_that_others_multiply_as_one_are_found_torn() -> None:
    config = tiny_config()
    whole = from_rows([("layers.*.self_attn.*", "fp8"), ("layers.1.mlp.down_proj", "int8")], config)
    assert torn_apart(whole, config) == []
    torn = from_rows([("layers.1.self_attn.k_proj", "fp8"), ("layers.0.mlp.up_proj", "int8")], config)
    assert torn_apart(torn, config) == [
        "layers.0.mlp.gate_proj, layers.0.mlp.up_proj",
        "layers.1.self_attn.q_proj, layers.1.self_attn.k_proj, layers.1.self_attn.v_proj",
    ]
