"""The products of `linear` in torch operations alone: the fallback without a compiler, and the path of other devices.

Correct before fast: on a CPU everything is computed in float32, tile by tile of the weight's rows. Codes and scales of
activations are those of the compiled kernels, so that both paths give one output to rounding.

Shapes: M tokens, K inputs, N outputs, P = K/8 packed words, C groups along a row.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

FP8_MAX = 448.0  # the largest E4M3 value
FP8_FLOOR = 1e-12  # the least row maximum, as in FBGEMM's row-wise quantisation: a row of zeros has a scale
BLOCK = 128
_TILE_WEIGHTS = 1 << 22


def quantize_int8(x: Tensor) -> tuple[Tensor, Tensor]:
    """Codes -127 .. 127 along the last axis, as float32, and their scale (its last axis is 1)."""
    wide = x.float()
    scale = wide.abs().amax(-1, keepdim=True) / 127
    return torch.where(scale == 0, 0.0, wide / scale).round(), scale


def quantize_fp8(x_MK: Tensor, cap: float) -> tuple[Tensor, Tensor]:
    """E4M3 values as float32, and their scale (M, 1): the row's maximum, at most `cap`, becomes 448."""
    wide = x_MK.float()
    scale = wide.abs().amax(-1, keepdim=True).clamp(FP8_FLOOR, cap) / FP8_MAX
    values = (wide / scale).clamp(-FP8_MAX, FP8_MAX)
    return values.to(torch.float8_e4m3fn).float(), scale


def round_blocks(x_MK: Tensor) -> Tensor:
    """float32 of x rounded to int8 codes, with a scale for each block of 128 inputs."""
    M, K = x_MK.shape
    padded = torch.nn.functional.pad(x_MK.float(), (0, -K % BLOCK)).view(M, -(-K // BLOCK), BLOCK)
    codes, scale = quantize_int8(padded)
    return (codes * scale).flatten(1)[:, :K]


def unpack_int4(packed_NP: Tensor, scale_NC: Tensor, dtype: torch.dtype) -> Tensor:
    """Weights (N, K) of packed nibbles, lowest first, each moved up by 8."""
    shifts = torch.arange(0, 32, 4, dtype=torch.int32, device=packed_NP.device)
    codes = ((packed_NP.unsqueeze(-1) >> shifts) & 15) - 8
    groups = codes.view(*scale_NC.shape, -1)
    return (groups * scale_NC.float().unsqueeze(-1)).flatten(1).to(dtype)


def expand_blocks(scale: Tensor, first: int, rows: int, K: int) -> Tensor:
    """The scale of each weight of rows [first, first + rows): (rows, 1), or (rows, K) where scales are of blocks."""
    if scale.dim() == 1:
        return scale[first : first + rows].unsqueeze(1)
    index = torch.arange(first, first + rows, device=scale.device) // BLOCK
    return scale[index].repeat_interleave(BLOCK, dim=1)[:, :K]


def tiled(x_MK: Tensor, rows: int, widen: Callable[[int, int], Tensor], dtype: torch.dtype) -> Tensor:
    """x times the transpose of a weight whose rows [first, last) `widen` gives, (M, rows) in `dtype`."""
    M, K = x_MK.shape
    y_MN = torch.empty(M, rows, dtype=dtype, device=x_MK.device)
    step = max(BLOCK, _TILE_WEIGHTS // max(K, 1) // BLOCK * BLOCK)
    for first in range(0, rows, step):
        last = min(first + step, rows)
        y_MN[:, first:last] = x_MK @ widen(first, last).t()
    return y_MN


def compute_dtype(x: Tensor) -> torch.dtype:
    return torch.float32 if x.device.type == "cpu" else x.dtype


def bf16_linear(x_MK: Tensor, weight_NK: Tensor) -> Tensor:
    dtype = compute_dtype(x_MK)
    return tiled(x_MK.to(dtype), len(weight_NK), lambda a, b: weight_NK[a:b].to(dtype), x_MK.dtype)


def int8_linear(x_MK: Tensor, weight_NK: Tensor, scale_N: Tensor, quantize_activations: bool) -> Tensor:
    if quantize_activations:
        codes_MK, scale_M1 = quantize_int8(x_MK)
        # Sums of K products up to 127 * 128 are beyond float32's 24 bits from K = 1024 on.
        y_MN = tiled(codes_MK.double(), len(weight_NK), lambda a, b: weight_NK[a:b].double(), torch.float32)
        return (y_MN * scale_N * scale_M1).to(x_MK.dtype)
    dtype = compute_dtype(x_MK)
    y_MN = tiled(x_MK.to(dtype), len(weight_NK), lambda a, b: weight_NK[a:b].to(dtype), torch.float32)
    return (y_MN * scale_N).to(x_MK.dtype)


def fp8_linear(x_MK: Tensor, weight_NK: Tensor, scale: Tensor, quantize_activations: bool, cap: float) -> Tensor:
    K = x_MK.shape[1]
    values_MK, scale_M1 = quantize_fp8(x_MK, cap) if quantize_activations else (x_MK, 1.0)
    dtype = compute_dtype(x_MK)

    def widen(first: int, last: int) -> Tensor:
        return (weight_NK[first:last].float() * expand_blocks(scale, first, last - first, K)).to(dtype)

    y_MN = tiled(values_MK.to(dtype), len(weight_NK), widen, torch.float32)
    return (y_MN * scale_M1).to(x_MK.dtype)


def int4_linear(x_MK: Tensor, packed_NP: Tensor, scale_NC: Tensor, round_activations: bool) -> Tensor:
    """Without rounding, the weight is dequantised to x's dtype, and products are those of that dtype."""
    dtype = compute_dtype(x_MK)
    kept = torch.float32 if round_activations else x_MK.dtype

    def widen(first: int, last: int) -> Tensor:
        return unpack_int4(packed_NP[first:last], scale_NC[first:last], kept).to(dtype)

    inputs = round_blocks(x_MK) if round_activations else x_MK
    return tiled(inputs.to(dtype), len(packed_NP), widen, x_MK.dtype)
