"""A float model becomes a quantised one, in place; and the empty shell of one, to be filled with stored tensors."""

from __future__ import annotations

import torch

from puna.base.errors import ConfigError
from puna.base.progress import Progress
from puna.model.config import ModelConfig
from puna.model.transformer import Transformer, without_memory
from puna.quant.calibrate import Calibration, stages
from puna.quant.linear import QuantLinear
from puna.quant.methods.method import Work
from puna.quant.methods.registry import parse
from puna.quant.output import route_head, untie
from puna.quant.plan import HEAD, QuantPlan, linear_shapes


@torch.no_grad()
def quantize_model(
    model: Transformer,
    plan: QuantPlan,
    method: str = "rtn",
    calibration: Calibration | None = None,
    progress: Progress | None = None,
) -> Transformer:
    """Puts `QuantLinear` layers in the place of those that a plan names, in place, layer by layer.

    The model's shape may change: `model.config` says that its output matrix is its own where the plan quantises it, or
    where the method untied it.

    Args:
        model: a float model; its old tensors are not written to, so a mapped file stays as it is.
        plan: which layer gets which format.
        method: a chain of `methods.registry`: "rtn", "awq", "smoothquant:0.8+gptq", "rotate+gptq", ...
        calibration: what the methods look at; "rtn" and "rotate" need none, unless a format is static.
        progress: who watches.

    Raises:
        ConfigError: a plan that does not fit, an unknown method, no calibration for one that needs it, or a model that
            is quantised already. The model is then as it was.
        InputError: weights that are not finite, or texts of another tokenizer.
    """
    steps = parse(method)
    _check(model, plan)
    static = any(plan.format(module).activations == "tensor" for module in plan.modules)
    sees = any(step.calibrates for step in steps) or static
    if sees and calibration is None:
        what = f"The method {method!r}" if not static else "A format whose inputs have one scale for all"
        raise ConfigError(f"{what} needs texts to calibrate with.", hint="Give a calibration, or use rtn with fp8.")
    if calibration is not None:
        calibration.check(model)
    model.eval()
    work = Work(model, plan)
    if plan.quantizes_head:
        untie(model)
    for step in steps:
        step.prepare(work)
    for stage in stages(model, calibration if sees else None, plan.quantizes_head, progress):
        for step in steps:
            step.layer(work, stage)
    if plan.quantizes_head:
        route_head(model)
    return model


def _check(model: Transformer, plan: QuantPlan) -> None:
    if any(isinstance(module, QuantLinear) for module in model.modules()):
        raise ConfigError("The model is quantised already.", hint="Start from its float checkpoint.")
    plan.check(model.config)
    for module in plan.modules:
        if module == HEAD and model.config.tie_word_embeddings:
            continue
        found = type(model.get_submodule(module))
        if found is not torch.nn.Linear:
            raise ConfigError(
                f"{module} is a {found.__name__}, not a plain linear layer.",
                hint="Fold adapters in with lora.merge, and fake quantisation with convert_qat.",
            )


def quantized_skeleton(config: ModelConfig, plan: QuantPlan) -> Transformer:
    """A quantised model without memory (torch's meta device), to be given stored tensors.

    `model.load_state_dict(tensors, assign=True)` fills it: names and dtypes are those of the file.

    Args:
        config: the shape of the float model, or of the quantised one.
        plan: which layer has which format.
    """
    plan.check(config)
    model = without_memory(plan.config(config))
    for module in plan.modules:
        outputs, inputs = linear_shapes(model.config)[module]
        model.set_submodule(module, QuantLinear(inputs, outputs, plan.format(module), device="meta"))
    if plan.quantizes_head:
        route_head(model)
    return model.eval()
