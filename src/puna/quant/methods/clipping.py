"""Clipping: a group's largest weights are cut a little where that makes the steps of all its others finer.

For each group of inputs of each row, the cut with the smallest error of that group's share of the output on real
inputs is taken, as AWQ's authors do it (their released code; arXiv 2306.00978 gives the scales alone). With d the
group's rounding errors and G its inputs' products, the error is d^T G d, so no inputs need to be kept.

Shapes: N outputs in parts of R, C groups of a row, G inputs of a group.
"""

from __future__ import annotations

import torch
from torch import Tensor

from puna.quant.formats import WeightFormat, dequantize_weight, quantize_weight

_STEPS = 10
_SMALLEST = 0.5  # of the largest weight that is kept
_PART_NUMBERS = 1 << 22


@torch.no_grad()
def clipped(weight_NK: Tensor, gram_CGG: Tensor, format: WeightFormat) -> Tensor:
    """The weights with each group cut where it pays, (N, K) float32.

    Args:
        weight_NK: the matrix.
        gram_CGG: sums of products of the inputs of each group.
        format: with scales of groups.
    """
    rows = max(1, _PART_NUMBERS // weight_NK.shape[1])
    parts = weight_NK.float().split(rows)
    return torch.cat([_clipped_rows(part, gram_CGG, format) for part in parts])


def _clipped_rows(weight_RK: Tensor, gram_CGG: Tensor, format: WeightFormat) -> Tensor:
    weight_RCG = weight_RK.unflatten(1, (-1, format.group_size))
    largest_RC1 = weight_RCG.abs().amax(-1, keepdim=True)
    best_RCG = weight_RCG
    least_RC1 = torch.full_like(largest_RC1, torch.inf)
    for step in range(_STEPS + 1):
        limit_RC1 = largest_RC1 * (1 - (1 - _SMALLEST) * step / _STEPS)
        cut_RCG = torch.minimum(torch.maximum(weight_RCG, -limit_RC1), limit_RC1)
        rounded_RK = dequantize_weight(quantize_weight(cut_RCG.flatten(1), format), format)
        error_RCG = rounded_RK.view_as(weight_RCG) - weight_RCG
        weighed_RCG = (error_RCG.transpose(0, 1) @ gram_CGG).transpose(0, 1)
        loss_RC1 = (weighed_RCG * error_RCG).sum(-1, keepdim=True)
        better_RC1 = loss_RC1 < least_RC1
        best_RCG = torch.where(better_RC1, cut_RCG, best_RCG)
        least_RC1 = torch.where(better_RC1, loss_RC1, least_RC1)
    return best_RCG.flatten(1)
