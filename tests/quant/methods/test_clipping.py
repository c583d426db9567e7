"""Clipping: never worse on the inputs that it saw, and better where a group has an outlier that inputs do not meet."""

from __future__ import annotations

import pytest
import torch

from puna.quant.formats import FORMATS, dequantize_weight, quantize_weight
from puna.quant.methods.clipping import clipped


def group_errors(weight: torch.Tensor, cut: torch.Tensor, x: torch.Tensor, name: str) -> torch.Tensor:
    """The squared error of each group's share of the output, (N, C)."""
    format = FORMATS[name]
    error = dequantize_weight(quantize_weight(cut, format), format) - weight
    parts = error.unflatten(1, (-1, format.group_size)), x.unflatten(1, (-1, format.group_size))
    return torch.einsum("ncg,mcg->ncm", *parts).square().sum(-1)


@pytest.mark.parametrize("name", ["int4-g32", "int4-g128"])
def test_no_group_is_worse_than_without(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    weight, x = torch.randn(40, 256, generator=generator), torch.randn(300, 256, generator=generator)
    groups = x.unflatten(1, (-1, FORMATS[name].group_size))
    gram = torch.einsum("mcg,mch->cgh", groups, groups)
    cut = clipped(weight, gram, FORMATS[name])
    before, after = group_errors(weight, weight, x, name), group_errors(weight, cut, x, name)
    assert bool((after <= before * (1 + 1e-3) + 1e-3).all())
    assert float(after.sum()) < 0.98 * float(before.sum())
    assert bool((cut.abs() <= weight.abs() + 1e-6).all())


def test_an_outlier_that_no_input_meets_is_cut_by_half() -> None:
    weight = 0.1 * torch.randn(1, 32, generator=torch.Generator().manual_seed(0))
    weight[0, 4] = 2.0
    gram = torch.eye(32)[None].clone()
    gram[0, 4, 4] = 1e-9
    assert float(clipped(weight, gram, FORMATS["int4-g32"])[0, 4]) == pytest.approx(1.0)
