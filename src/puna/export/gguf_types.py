"""The number formats of GGUF tensors: plain floats, and blocks of small integers with a scale.

Written and read: F32, F16, BF16, Q8_0, Q4_0. Read only, because many published files hold them: Q4_1, Q5_0, Q5_1 and
the "K" types Q4_K, Q5_K, Q6_K. Left out: the types of 2 and 3 bits and those that need tables (IQ, TQ, MXFP4).

The formats are facts of ggml (github.com/ggml-org/ggml). A block holds 32 or 256 neighbours of a row. Rounding is
ggml's own, so that a file of ours and one of llama.cpp hold the same bytes: a value is divided by the scale before that
is rounded to float16.

Shapes: N blocks, B bytes of a block, E numbers of a block.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
import torch
from torch import Tensor

from puna.base.errors import CheckpointError

# numpy.typing has a name for these, and takes as long to import as all of this package.
Bytes = np.ndarray[Any, Any]  # of uint8; numpy's own hints lose the type at the first shift
Floats = np.ndarray[Any, Any]  # of float32

# So many numbers are coded at a time: the codecs' temporaries stay at some tens of megabytes.
_CHUNK = 1 << 21
_F16_MAX = 65504.0


@dataclass(frozen=True, slots=True)
class TensorType:
    """A number format.

    Attributes:
        name: as ggml calls it.
        numbers: how many make a block.
        bytes: of a block.
        dtype: of a plain format, whose block is one number; None for blocks of integers.
        decode: (N, B) bytes -> (N, E) numbers.
        encode: the inverse; None for formats that are only read.
    """

    name: str
    numbers: int
    bytes: int
    dtype: torch.dtype | None = None
    decode: Callable[[Bytes], Floats] | None = None
    encode: Callable[[Floats], Bytes] | None = None

    @property
    def code(self) -> int:
        return codes()[self.name]

    @property
    def writable(self) -> bool:
        return self.dtype is not None or self.encode is not None

    def size(self, shape: tuple[int, ...]) -> int:
        """Bytes of a tensor whose rows are whole blocks."""
        numbers = 1
        for length in shape:
            numbers *= length
        return numbers // self.numbers * self.bytes


@cache
def table() -> Mapping[str, Mapping[str, Any]]:
    return tomllib.loads(resources.files("puna.export").joinpath("assets/gguf.toml").read_text(encoding="utf-8"))


def codes() -> Mapping[str, int]:
    return table()["tensor_types"]


def encode_rows(tensor: Tensor, kind: TensorType, name: str) -> Iterator[memoryview]:
    """The bytes of a tensor, in parts.

    Args:
        tensor: of any float dtype; its last dimension is a whole number of blocks.
        kind: the format.
        name: of the tensor, for errors.

    Raises:
        CheckpointError: numbers that the format cannot hold.
    """
    flat = tensor.detach().reshape(-1)
    for start in range(0, len(flat), _CHUNK):
        part = flat[start : start + _CHUNK].cpu()
        if kind.dtype is not None:
            plain = part.to(kind.dtype)
            if kind.dtype is torch.float16 and bool(torch.isinf(plain).any()):
                raise _too_large(name, part, kind, _F16_MAX)
            yield plain.contiguous().view(torch.uint8).numpy().data
            continue
        assert kind.encode is not None, f"{kind.name} is not written"
        numbers = part.float().numpy().reshape(-1, kind.numbers)
        if not np.isfinite(numbers).all():
            raise CheckpointError(
                f"{name} holds values that are no finite numbers; {kind.name} cannot store them.",
                hint="The model is broken: look at the run that trained it.",
            )
        largest = 127 * _F16_MAX if kind.name == "Q8_0" else 8 * _F16_MAX
        if np.abs(numbers).max(initial=0) > largest:
            raise _too_large(name, part, kind, largest)
        yield kind.encode(numbers).data


def _too_large(name: str, part: Tensor, kind: TensorType, limit: float) -> CheckpointError:
    return CheckpointError(
        f"{name} holds values of {float(part.float().abs().max()):.4g}; {kind.name} reaches to {limit:,.0f}.",
        hint="Write bf16, which has the range of float32.",
    )


def decode_tensor(raw: memoryview | Bytes, kind: TensorType, shape: tuple[int, ...]) -> Tensor:
    """A tensor from its bytes: float32 for blocks, the stored dtype for plain formats, which are not copied."""
    if kind.dtype is not None:
        if not len(raw):
            return torch.empty(shape, dtype=kind.dtype)
        return torch.frombuffer(raw, dtype=torch.uint8).view(kind.dtype).view(shape)
    assert kind.decode is not None
    blocks_NB = np.frombuffer(raw, dtype=np.uint8).reshape(-1, kind.bytes)
    numbers_NE = np.empty((len(blocks_NB), kind.numbers), dtype=np.float32)
    step = _CHUNK // kind.numbers
    for start in range(0, len(blocks_NB), step):
        numbers_NE[start : start + step] = kind.decode(blocks_NB[start : start + step])
    return torch.from_numpy(numbers_NE).view(shape)


def _half(blocks_NB: Bytes, at: int) -> Floats:
    """The float16 at a place of each block, (N, 1)."""
    return np.ascontiguousarray(blocks_NB[:, at : at + 2]).view(np.float16).astype(np.float32)


def _as_half(scale_N1: Floats) -> Bytes:
    return scale_N1.astype(np.float16).view(np.uint8)


def _nibbles(packed: Bytes) -> Bytes:
    """Low halves of all bytes, then the high ones."""
    return np.concatenate((packed & 15, packed >> 4), axis=-1)


def _inverse(scale_N1: Floats) -> Floats:
    """1 / scale, and 0 where a scale is too small to have an inverse."""
    with np.errstate(divide="ignore", over="ignore"):
        inverse = np.float32(1) / scale_N1
    return np.where(np.isfinite(inverse), inverse, np.float32(0))


def encode_q8_0(x_NE: Floats) -> Bytes:
    """A float16 scale, largest magnitude / 127, and 32 signed bytes."""
    scale_N1 = np.abs(x_NE).max(axis=1, keepdims=True) / np.float32(127)
    scaled = x_NE * _inverse(scale_N1)
    # Halves go away from zero, as C's roundf; adding 0.5 first would round 0.49999997 up.
    whole = np.trunc(scaled)
    rounded = whole + np.trunc(2 * (scaled - whole))
    return np.concatenate((_as_half(scale_N1), rounded.astype(np.int8).view(np.uint8)), axis=1)


def decode_q8_0(blocks_NB: Bytes) -> Floats:
    return _half(blocks_NB, 0) * blocks_NB[:, 2:].view(np.int8)


def encode_q4_0(x_NE: Floats) -> Bytes:
    """A float16 scale, the value of largest magnitude / -8, and 32 half bytes of value / scale + 8.

    So the largest value is held exactly, and the other end of the range reaches one step less far.
    """
    place_N1 = np.abs(x_NE).argmax(axis=1, keepdims=True)
    scale_N1 = np.take_along_axis(x_NE, place_N1, axis=1) / np.float32(-8)
    levels = np.clip(x_NE * _inverse(scale_N1) + np.float32(8.5), 0, 15).astype(np.uint8)
    return np.concatenate((_as_half(scale_N1), levels[:, :16] | levels[:, 16:] << 4), axis=1)


def decode_q4_0(blocks_NB: Bytes) -> Floats:
    return _half(blocks_NB, 0) * (_nibbles(blocks_NB[:, 2:]).astype(np.int8) - np.int8(8))


def decode_q4_1(blocks_NB: Bytes) -> Floats:
    """A scale, a least value, and 32 half bytes."""
    return _half(blocks_NB, 0) * _nibbles(blocks_NB[:, 4:]) + _half(blocks_NB, 2)


def _fifth_bits(bits_N4: Bytes) -> Bytes:
    """The bits of each block's 32-bit word as (N, 32) values 0 or 16."""
    return np.unpackbits(bits_N4, axis=1, bitorder="little") << 4


def decode_q5_0(blocks_NB: Bytes) -> Floats:
    """A scale, a word with the fifth bits, and 32 half bytes; 16 is zero."""
    levels = _nibbles(blocks_NB[:, 6:]) | _fifth_bits(blocks_NB[:, 2:6])
    return _half(blocks_NB, 0) * (levels.astype(np.int8) - np.int8(16))


def decode_q5_1(blocks_NB: Bytes) -> Floats:
    levels = _nibbles(blocks_NB[:, 8:]) | _fifth_bits(blocks_NB[:, 4:8])
    return _half(blocks_NB, 0) * levels + _half(blocks_NB, 2)


def _six_bit_scales(packed_N12: Bytes) -> tuple[Floats, Floats]:
    """The eight scales and eight offsets of a K block, six bits each, spread over twelve bytes, (N, 8, 1)."""
    low_N4, mid_N4, high_N4 = packed_N12[:, :4], packed_N12[:, 4:8], packed_N12[:, 8:]
    scales = np.concatenate((low_N4 & 63, high_N4 & 15 | low_N4 >> 6 << 4), axis=1)
    offsets = np.concatenate((mid_N4 & 63, high_N4 >> 4 | mid_N4 >> 6 << 4), axis=1)
    return scales[:, :, None].astype(np.float32), offsets[:, :, None].astype(np.float32)


def _k_block(blocks_NB: Bytes, levels_N8E: Bytes) -> Floats:
    """scale * level - offset in eight sub-blocks of 32, each with its own share of the block's two factors."""
    scales, offsets = _six_bit_scales(blocks_NB[:, 4:16])
    factor, offset = _half(blocks_NB, 0)[:, None], _half(blocks_NB, 2)[:, None]
    return (factor * scales * levels_N8E - offset * offsets).reshape(-1, 256)


def decode_q4_k(blocks_NB: Bytes) -> Floats:
    """Each 32 bytes hold two sub-blocks, the first in their low halves."""
    packed = blocks_NB[:, 16:].reshape(-1, 4, 32)
    return _k_block(blocks_NB, np.stack((packed & 15, packed >> 4), axis=2).reshape(-1, 8, 32))


def decode_q5_k(blocks_NB: Bytes) -> Floats:
    """As Q4_K, with 32 bytes more: bit j of byte l is the fifth bit of number l in sub-block j."""
    packed = blocks_NB[:, 48:].reshape(-1, 4, 32)
    low = np.stack((packed & 15, packed >> 4), axis=2).reshape(-1, 8, 32)
    high = blocks_NB[:, None, 16:48] >> np.arange(8, dtype=np.uint8)[None, :, None] & 1
    return _k_block(blocks_NB, low | high << 4)


def decode_q6_k(blocks_NB: Bytes) -> Floats:
    """Two halves of 128 numbers: 64 bytes of low bits, 32 of high bits; then sixteen signed scales, and one for all."""
    low = blocks_NB[:, :128].reshape(-1, 2, 2, 32)
    low = np.concatenate((low & 15, low >> 4), axis=2)
    high = blocks_NB[:, 128:192].reshape(-1, 2, 1, 32) >> np.arange(0, 8, 2, dtype=np.uint8)[None, None, :, None] & 3
    levels = (low | high << 4).astype(np.int8) - np.int8(32)
    scales = blocks_NB[:, 192:208].view(np.int8).astype(np.float32) * _half(blocks_NB, 208)
    return (levels.reshape(-1, 16, 16) * scales[:, :, None]).reshape(-1, 256)


_TYPES = (
    TensorType("F32", 1, 4, torch.float32),
    TensorType("F16", 1, 2, torch.float16),
    TensorType("BF16", 1, 2, torch.bfloat16),
    TensorType("Q8_0", 32, 34, None, decode_q8_0, encode_q8_0),
    TensorType("Q4_0", 32, 18, None, decode_q4_0, encode_q4_0),
    TensorType("Q4_1", 32, 20, None, decode_q4_1),
    TensorType("Q5_0", 32, 22, None, decode_q5_0),
    TensorType("Q5_1", 32, 24, None, decode_q5_1),
    TensorType("Q4_K", 256, 144, None, decode_q4_k),
    TensorType("Q5_K", 256, 176, None, decode_q5_k),
    TensorType("Q6_K", 256, 210, None, decode_q6_k),
)
TYPES: Mapping[str, TensorType] = {kind.name: kind for kind in _TYPES}
BY_CODE: Mapping[int, TensorType] = {kind.code: kind for kind in _TYPES}
