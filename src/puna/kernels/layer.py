"""A decoder layer for the few tokens of a decoding step, in one compiled call.

The call takes addresses: the structures here keep the tensors alive that they point to, and are filled once for a model
(`LayerWeights`), once for a cache (`LayerPages`) and once for a step (`LayerStep`). There is no fallback: whoever has
no library, other dtypes, or steps with anything else in them takes the layer's own modules, which give the same output
to rounding.

Shapes: M tokens, D hidden_size, H query heads, G key/value heads, K head_dim, J = K/2, P pages, S tokens a page, B
pages of a sequence.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from ctypes import c_float, c_int32, c_int64, c_void_p
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from puna.base.errors import InputError
from puna.kernels.build import library
from puna.kernels.linear import SMALL_M

Format = Literal["bf16", "int8", "fp8", "int4"]

# Up to so many tokens every product is the compiled kernel's.
MOST_TOKENS = min(SMALL_M.values())
PROJECTIONS = ("q", "k", "v", "o", "gate", "up", "down")
CACHES = {torch.float32: 0, torch.bfloat16: 1, torch.int8: 3, torch.float8_e4m3fn: 4}
_SCALED = (torch.int8, torch.float8_e4m3fn)


@dataclass(frozen=True, slots=True, eq=False)
class Matrix:
    """A stored matrix (N, K), as the functions of `linear` take it.

    Attributes:
        format: which of them.
        weight: codes.
        scale: None for bf16.
        quantize: whether int8 and fp8 round the tokens.
        cap: of fp8.
    """

    format: Format
    weight: Tensor
    scale: Tensor | None = None
    quantize: bool = False
    cap: float = float("inf")


class _Matrix(ctypes.Structure):
    _fields_ = [
        ("format", c_int32),
        ("quantize", c_int32),
        ("scale_bf16", c_int32),
        ("cap", c_float),
        ("group", c_int64),
        ("N", c_int64),
        ("weight", c_void_p),
        ("scale", c_void_p),
    ]


class _Layer(ctypes.Structure):
    _fields_ = [
        *((name, _Matrix) for name in PROJECTIONS),
        ("norm", c_void_p),
        ("mlp_norm", c_void_p),
        ("eps", c_float),
        ("bf16", c_int32),
        *((name, c_int64) for name in "DHGK"),
    ]


class _Pages(ctypes.Structure):
    _fields_ = [
        *((name, c_void_p) for name in ("keys", "values", "key_scale", "value_scale")),
        ("kind", c_int32),
        ("unused", c_int32),
        *((name, c_int64) for name in ("key_page", "value_page", "key_scale_page", "value_scale_page", "P", "S")),
    ]


class _Step(ctypes.Structure):
    _fields_ = [
        *((name, c_int64) for name in ("M", "B", "threads")),
        *((name, c_void_p) for name in ("cosine", "sine", "slots", "table", "lengths")),
    ]


class LayerWeights:
    """The weights of a layer.

    Args:
        matrices: of all `PROJECTIONS`, on the CPU.
        norms: the two norms' weights (D,), float32 or bfloat16, which is the dtype of the tokens.
        eps: of both.
        heads: H and G.
    """

    def __init__(
        self, matrices: Mapping[str, Matrix], norms: tuple[Tensor, Tensor], eps: float, heads: tuple[int, int]
    ) -> None:
        self.dtype, self.hidden_size = norms[0].dtype, norms[0].shape[0]
        self._kept = dict(matrices), norms
        head_dim = matrices["q"].weight.shape[0] // heads[0]
        self.struct = _Layer(
            *(_matrix(matrices[name]) for name in PROJECTIONS),
            norms[0].data_ptr(), norms[1].data_ptr(), eps, self.dtype == torch.bfloat16,
            self.hidden_size, *heads, head_dim,
        )  # fmt: skip


def _matrix(matrix: Matrix) -> _Matrix:
    weight, scale = matrix.weight, matrix.scale
    blocked = matrix.format == "fp8" and scale is not None and scale.dim() == 2
    number = {"bf16": 0, "int8": 1, "fp8": 3 if blocked else 2, "int4": 4}[matrix.format]
    group = weight.shape[1] * 8 // scale.shape[1] if matrix.format == "int4" and scale is not None else 0
    address = None if scale is None else scale.data_ptr()
    halves = scale is not None and scale.dtype == torch.bfloat16
    return _Matrix(number, matrix.quantize, halves, matrix.cap, group, weight.shape[0], weight.data_ptr(), address)


class LayerPages:
    """The cache of a layer: keys and values (P, G, S, K) of a dtype of `CACHES`, and their scales (P, G, S)."""

    def __init__(self, k_PGSK: Tensor, v_PGSK: Tensor, k_scale_PGS: Tensor, v_scale_PGS: Tensor) -> None:
        self.dtype = k_PGSK.dtype
        self._kept = k_PGSK, v_PGSK, k_scale_PGS, v_scale_PGS
        scales: tuple[int | None, int | None] = None, None
        strides = 0, 0
        if self.dtype in _SCALED:
            scales = k_scale_PGS.data_ptr(), v_scale_PGS.data_ptr()
            strides = k_scale_PGS.stride(0), v_scale_PGS.stride(0)
        self.struct = _Pages(
            k_PGSK.data_ptr(), v_PGSK.data_ptr(), *scales, CACHES[self.dtype], 0,
            k_PGSK.stride(0), v_PGSK.stride(0), *strides, k_PGSK.shape[0], k_PGSK.shape[2],
        )  # fmt: skip


class LayerStep:
    """The tokens of a step.

    Args:
        cos_MJ: float32, their angles.
        sin_MJ: float32.
        slots_M: int64, where their keys and values go: page * S + place.
        table_MB: int32, the pages of their sequences.
        lengths_M: how many tokens each sees, itself included.
    """

    def __init__(self, cos_MJ: Tensor, sin_MJ: Tensor, slots_M: Tensor, table_MB: Tensor, lengths_M: Tensor) -> None:
        self._kept = [x.contiguous() for x in (cos_MJ, sin_MJ, slots_M.long(), table_MB, lengths_M.long())]
        self.tokens = len(slots_M)
        threads = torch.get_num_threads()
        self.struct = _Step(self.tokens, table_MB.shape[1], threads, *(x.data_ptr() for x in self._kept))


def decode_layer(weights: LayerWeights, pages: LayerPages, step: LayerStep, x_MD: Tensor) -> None:
    """Takes x through a layer, in place, and its new keys and values into the cache.

    Raises:
        InputError: x of another dtype or shape, more than `MOST_TOKENS` tokens, or pages outside the cache.
    """
    kernels = library()
    fits = x_MD.dtype == weights.dtype and x_MD.is_contiguous() and x_MD.shape == (step.tokens, weights.hidden_size)
    if kernels is None or not fits or step.tokens > MOST_TOKENS:
        raise InputError(
            f"x has the shape {tuple(x_MD.shape)}, {x_MD.dtype}, for a step of {step.tokens} tokens.",
            hint=f"It is ({step.tokens}, {weights.hidden_size}), {weights.dtype}, for at most {MOST_TOKENS} tokens.",
        )
    structures = (ctypes.addressof(each.struct) for each in (weights, pages, step))
    if fault := kernels.decode_layer(*structures, x_MD.data_ptr()):
        raise InputError(f"A token's page lies outside the cache (fault {fault}).")
