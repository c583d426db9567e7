"""AWQ (arXiv 2306.00978): weights that meet large inputs are scaled up before they are rounded.

The scales are s = mean|x|^r, found for each place on a grid of r from 0 to 1: the r with the smallest error of what
the attention or the feed-forward layers put out on a sample of real inputs, with the rounding that the plan will do.
r = 0 leaves all as it is. Then groups of weights are clipped where that pays; the matrices that make queries and keys
are not, since attention multiplies their errors with each other.

Shapes: N outputs, K inputs, C channels of a producer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from puna.base.config import require
from puna.quant.calibrate import Stage
from puna.quant.formats import WeightFormat, dequantize_weight, quantize_weight, round_activations
from puna.quant.methods.clipping import clipped
from puna.quant.methods.folding import Fold, bounded, folds, replace_weight
from puna.quant.methods.method import Method, Work

_NOT_CLIPPED = ("q_proj", "k_proj")


class ActivationAware(Method):
    """Args:
    grid: values of r that are tried.
    samples: tokens that the error is measured on.
    clip: whether weights are clipped.
    """

    calibrates = True

    def __init__(self, grid: int = 20, samples: int = 512, clip: bool = True) -> None:
        require(grid >= 1, f"grid is {grid}; it must be at least 1.")
        require(samples >= 1, f"samples is {samples}; it must be at least 1.")
        self.grid, self.samples, self.clip = grid, samples, clip

    @torch.no_grad()
    def layer(self, work: Work, stage: Stage) -> None:
        found = list(folds(work, stage))
        if found:
            means = {name: inputs.mean_K for name, inputs in stage.inputs().items()}
            for fold in found:
                mean_C = fold.gather(means[next(iter(fold.readers))]).clamp(min=1e-8)
                fold.apply(self._best(work, stage, fold, mean_C))
        if self.clip:
            self._clip(work, stage)

    def _best(self, work: Work, stage: Stage, fold: Fold, mean_C: Tensor) -> Tensor:
        """The scales with the smallest error."""
        block = next(iter(fold.readers)).removeprefix(f"{stage.name}.").partition(".")[0]
        calls = stage.calls(block, self.samples)
        module = stage.layer.get_submodule(block) if stage.layer else None
        assert module is not None
        expected = [module(*call) for call in calls]
        candidates = [bounded(mean_C ** (step / self.grid)) for step in range(self.grid)]
        errors = [_error(work, fold, fold.spread(scale_C), module, calls, expected) for scale_C in candidates]
        return candidates[errors.index(min(errors))]

    def _clip(self, work: Work, stage: Stage) -> None:
        planned = [item for item in work.planned(stage) if item[2].strategy == "group"]
        for size in sorted({format.group_size for _, _, format in planned}):
            seen = stage.inputs(gram=size)
            for name, linear, format in planned:
                if format.group_size == size and not name.endswith(_NOT_CLIPPED):
                    replace_weight(linear, clipped(linear.weight.detach(), seen[name].gram_CGG, format))


class _Trial(nn.Module):
    """A linear layer as it would be with its inputs divided by scales and its matrix multiplied by them, rounded."""

    def __init__(self, weight_NK: Tensor, scale_K: Tensor, format: WeightFormat) -> None:
        super().__init__()
        rounded_NK = dequantize_weight(quantize_weight(weight_NK.float() * scale_K, format), format, weight_NK.dtype)
        self.register_buffer("rounded_NK", rounded_NK)
        self.register_buffer("scale_K", scale_K.to(weight_NK.dtype))
        self.format = format

    def forward(self, x: Tensor) -> Tensor:
        x = x / self.get_buffer("scale_K")
        if self.format.activations in ("token", "group"):
            x = round_activations(x, self.format)
        return F.linear(x, self.get_buffer("rounded_NK"))


def _error(
    work: Work,
    fold: Fold,
    scale_K: Tensor,
    module: nn.Module,
    calls: Sequence[tuple[Any, ...]],
    expected: Sequence[Tensor],
) -> float:
    """The squared error of a part of a block when the readers of a place are rounded with these scales."""
    for name, reader in fold.readers.items():
        if name in work.plan.modules:
            trial = _Trial(reader.weight.detach(), scale_K, work.plan.format(name))
            work.model.set_submodule(name, trial)
    try:
        outputs = [module(*call) for call in calls]
    finally:
        for name, reader in fold.readers.items():
            work.model.set_submodule(name, reader)
    return float(sum((out - want).float().square().sum() for out, want in zip(outputs, expected, strict=True)))
