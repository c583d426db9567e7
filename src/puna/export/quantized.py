"""A quantised model's tensors: what a plan asks for, and whether a live model is what its plan says."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from puna.base.errors import CheckpointError, ConfigError
from puna.model import hf
from puna.model.config import ModelConfig
from puna.model.transformer import Transformer, shapes
from puna.quant.formats import WeightFormat
from puna.quant.linear import QuantLinear
from puna.quant.plan import QuantPlan

_FUSED = (("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), ("mlp.gate_proj", "mlp.up_proj"))


def formats_of(plan: QuantPlan) -> dict[str, WeightFormat]:
    """Module -> format of those that a plan really quantises."""
    found = {module: plan.format(module) for module in plan.modules}
    return {module: format for module, format in found.items() if format.strategy != "none"}


def layers_of(model: Transformer, plan: QuantPlan) -> Mapping[str, QuantLinear]:
    """Module -> quantised layer of a model.

    Raises:
        ConfigError: a plan that quantises nothing.
        CheckpointError: a model that is not quantised as the plan says, or that has other parameters than a Llama.
    """
    layers = {name: module for name, module in model.named_modules() if isinstance(module, QuantLinear)}
    found = {name: layer.format.name for name, layer in layers.items()}
    wanted = {name: format.name for name, format in formats_of(plan).items()}
    if not wanted:
        raise ConfigError(
            "The plan quantises no layer.", hint="Save the model as an ordinary checkpoint: puna convert."
        )
    if wrong := [name for name in {**wanted, **found} if wanted.get(name) != found.get(name)]:
        name = wrong[0]
        raise CheckpointError(
            f"The model and its plan differ in {len(wrong)} layers: {name} is {found.get(name, 'not quantised')}, "
            f"and the plan says {wanted.get(name, 'not to quantise it')}.",
            hint="Quantise the model with quantize_model(model, plan).",
        )
    plain = {name: shape for name, shape in shapes(model.config).items() if name.removesuffix(".weight") not in wanted}
    if faults := hf.differences(plain, {name: tuple(p.shape) for name, p in model.named_parameters()}):
        raise CheckpointError(f"The model is no plain Llama: {faults}.", hint="Fold adapters in with lora.merge.")
    return layers


def torn_apart(plan: QuantPlan, config: ModelConfig) -> list[str]:
    """Layers whose parts a plan gives several formats, though vLLM and TensorRT-LLM multiply them as one matrix."""
    found = []
    for layer in range(config.num_hidden_layers):
        for parts in _FUSED:
            names = [f"layers.{layer}.{part}" for part in parts]
            if len({plan.format(name).name for name in names}) > 1:
                found.append(", ".join(names))
    return found


def tensor_specs(config: ModelConfig, plan: QuantPlan, dtype: torch.dtype) -> dict[str, hf.Spec]:
    """Name -> shape and dtype of all tensors of a quantised model, as it holds them.

    Args:
        config: the shape of the quantised model.
        plan: which module has which format.
        dtype: of what is not quantised.
    """
    specs: dict[str, hf.Spec] = {}
    formats = formats_of(plan)
    for name, shape in shapes(config).items():
        module = name.removesuffix(".weight")
        if module in formats:
            stored = formats[module].specs(shape[0], shape[1])
            specs |= {f"{module}.{key}": hf.Spec(*spec) for key, spec in stored.items()}
        else:
            specs[name] = hf.Spec(shape, dtype)
    return specs
