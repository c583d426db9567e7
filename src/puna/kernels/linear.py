"""y = x w^T on weights as files hold them: bfloat16, INT8, FP8 E4M3 and INT4, read where they lie, never repacked.

Up to SMALL_M tokens a compiled kernel streams the weights past the tokens, so that decoding runs at the memory's speed.
For more, tiles of rows are widened into a scratch of x's dtype and multiplied by oneDNN; a whole widened weight never
exists. Without the library, and on other devices, `plain` gives the same output to rounding. Biases are left out:
Llama has none. So are gradients: training multiplies by its own weights.

Shapes: M tokens, K inputs, N outputs, P = K/8 packed words, C = K/group groups along a row.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import NoReturn

import torch
import torch.nn.functional as F
from torch import Tensor

from puna.base.device import cpu_has_bf16
from puna.base.errors import InputError
from puna.kernels import plain
from puna.kernels.build import Library, library

# Up to how many tokens the compiled kernel is the faster path: measured with benchmarks/kernels.py on two cores of a
# Zen 4 at the shapes of Llama 3.2 1B. INT4 rounds activations to int8 below it, and not above.
SMALL_M = {"bf16": 48, "int8": 40, "int8 weights only": 48, "fp8": 64, "int4": 64}

_SCRATCH_BYTES = 8 << 20  # a tile of widened weights: a part of the last cache that leaves room for the tokens
_MAX_INT8_INPUTS = 1 << 17  # beyond it 127 * 128 * K leaves int32
_KINDS = {torch.int32: 0, torch.float32: 1, torch.bfloat16: 2}
_FLOAT32 = (torch.float32,)
_FLOATS = (torch.float32, torch.bfloat16)
_CPU_HAS_BF16 = cpu_has_bf16()
_local = threading.local()


def bf16_linear(x_MK: Tensor, weight_NK: Tensor) -> Tensor:
    """x w^T, (M, N) in x's dtype. float32 tokens are not rounded."""
    M, N, K = _check(x_MK, weight_NK, torch.bfloat16, 1)
    kernels = _kernels(x_MK)
    if kernels is None or M == 0:
        return plain.bf16_linear(x_MK, weight_NK)
    if not _few("bf16", M):
        if x_MK.dtype == torch.bfloat16 and _CPU_HAS_BF16:
            return F.linear(_rounded_up(x_MK), weight_NK)[:M]
        return _prefill(x_MK, N, lambda first, tile: tile.copy_(weight_NK[first : first + len(tile)]))
    x_MK, y_MN = x_MK.contiguous(), torch.empty(M, N, dtype=x_MK.dtype)
    kernels.bf16_linear(
        x_MK.data_ptr(), x_MK.dtype == torch.bfloat16, weight_NK.data_ptr(), y_MN.data_ptr(), M, N, K, _threads()
    )
    return y_MN


def int8_linear(x_MK: Tensor, weight_NK: Tensor, scale_N: Tensor, *, quantize_activations: bool) -> Tensor:
    """x (w * scale)^T, (M, N) in x's dtype.

    Args:
        x_MK: float32 or bfloat16.
        weight_NK: int8 codes.
        scale_N: float32, one for each output.
        quantize_activations: round each token to int8 (scale = absmax / 127) and sum products in int32; else x is
            taken as it is.
    """
    M, N, K = _check(x_MK, weight_NK, torch.int8, 1)
    _check_scale(scale_N, ((N,),), _FLOAT32, x_MK)
    kernels = _kernels(x_MK)
    if kernels is None or M == 0 or (quantize_activations and K > _MAX_INT8_INPUTS):
        return plain.int8_linear(x_MK, weight_NK, scale_N, quantize_activations)
    x_MK, threads, bf16 = x_MK.contiguous(), _threads(), x_MK.dtype == torch.bfloat16
    many = not _few("int8" if quantize_activations else "int8 weights only", M)
    if many and quantize_activations and K > 1:  # torch's int8 product errs at one input
        return _prefill_int8(kernels, x_MK, weight_NK, scale_N)
    if many and not quantize_activations:

        def widen(first: int, tile: Tensor) -> None:
            start, scale = weight_NK.data_ptr() + first * K, scale_N.data_ptr() + 4 * first
            kernels.widen_int8(start, scale, tile.data_ptr(), tile.dtype == torch.bfloat16, len(tile), K, threads)

        return _prefill(x_MK, N, widen)
    y_MN = torch.empty(M, N, dtype=x_MK.dtype)
    addresses = x_MK.data_ptr(), bf16, weight_NK.data_ptr(), scale_N.data_ptr()
    kernels.int8_linear(*addresses, quantize_activations, y_MN.data_ptr(), M, N, K, threads)
    return y_MN


def fp8_linear(
    x_MK: Tensor, weight_NK: Tensor, scale: Tensor, *, quantize_activations: bool, cap: float = float("inf")
) -> Tensor:
    """x (w * scale)^T, (M, N) in x's dtype.

    Args:
        x_MK: float32 or bfloat16.
        weight_NK: float8_e4m3fn codes.
        scale: float32, one for each output (N,), or one for each block of 128 x 128, (ceil(N/128), ceil(K/128)).
        quantize_activations: round each token to E4M3; else x is taken as it is.
        cap: upper bound of a token's maximum before it is made 448; larger inputs saturate. Llama 3.1 uses 1200, so
            that an outlier does not take the rest of its token below the smallest code (arXiv 2407.21783, section 6.2).
    """
    M, N, K = _check(x_MK, weight_NK, torch.float8_e4m3fn, 1)
    _check_scale(scale, ((N,), (-(-N // 128), -(-K // 128))), _FLOAT32, x_MK)
    if quantize_activations and not cap > 0:
        raise InputError(f"cap is {cap}.", hint="Give a number above 0; Llama 3.1 uses 1200.")
    kernels = _kernels(x_MK)
    if kernels is None or M == 0:
        return plain.fp8_linear(x_MK, weight_NK, scale, quantize_activations, cap)
    x_MK, threads, blocked = x_MK.contiguous(), _threads(), scale.dim() == 2
    if not _few("fp8", M):
        return _prefill_fp8(kernels, x_MK, weight_NK, scale, cap if quantize_activations else None)
    y_MN = torch.empty(M, N, dtype=x_MK.dtype)
    addresses = x_MK.data_ptr(), x_MK.dtype == torch.bfloat16, weight_NK.data_ptr(), scale.data_ptr()
    kernels.fp8_linear(*addresses, blocked, quantize_activations, cap, y_MN.data_ptr(), M, N, K, threads)
    return y_MN


def int4_linear(x_MK: Tensor, packed_NP: Tensor, scale_NC: Tensor) -> Tensor:
    """x w^T for w = scale * (nibble - 8), (M, N) in x's dtype.

    Up to SMALL_M tokens each block of 128 inputs of a token is rounded to int8 with a scale of its own (an error of
    about 0.3 % of the output); above, x is taken as it is and w is widened to x's dtype.

    Args:
        x_MK: float32 or bfloat16.
        packed_NP: int32 words of eight nibbles, lowest first.
        scale_NC: float32 or bfloat16; a group is K/C inputs, a multiple of 32.
    """
    M, N, K = _check(x_MK, packed_NP, torch.int32, 8)
    groups = scale_NC.shape[1] if scale_NC.dim() == 2 else 0
    if groups == 0 or K % groups or K // groups % 32:
        raise InputError(f"scale_NC has the shape {tuple(scale_NC.shape)}, and x has {K} inputs.", hint=_GROUPS_HINT)
    _check_scale(scale_NC, ((N, groups),), _FLOATS, x_MK)
    kernels, group, threads = _kernels(x_MK), K // groups, _threads()
    if kernels is None or M == 0:
        return plain.int4_linear(x_MK, packed_NP, scale_NC, _few("int4", M))
    x_MK, scale_bf16 = x_MK.contiguous(), scale_NC.dtype == torch.bfloat16
    if not _few("int4", M):

        def widen(first: int, tile: Tensor) -> None:
            start = packed_NP.data_ptr() + first * (K // 2)
            scale = scale_NC.data_ptr() + first * groups * scale_NC.element_size()
            out_bf16 = tile.dtype == torch.bfloat16
            kernels.widen_int4(start, scale, scale_bf16, group, tile.data_ptr(), out_bf16, len(tile), K, threads)

        return _prefill(x_MK, N, widen)
    y_MN = torch.empty(M, N, dtype=x_MK.dtype)
    addresses = x_MK.data_ptr(), x_MK.dtype == torch.bfloat16, packed_NP.data_ptr(), scale_NC.data_ptr()
    kernels.int4_linear(*addresses, scale_bf16, group, y_MN.data_ptr(), M, N, K, threads)
    return y_MN


_GROUPS_HINT = "Scales are (N, groups), the groups divide the inputs evenly, and a group is a multiple of 32."


# Many tokens ----------------------------------------------------------------------------------------------------------


def _prefill(x_MK: Tensor, N: int, widen: Callable[[int, Tensor], object]) -> Tensor:
    """Multiplies by tiles of rows that `widen(first, tile)` fills, in bfloat16 where the CPU multiplies it."""
    dtype, tokens = _product_dtype(x_MK), len(x_MK)
    inputs_MK = _rounded_up(x_MK.to(dtype))
    M, K = inputs_MK.shape
    y_MN = torch.empty(M, N, dtype=dtype)
    for first, last, tile in _tiles(N, K, dtype):
        widen(first, tile)
        torch.mm(inputs_MK, tile.t(), out=y_MN[:, first:last])
    return y_MN[:tokens].to(x_MK.dtype)


def _prefill_int8(kernels: Library, x_MK: Tensor, weight_NK: Tensor, scale_N: Tensor) -> Tensor:
    """W8A8: oneDNN sums the products of codes in int32, from the weights as they lie."""
    tokens, x_MK = len(x_MK), _rounded_up(x_MK)
    (M, K), N, threads = x_MK.shape, len(weight_NK), _threads()
    codes_MK, scale_M = torch.empty(M, K, dtype=torch.int8), torch.empty(M)
    bf16 = x_MK.dtype == torch.bfloat16
    kernels.quantize_int8(x_MK.data_ptr(), bf16, codes_MK.data_ptr(), scale_M.data_ptr(), M, K, threads)
    y_MN = torch.empty(M, N, dtype=x_MK.dtype)
    step = max(128, _SCRATCH_BYTES // (4 * M) // 128 * 128)
    for first in range(0, N, step):
        last = min(first + step, N)
        sums = _scratch("sums", M, last - first, torch.int32)
        torch._int_mm(codes_MK, weight_NK[first:last].t(), out=sums)
        _rescale(kernels, sums, scale_M, scale_N[first:last], y_MN, first)
    return y_MN[:tokens]


def _prefill_fp8(kernels: Library, x_MK: Tensor, weight_NK: Tensor, scale: Tensor, cap: float | None) -> Tensor:
    """With `cap` tokens are rounded to E4M3. Row scales then multiply the sums, because codes are exact in bfloat16."""
    N, threads, blocked = len(weight_NK), _threads(), scale.dim() == 2
    K = x_MK.shape[1]

    def widen(first: int, tile: Tensor) -> None:
        start, out_bf16 = weight_NK.data_ptr() + first * K, tile.dtype == torch.bfloat16
        at = scale.data_ptr() + 4 * (first // 128 * scale.shape[1] if blocked else first)
        used = None if cap is not None and not blocked else at
        kernels.widen_fp8(start, used, blocked, tile.data_ptr(), out_bf16, len(tile), K, threads)

    if cap is None:
        return _prefill(x_MK, N, widen)
    tokens, x_MK = len(x_MK), _rounded_up(x_MK)
    M = len(x_MK)
    values_MK, scale_M = torch.empty(M, K, dtype=_product_dtype(x_MK)), torch.empty(M)
    given, made = x_MK.dtype == torch.bfloat16, values_MK.dtype == torch.bfloat16
    addresses = values_MK.data_ptr(), made, scale_M.data_ptr()
    kernels.quantize_fp8(x_MK.data_ptr(), given, cap, *addresses, M, K, threads)
    y_MN = torch.empty(M, N, dtype=x_MK.dtype)
    for first, last, tile in _tiles(N, K, values_MK.dtype):
        widen(first, tile)
        sums = torch.mm(values_MK, tile.t(), out=_scratch("sums", M, last - first, values_MK.dtype))
        _rescale(kernels, sums, scale_M, None if blocked else scale[first:last], y_MN, first)
    return y_MN[:tokens]


def _rounded_up(x_MK: Tensor) -> Tensor:
    """Tokens with rows of zeros more: oneDNN compiles and keeps a product for every number of them that it meets."""
    M = len(x_MK)
    unit = 16 if M <= 128 else 32 if M <= 512 else 64
    return F.pad(x_MK, (0, 0, 0, -M % unit)) if M % unit else x_MK


def _product_dtype(x: Tensor) -> torch.dtype:
    """bfloat16 for bfloat16 tokens, where the CPU multiplies it; else float32."""
    return x.dtype if _CPU_HAS_BF16 else torch.float32


def _rescale(
    kernels: Library, sums_MR: Tensor, scale_M: Tensor, scale_R: Tensor | None, y_MN: Tensor, first: int
) -> None:
    """Writes the sums of columns [first, first + R) of y, times their scales."""
    (M, rows), by_row = sums_MR.shape, None if scale_R is None else scale_R.data_ptr()
    source = sums_MR.data_ptr(), _KINDS[sums_MR.dtype], scale_M.data_ptr(), by_row
    target = y_MN.data_ptr(), y_MN.dtype == torch.bfloat16
    kernels.rescale(*source, *target, M, rows, y_MN.shape[1], first, _threads())


def _tiles(N: int, K: int, dtype: torch.dtype) -> Iterator[tuple[int, int, Tensor]]:
    """Row ranges of a weight, with scratch for each."""
    step = max(128, _SCRATCH_BYTES // (K * dtype.itemsize) // 128 * 128)
    for first in range(0, N, step):
        last = min(first + step, N)
        yield first, last, _scratch("weight", last - first, K, dtype)


def _scratch(use: str, rows: int, columns: int, dtype: torch.dtype) -> Tensor:
    """Memory that belongs to the thread and is used again: fresh memory would be zeroed by the system each time."""
    needed, kept = rows * columns * dtype.itemsize, _local.__dict__
    if use not in kept or len(kept[use]) < needed:
        with torch.inference_mode(False):  # else it could not be written to outside of inference mode
            kept[use] = torch.empty(needed, dtype=torch.uint8)
    return kept[use][:needed].view(dtype).view(rows, columns)


# Checks ---------------------------------------------------------------------------------------------------------------


def _few(format: str, tokens: int) -> bool:
    return tokens <= SMALL_M[format]


def _kernels(x: Tensor) -> Library | None:
    return library() if x.is_cpu else None


def _threads() -> int:
    return torch.get_num_threads()


def _check(x_MK: Tensor, weight: Tensor, dtype: torch.dtype, packed: int) -> tuple[int, int, int]:
    """M, N and K, after making sure that the addresses may be handed on."""
    x_shape, shape = x_MK.shape, weight.shape
    fits = len(x_shape) == 2 and len(shape) == 2 and x_shape[1] == shape[1] * packed > 0
    fits = fits and x_MK.dtype in _FLOATS and weight.dtype is dtype and weight.is_contiguous()
    fits = fits and ((x_MK.is_cpu and weight.is_cpu) or x_MK.device == weight.device)
    if not fits or (x_MK.requires_grad and torch.is_grad_enabled()):
        _refuse(x_MK, weight, dtype, packed)
    return x_shape[0], shape[0], x_shape[1]


def _refuse(x_MK: Tensor, weight: Tensor, dtype: torch.dtype, packed: int) -> NoReturn:
    if x_MK.dtype not in _FLOATS or weight.dtype != dtype:
        raise InputError(
            f"x is {x_MK.dtype} and the weight {weight.dtype}.",
            hint=f"x must be float32 or bfloat16, and this weight {dtype}.",
        )
    if not weight.is_contiguous() or weight.device != x_MK.device:
        raise InputError(
            f"The weight has the strides {weight.stride()} on {weight.device}, and x is on {x_MK.device}.",
            hint="Store it row after row without gaps, on the device of x.",
        )
    if x_MK.requires_grad and torch.is_grad_enabled():
        raise InputError("x needs gradients, and these products have none.", hint="Call under torch.inference_mode().")
    raise InputError(
        f"x has the shape {tuple(x_MK.shape)} and the weight {tuple(weight.shape)}.",
        hint=f"They must be (tokens, inputs) and (outputs, inputs{f' / {packed}' if packed > 1 else ''}).",
    )


def _check_scale(
    scale: Tensor, shapes: tuple[tuple[int, ...], ...], dtypes: tuple[torch.dtype, ...], x: Tensor
) -> None:
    if scale.shape in shapes and scale.dtype in dtypes and scale.is_contiguous() and scale.is_cpu == x.is_cpu:
        return
    expected = " or ".join(f"{shape}" for shape in shapes)
    raise InputError(
        f"The scale has the shape {tuple(scale.shape)}, {scale.dtype}, strides {scale.stride()}, on {scale.device}.",
        hint=f"It must be {expected}, {' or '.join(map(str, dtypes))}, without gaps, on {x.device}.",
    )
