"""Rows of a quantised cache, and that the kernels read them as they are written."""

from __future__ import annotations

import pytest
import torch

from puna.base.errors import ConfigError
from puna.kernels.attention import decode_attention
from puna.quant.kv import cache_dtype, dequantize_rows, quantize_rows


@pytest.mark.parametrize(("kind", "share"), [("int8", 0.5 / 127), ("fp8", 16 / 448)])
def test_the_error_is_bounded_by_each_heads_largest_channel(kind: str, share: float) -> None:
    x = torch.randn(4, 16, 2, 64, generator=torch.Generator().manual_seed(0)) * torch.logspace(-2, 2, 16).view(
        1, 16, 1, 1
    )
    x[0, 0, 0] = 0
    q, scale = quantize_rows(x, kind)
    assert q.dtype == cache_dtype(kind)
    assert (q.shape, scale.shape, scale.dtype) == (x.shape, x.shape[:-1], torch.float32)
    error = (dequantize_rows(q, scale) - x).abs().amax(-1)
    assert bool((error <= share * x.abs().amax(-1) * (1 + 1e-5)).all())
    assert bool((dequantize_rows(q, scale)[0, 0, 0] == 0).all())


@pytest.mark.parametrize("kind", ["int8", "fp8"])
def test_attention_over_such_a_cache_is_near_that_over_exact_numbers(kind: str) -> None:
    generator = torch.Generator().manual_seed(0)
    k, v = (torch.randn(3, 16, 2, 64, generator=generator) for _ in range(2))
    q = torch.randn(2, 4, 64, generator=generator)
    table, lengths = (
        torch.tensor([[2, 0, -1], [1, -1, -1]], dtype=torch.int32),
        torch.tensor([20, 9], dtype=torch.int32),
    )
    codes, scales = zip(*(quantize_rows(x, kind) for x in (k, v)), strict=True)
    k_codes, v_codes = (x.transpose(1, 2).contiguous() for x in codes)
    k_scale, v_scale = (x.transpose(1, 2).contiguous() for x in scales)
    out = decode_attention(q, k_codes, v_codes, table, lengths, k_scale, v_scale)
    k, v = (x.transpose(1, 2).contiguous() for x in (k, v))
    exact = decode_attention(q, k, v, table, lengths)
    assert float((out - exact).abs().max()) < (0.02 if kind == "int8" else 0.15)


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ConfigError, match="int4"):
        quantize_rows(torch.zeros(1, 8), "int4")
