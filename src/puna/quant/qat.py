"""Quantisation-aware training: the trainer's model rounds its weights and inputs in every forward pass.

`prepare_qat` puts `QatLinear` layers in the place of those that a plan names. Their parameters bear the old names, so
trainer, optimizer and saved states know no difference. Rounding has no gradient; it is passed straight through
(arXiv 1308.3432), and the float weights behind it move until their rounded values are good ones. `convert_qat` stores
the very numbers that the last forward pass used.

Left out: learnt scales and zero points, and formats whose inputs have one scale for all, which training would move.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from puna.base.errors import ConfigError
from puna.model.transformer import Transformer
from puna.quant.formats import WeightFormat, dequantize_weight, quantize_weight, round_activations
from puna.quant.linear import QuantLinear
from puna.quant.output import route_head, untie
from puna.quant.plan import QuantPlan


class _StraightThrough(torch.autograd.Function):
    """Gives `rounded`, and the gradient to what it was rounded from."""

    @staticmethod
    def forward(ctx: Any, exact: Tensor, rounded: Tensor) -> Tensor:
        del ctx, exact
        return rounded

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        del ctx
        return grads[0], None


def straight_through(exact: Tensor, rounded: Tensor) -> Tensor:
    """The numbers of `rounded`, whose gradient goes to `exact`."""
    return _StraightThrough.apply(exact, rounded.detach())


class QatLinear(nn.Linear):
    """A float layer that multiplies with rounded numbers.

    Args:
        linear: whose parameter it takes over.
        format: how it is rounded.
    """

    def __init__(self, linear: nn.Linear, format: WeightFormat) -> None:
        super().__init__(linear.in_features, linear.out_features, bias=False, device="meta")
        self.weight = linear.weight
        self.format = format
        self.train(linear.training)

    def rounded_weight(self) -> Tensor:
        """The matrix that `convert_qat` would store, (N, K) in the dtype of the parameter."""
        with torch.no_grad():
            tensors = quantize_weight(self.weight, self.format)
            rounded_NK = dequantize_weight(tensors, self.format, self.weight.dtype)
        return straight_through(self.weight, rounded_NK)

    def round_inputs(self, x: Tensor) -> Tensor:
        return (
            straight_through(x, round_activations(x.detach(), self.format)) if self.format.activations != "none" else x
        )

    def for_head(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """As the output matrix of a model: a loss gets the rounded hidden states and the rounded matrix."""
        return self.round_inputs(hidden), self.rounded_weight()

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(self.round_inputs(input), self.rounded_weight())

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, format={self.format.name}"


def prepare_qat(model: Transformer, plan: QuantPlan) -> Transformer:
    """Puts fake quantisation in the place of the layers that a plan names, in place; train the model as ever.

    A tied model whose output matrix is quantised is untied, and both matrices then learn.

    Raises:
        ConfigError: a plan that does not fit, layers that are not plain, or a format whose inputs have one scale.
    """
    plan.check(model.config)
    for module in plan.modules:
        if plan.format(module).activations == "tensor":
            raise ConfigError(
                f"The plan stores {module} as {plan.format(module).name}, whose inputs have one scale for all.",
                hint="Train for fp8, which finds the scale of each token.",
            )
    if plan.quantizes_head:
        untie(model, copy=True)
    for module in plan.modules:
        linear = model.get_submodule(module)
        if type(linear) is not nn.Linear:
            raise ConfigError(
                f"{module} is a {type(linear).__name__}, not a plain linear layer.",
                hint="Fold adapters in with lora.merge first.",
            )
        model.set_submodule(module, QatLinear(linear, plan.format(module)))
    if plan.quantizes_head:
        route_head(model)
    return model


@torch.no_grad()
def convert_qat(model: Transformer) -> Transformer:
    """Puts the stored numbers in the place of fake quantisation, in place: those that the forward pass has used.

    Raises:
        ConfigError: a model that `prepare_qat` has not prepared.
        InputError: weights that are not finite.
    """
    found = {name: module for name, module in model.named_modules() if isinstance(module, QatLinear)}
    if not found:
        raise ConfigError("The model has no fake quantisation to convert.", hint="Prepare it with prepare_qat.")
    for name, layer in found.items():
        model.set_submodule(name, QuantLinear.from_weight(layer.weight, layer.format, name=name))
    return model.eval()


def qat_plan(model: Transformer, recipe: str = "qat") -> QuantPlan:
    """The plan that a prepared model follows."""
    layers = {name: module for name, module in model.named_modules() if isinstance(module, QatLinear)}
    return QuantPlan({name: layer.format.name for name, layer in layers.items()}, recipe)
