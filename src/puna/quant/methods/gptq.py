"""GPTQ (arXiv 2210.17323): weights are rounded column by column, and those still to come make up for the error.

With H = X^T X of the layer's inputs, rounding column j by d changes the outputs least when the columns after it move by
-d U_j / U_jj, U being the upper Cholesky factor of H's inverse. Columns go in the order of how much their inputs weigh
("activation order"); the scales are those of the original matrix ("static groups"), so the stored order of the columns
is untouched and kernels need no permutation. In blocks of 128 columns, the update of all later blocks is one product.

Shapes: N outputs, K inputs, B columns of a block.
"""

from __future__ import annotations

import torch
from torch import Tensor

from puna.base.config import require
from puna.base.errors import TrainingError
from puna.quant.calibrate import EVERY_PAIR, Inputs, Stage
from puna.quant.formats import WeightFormat, encode, expand_scale, round_steps, weight_scale
from puna.quant.methods.method import Method, Work

_TRIES = 6  # ten times the dampening at each, up to the size of H itself


class Gptq(Method):
    """Args:
    dampening: share of H's mean diagonal that is added to it.
    block: columns of a block.
    """

    rounds = True
    calibrates = True

    def __init__(self, dampening: float = 0.01, block: int = 128) -> None:
        require(dampening > 0, f"dampening is {dampening}; it must be above 0.")
        self.dampening, self.block = dampening, block

    @torch.no_grad()
    def layer(self, work: Work, stage: Stage) -> None:
        planned = list(work.planned(stage))
        if not planned:
            return
        seen = stage.inputs(gram=EVERY_PAIR)
        factors: dict[int, tuple[Tensor, Tensor]] = {}
        for name, linear, format in planned:
            inputs = seen[name]
            if id(inputs) not in factors:  # three projections of an attention share their inputs
                factors = {id(inputs): _factor(inputs, self.dampening, name)}
            order_K, factor_KK = factors[id(inputs)]
            work.install(name, self._round(linear.weight.detach(), format, order_K, factor_KK, name), inputs)

    def _round(
        self, weight_NK: Tensor, format: WeightFormat, order_K: Tensor, factor_KK: Tensor, name: str
    ) -> dict[str, Tensor]:
        """The tensors of the rounded matrix."""
        scale = weight_scale(weight_NK, format, name)
        scale_NK = expand_scale(scale, format, *weight_NK.shape).expand(weight_NK.shape)
        # Columns lie in rows of memory here: each is read and written as a whole.
        columns_KN, scale_KN = weight_NK.T[order_K].float(), scale_NK.T[order_K]
        for start in range(0, len(columns_KN), self.block):
            part = slice(start, start + self.block)
            errors_BN = _round_block(columns_KN[part], scale_KN[part], factor_KK[part, part], format)
            columns_KN[part.stop :] -= factor_KK[part, part.stop :].T @ errors_BN
        rounded_KN = torch.empty_like(columns_KN)
        rounded_KN[order_K] = columns_KN
        return encode(rounded_KN.T, scale, format)


def _round_block(columns_BN: Tensor, scale_BN: Tensor, factor_BB: Tensor, format: WeightFormat) -> Tensor:
    """Rounds the columns of a block in place; returns their errors divided by the factor's diagonal."""
    errors_BN = torch.empty_like(columns_BN)
    for j in range(len(columns_BN)):
        rounded_N = round_steps(columns_BN[j] / scale_BN[j], format) * scale_BN[j]
        errors_BN[j] = (columns_BN[j] - rounded_N) / factor_BB[j, j]
        columns_BN[j] = rounded_N
        columns_BN[j + 1 :] -= factor_BB[j, j + 1 :, None] * errors_BN[j]
    return errors_BN


def _factor(inputs: Inputs, dampening: float, name: str) -> tuple[Tensor, Tensor]:
    """The order of the columns, the weightiest first, and U with U^T U = inverse of the dampened H in that order."""
    gram_KK = inputs.gram_CGG[0] / max(1, inputs.count)
    diagonal_K = gram_KK.diagonal()
    order_K = diagonal_K.argsort(descending=True, stable=True)
    gram_KK = gram_KK[order_K][:, order_K]
    mean = diagonal_K.mean().clamp(min=torch.finfo(torch.float32).tiny)
    for attempt in range(_TRIES):
        damped_KK = gram_KK.clone()
        damped_KK.diagonal().add_(dampening * 10**attempt * mean)
        lower_KK, failed = torch.linalg.cholesky_ex(damped_KK)
        if failed:
            continue
        upper_KK, failed = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower_KK), upper=True)
        if not failed and bool(upper_KK.isfinite().all()):
            return order_K, upper_KK
    raise TrainingError(
        f"The inputs of {name} have no usable covariance: a sum over {inputs.count:,} of them is not finite.",
        hint="The model overflows on these texts; calibrate in float32.",
    )
