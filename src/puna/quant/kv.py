"""Quantised rows of the key-value cache: int8 or E4M3, with one float32 scale for each token and head.

Keys have channels that are large for every token, and a scale for each token and head bounds their error by that
token's largest channel (as integers: half of a 127th). The kernels of `puna.kernels.attention` read such a cache
directly; the functions here fill it, and give its numbers back where there is no kernel.

Shapes: any leading axes (pages, tokens, heads), K channels of a head last.
"""

from __future__ import annotations

import torch
from torch import Tensor

from puna.base.errors import ConfigError, near
from puna.quant.formats import FORMATS, FP8, round_steps, token_scale

# kind of cache -> (the format whose numbers it has, its dtype)
KINDS = {"int8": (FORMATS["int8"], torch.int8), "fp8": (FORMATS["fp8"], FP8)}


def cache_dtype(kind: str) -> torch.dtype:
    if kind not in KINDS:
        raise ConfigError(f"There is no quantised cache {kind!r}.", hint=near(kind, KINDS))
    return KINDS[kind][1]


def quantize_rows(x: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    """Rounds keys or values.

    Args:
        x: (..., K) of any floating dtype.
        kind: "int8" or "fp8".

    Returns:
        The numbers, (..., K) in `cache_dtype(kind)`, and their scales, (...) float32.
    """
    dtype = cache_dtype(kind)
    format = KINDS[kind][0]
    scale = token_scale(x, format)
    return round_steps(x.float() / scale, format).to(dtype), scale.squeeze(-1)


def dequantize_rows(q: Tensor, scale: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """What `quantize_rows` stored, (..., K)."""
    return (q.float() * scale.unsqueeze(-1)).to(dtype)
