"""The formats of a quantised matrix: what is stored, how it is made, and how far it may be from the original.

A format is a row of `assets/formats.toml`. All are symmetric: a number is q times the scale of its row, its tensor,
its 128x128 block or its group of inputs, and zero stays zero. Tensors bear the names of compressed-tensors files:
`weight` and `weight_scale`, or for 4 bits `weight_packed`, `weight_scale` and `weight_shape`, so that a mapped file
needs no translation. Left out: zero points and code books, which Llama's bell-shaped weights do not need.

Numbers go through float32 a tile of rows at a time, so that the memory of a large matrix is never held twice.

Shapes: N outputs, K inputs, C scales of a row, P int32 words of a row (eight 4-bit numbers each).
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from puna.base.config import from_dict
from puna.base.errors import ConfigError, InputError, near

FP8 = torch.float8_e4m3fn
FP8_MAX = 448.0
_TILE_NUMBERS = 1 << 20  # of float32: 4 MiB, so that what is made of a tile stays in the caches
_TINY = torch.finfo(torch.float32).tiny

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class WeightFormat:
    """How a matrix is stored, and what is done with the inputs that it is multiplied with.

    Attributes:
        name: of the row.
        kind: "float" (E4M3 in 8 bits, bfloat16 in 16) or "int".
        bits: of a stored number.
        strategy: what shares a scale: "channel" (a row), "tensor", "block" (128x128) or "group" (of inputs of a row);
            "none" for bf16.
        group_size: inputs of a group, or the side of a block.
        activations: how inputs are rounded: "none", "token" (a scale for each token, found when it comes), "group"
            (for each 128 inputs of each token), or "tensor" (one scale for all, found by calibration).
        cap: the largest absolute input that a token's scale is made for; larger ones saturate.
    """

    name: str
    kind: Literal["float", "int"]
    bits: int
    strategy: Literal["none", "channel", "tensor", "block", "group"]
    group_size: int = 0
    activations: Literal["none", "token", "group", "tensor"] = "none"
    cap: float = math.inf

    @property
    def quantize_activations(self) -> bool:
        return self.activations != "none"

    @property
    def is_float8(self) -> bool:
        return self.kind == "float" and self.bits == 8

    @property
    def limit(self) -> float:
        """The largest weight of a scale, in steps.

        Seven and a half for 4 bits: with the sixteen levels from -8 to 7, both ends are then half a step off at most.
        """
        return FP8_MAX if self.is_float8 else {8: 127.0, 4: 7.5}[self.bits]

    @property
    def max_relative_error(self) -> float:
        """The largest error of a weight, as a share of the largest weight that has the same scale.

        Half a step of integers; half the gap of 32 below 448 for E4M3.
        """
        if self.strategy == "none":
            return 2.0**-8
        return 16 / FP8_MAX if self.is_float8 else 0.5 / self.limit

    @property
    def bytes_per_weight(self) -> float:
        """Stored bytes, with the scales of groups and blocks; those of rows are left out."""
        shared = {"group": self.group_size, "block": self.group_size**2}.get(self.strategy)
        return self.bits / 8 + (self.scale_dtype.itemsize / shared if shared else 0.0)

    @property
    def scale_dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.strategy == "group" else torch.float32

    def scale_shape(self, outputs: int, inputs: int) -> tuple[int, ...]:
        g = self.group_size
        shapes: dict[str, tuple[int, ...]] = {"channel": (outputs, 1), "tensor": (1,), "none": ()}
        if self.strategy == "block":
            return -(-outputs // g), -(-inputs // g)
        return (outputs, inputs // g) if self.strategy == "group" else shapes[self.strategy]

    def specs(self, outputs: int, inputs: int) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        """Name -> shape and dtype of the tensors that a matrix of this format is stored as."""
        if self.strategy == "none":
            return {"weight": ((outputs, inputs), torch.bfloat16)}
        scale = {"weight_scale": (self.scale_shape(outputs, inputs), self.scale_dtype)}
        if self.bits == 4:
            packed = (outputs, inputs // 8), torch.int32
            return {"weight_packed": packed, **scale, "weight_shape": ((2,), torch.int64)}
        weight = (outputs, inputs), FP8 if self.is_float8 else torch.int8
        static = {"input_scale": ((1,), torch.float32)} if self.activations == "tensor" else {}
        return {"weight": weight, **scale, **static}

    def bytes(self, outputs: int, inputs: int) -> int:
        """Stored bytes of a matrix, scales included."""
        return sum(math.prod(shape) * dtype.itemsize for shape, dtype in self.specs(outputs, inputs).values())

    def check(self, outputs: int, inputs: int, name: str = "The matrix") -> None:
        """Refuses a matrix whose rows are not a whole number of groups."""
        if self.strategy != "group" or inputs % self.group_size == 0:
            return
        fits = [f.name for f in FORMATS.values() if f.bits == self.bits and inputs % max(1, f.group_size) == 0]
        raise ConfigError(
            f"{name} ({outputs} x {inputs}) cannot be {self.name}: {inputs} inputs are no multiple of "
            f"{self.group_size}.",
            hint=f"Use {', '.join(fits or ['int8', 'fp8'])} for it.",
        )


def _rows() -> dict[str, WeightFormat]:
    text = resources.files("puna.quant").joinpath("assets/formats.toml").read_text(encoding="utf-8")
    rows = tomllib.loads(text).items()
    return {name: from_dict(WeightFormat, {"name": name, **row}, at=name) for name, row in rows}


FORMATS: Mapping[str, WeightFormat] = _rows()
BF16 = FORMATS["bf16"]


def named_format(name: str) -> WeightFormat:
    if name not in FORMATS:
        raise ConfigError(f"There is no format {name!r}.", hint=near(name, FORMATS))
    return FORMATS[name]


# Scales --------------------------------------------------------------------------------------------------------------


def weight_scale(weight_NK: Tensor, format: WeightFormat, name: str = "The matrix") -> Tensor:
    """The scales that make the largest weight of each row, block or group the largest number of the format.

    Raises:
        InputError: weights that are not finite.
        ConfigError: rows that are no whole number of groups.
    """
    N, K = weight_NK.shape
    format.check(N, K, name)
    parts = [_absmax(tile_NK.float().abs(), format) for _, tile_NK in _tiles(weight_NK)]
    largest = torch.stack([part.amax() for part in parts]).amax().view(1) if format.strategy == "tensor" else None
    largest = torch.cat(parts) if largest is None else largest
    if not bool(largest.isfinite().all()):
        bad = sum(int((~tile_NK.isfinite()).sum()) for _, tile_NK in _tiles(weight_NK))
        raise InputError(
            f"{name} has {bad:,} of {N * K:,} weights that are not finite numbers.",
            hint="The checkpoint is damaged, or its training diverged: take an earlier one.",
        )
    return _scale_of(largest, format)


def _absmax(tile_NK: Tensor, format: WeightFormat) -> Tensor:
    """The largest number of each scale of a tile of absolute weights."""
    g = format.group_size
    if format.strategy == "group":
        return tile_NK.unflatten(1, (-1, g)).amax(-1)
    if format.strategy == "block":
        N, K = tile_NK.shape
        padded = F.pad(tile_NK, (0, -K % g, 0, -N % g))
        return padded.unflatten(1, (-1, g)).unflatten(0, (-1, g)).amax((1, 3))
    return tile_NK.amax(1, keepdim=True)


def _scale_of(largest: Tensor, format: WeightFormat) -> Tensor:
    """Scales for largest numbers: 1 where all is zero, and never so small that dividing by it overflows."""
    scale = torch.where(largest > 0, (largest / format.limit).clamp(min=_TINY), 1.0)
    if format.scale_dtype == torch.float32:
        return scale
    # Rounded up to bfloat16: a scale that is too small would put the largest weight more than half a step away.
    return ((scale.view(torch.int32) + 0xFFFF) & ~0xFFFF).view(torch.float32).to(torch.bfloat16)


def expand_scale(scale: Tensor, format: WeightFormat, outputs: int, inputs: int) -> Tensor:
    """The scale of every weight, float32, in a shape that (N, K) divides by."""
    scale = scale.float()
    if format.strategy == "group":
        return scale.repeat_interleave(format.group_size, dim=1)
    if format.strategy == "block":
        rows = scale.repeat_interleave(format.group_size, dim=0)[:outputs]
        return rows.repeat_interleave(format.group_size, dim=1)[:, :inputs]
    return scale.view(-1, 1)


# Numbers -------------------------------------------------------------------------------------------------------------


def round_steps(steps: Tensor, format: WeightFormat) -> Tensor:
    """Weights divided by their scale, as the nearest numbers that the format has, float32; what is beyond saturates."""
    if format.is_float8:
        return steps.clamp(-FP8_MAX, FP8_MAX).to(FP8).float()
    low, high = (-8, 7) if format.bits == 4 else (-127, 127)
    return steps.round().clamp_(low, high)


def encode(weight_NK: Tensor, scale: Tensor, format: WeightFormat) -> dict[str, Tensor]:
    """Stored tensors for weights and given scales."""
    N, K = weight_NK.shape
    specs = format.specs(N, K)
    name = next(iter(specs))
    out = torch.empty(specs[name][0], dtype=specs[name][1], device=weight_NK.device)
    for rows, tile_NK in _tiles(weight_NK):
        divisor = expand_scale(_scale_rows(scale, format, rows), format, *tile_NK.shape)
        q_NK = round_steps(tile_NK.float() / divisor, format)
        out[rows] = pack_int4(q_NK) if format.bits == 4 else q_NK.to(out.dtype)
    shape = {"weight_shape": torch.tensor([N, K], device=weight_NK.device)} if format.bits == 4 else {}
    return {name: out, "weight_scale": scale, **shape}


def quantize_weight(weight_NK: Tensor, format: WeightFormat, name: str = "The matrix") -> dict[str, Tensor]:
    """Rounds a matrix to the nearest numbers of `format`.

    Args:
        weight_NK: of any floating dtype.
        format: a row of `FORMATS`.
        name: of the matrix, for messages.

    Returns:
        The tensors of `format.specs`; `input_scale`, which only calibration knows, is left out.

    Raises:
        InputError: weights that are not finite.
        ConfigError: rows that are no whole number of groups.
    """
    if format.strategy == "none":
        return {"weight": weight_NK.to(torch.bfloat16)}
    return encode(weight_NK, weight_scale(weight_NK, format, name), format)


def dequantize_weight(tensors: Tensors, format: WeightFormat, dtype: torch.dtype = torch.float32) -> Tensor:
    """The matrix (N, K) that stored tensors stand for: products in float32, then rounded to `dtype`."""
    if format.strategy == "none":
        return tensors["weight"].to(dtype)
    each = 8 if format.bits == 4 else 1
    stored = tensors["weight_packed" if each == 8 else "weight"]
    N, K = stored.shape[0], stored.shape[1] * each
    out_NK = torch.empty((N, K), dtype=dtype, device=stored.device)
    for rows, tile in _tiles(stored, each):
        q_NK = unpack_int4(tile) if each == 8 else tile
        scale = expand_scale(_scale_rows(tensors["weight_scale"], format, rows), format, q_NK.shape[0], K)
        out_NK[rows] = q_NK.float() * scale
    return out_NK


def error_bound(weight_NK: Tensor, format: WeightFormat) -> Tensor:
    """The largest distance between each weight and its rounded value, (N, K) float32.

    Half a step of integers. Half a gap of E4M3: a sixteenth of the number, or half of its smallest, 2^-9.
    """
    if format.strategy == "none":
        return weight_NK.float().abs() * 2.0**-8
    scale = expand_scale(weight_scale(weight_NK, format), format, *weight_NK.shape)
    if not format.is_float8:
        return (scale / 2).expand(weight_NK.shape)
    return torch.maximum(weight_NK.float().abs() / 16, scale * 2.0**-10)


def pack_int4(q_NK: Tensor) -> Tensor:
    """Numbers from -8 to 7 as (N, K/8) int32: number i is nibble i % 8 of word i // 8, lowest first, plus 8."""
    nibbles = (q_NK.to(torch.int32) + 8).unflatten(1, (-1, 8))
    shifts = torch.arange(0, 32, 4, dtype=torch.int32, device=q_NK.device)
    return (nibbles << shifts).sum(-1, dtype=torch.int32)


def unpack_int4(packed_NP: Tensor) -> Tensor:
    """The inverse of `pack_int4`, (N, 8 P) int8."""
    shifts = torch.arange(0, 32, 4, dtype=torch.int32, device=packed_NP.device)
    return (((packed_NP.unsqueeze(-1) >> shifts) & 15) - 8).to(torch.int8).flatten(1)


# Inputs --------------------------------------------------------------------------------------------------------------


def round_activations(x: Tensor, format: WeightFormat, input_scale: Tensor | None = None) -> Tensor:
    """Inputs as `format` rounds them, (..., K) in the dtype of `x`: what a quantised product really multiplies.

    The kernels do the same on the fly; training with fake quantisation and formats without a kernel call this.
    """
    if format.activations == "none":
        return x
    wide = x.float()
    if format.activations == "tensor":
        assert input_scale is not None, "a static format has an input_scale"
        return (round_steps(wide / input_scale, format) * input_scale).to(x.dtype)
    if format.activations == "token":
        scale = token_scale(wide, format)
        return (round_steps(wide / scale, format) * scale).to(x.dtype)
    padded = F.pad(wide, (0, -x.shape[-1] % format.group_size))  # the last group may be a part of one
    parts = padded.unflatten(-1, (-1, format.group_size))
    scale = token_scale(parts, format)
    rounded = (round_steps(parts / scale, format) * scale).flatten(-2)
    return rounded[..., : x.shape[-1]].to(x.dtype)


def token_scale(x: Tensor, format: WeightFormat) -> Tensor:
    """The scale of each row of inputs, (..., 1) float32: its largest number, at most the cap, over the format's."""
    largest = x.float().abs().amax(-1, keepdim=True).clamp(max=format.cap)
    return torch.where(largest > 0, (largest / format.limit).clamp(min=_TINY), 1.0)


def _tiles(tensor: Tensor, each: int = 1) -> Iterator[tuple[slice, Tensor]]:
    """Rows of a matrix a part at a time; a part begins at a multiple of 128, as blocks do.

    Args:
        tensor: the matrix.
        each: how many weights a stored number holds.
    """
    size = max(128, _TILE_NUMBERS // max(1, tensor.shape[1] * each) // 128 * 128)
    for start in range(0, tensor.shape[0], size):
        rows = slice(start, start + size)
        yield rows, tensor[rows]


def _scale_rows(scale: Tensor, format: WeightFormat, rows: slice) -> Tensor:
    """The scales of a tile."""
    if format.strategy == "tensor":
        return scale
    if format.strategy == "block":
        return scale[rows.start // format.group_size : -(-rows.stop // format.group_size)]
    return scale[rows]
