"""The codecs against loops over single numbers in float64, written from the formats' definitions."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from puna.base.errors import CheckpointError
from puna.export.gguf_types import BY_CODE, TYPES, TensorType, codes, decode_tensor, encode_rows

BLOCKS = [kind for kind in TYPES.values() if kind.dtype is None]
WRITTEN_BLOCKS = [TYPES["Q8_0"], TYPES["Q4_0"]]


def half(raw: bytes) -> float:
    return struct.unpack("<e", raw)[0]


def signed(byte: int) -> int:
    return byte - 256 if byte > 127 else byte


def slow_q8_0(b: bytes) -> list[float]:
    return [half(b[:2]) * signed(q) for q in b[2:]]


def slow_q4(b: bytes, zero: int, least: float, at: int) -> list[float]:
    low = [half(b[:2]) * ((q & 15) - zero) + least for q in b[at:]]
    return low + [half(b[:2]) * ((q >> 4) - zero) + least for q in b[at:]]


def slow_q5(b: bytes, zero: int, least: float, at: int) -> list[float]:
    word = int.from_bytes(b[at : at + 4], "little")
    out = [0.0] * 32
    for j, q in enumerate(b[at + 4 :]):
        out[j] = half(b[:2]) * (((q & 15) | (word >> j & 1) << 4) - zero) + least
        out[j + 16] = half(b[:2]) * (((q >> 4) | (word >> (j + 16) & 1) << 4) - zero) + least
    return out


def k_scale(packed: bytes, j: int) -> tuple[int, int]:
    """Scale and offset of a sub-block: six bits each, the upper two of the last four kept with the first four."""
    if j < 4:
        return packed[j] & 63, packed[j + 4] & 63
    return packed[j + 4] & 15 | packed[j - 4] >> 6 << 4, packed[j + 4] >> 4 | packed[j] >> 6 << 4


def slow_k(b: bytes, fifth: bytes | None, at: int) -> list[float]:
    out = []
    for j in range(8):
        scale, offset = k_scale(b[4:16], j)
        for k in range(32):
            byte = b[at + j // 2 * 32 + k]
            level = byte >> 4 if j % 2 else byte & 15
            if fifth is not None:
                level |= (fifth[k] >> j & 1) << 4
            out.append(half(b[:2]) * scale * level - half(b[2:4]) * offset)
    return out


def slow_q6_k(b: bytes) -> list[float]:
    low, high, scales, factor = b[:128], b[128:192], b[192:208], half(b[208:210])
    out = [0.0] * 256
    for part in (0, 1):
        for k in range(32):
            two, a, c = high[part * 32 + k], low[part * 64 + k], low[part * 64 + k + 32]
            levels = (a & 15, c & 15, a >> 4, c >> 4)
            for quarter, level in enumerate(levels):
                place = part * 128 + quarter * 32 + k
                whole = level | (two >> 2 * quarter & 3) << 4
                out[place] = factor * signed(scales[place // 16]) * (whole - 32)
    return out


SLOW: dict[str, Callable[[bytes], list[float]]] = {
    "Q8_0": slow_q8_0,
    "Q4_0": lambda b: slow_q4(b, 8, 0.0, 2),
    "Q4_1": lambda b: slow_q4(b, 0, half(b[2:4]), 4),
    "Q5_0": lambda b: slow_q5(b, 16, 0.0, 2),
    "Q5_1": lambda b: slow_q5(b, 0, half(b[2:4]), 4),
    "Q4_K": lambda b: slow_k(b, None, 16),
    "Q5_K": lambda b: slow_k(b, b[16:48], 48),
    "Q6_K": slow_q6_k,
}
HALVES = {"Q8_0": 1, "Q4_0": 1, "Q4_1": 2, "Q5_0": 1, "Q5_1": 2, "Q4_K": 2, "Q5_K": 2}


def random_blocks(kind: TensorType, count: int) -> bytes:
    """Blocks of random bytes whose float16 numbers are finite."""
    generator = np.random.default_rng(kind.code)
    out = bytearray(generator.integers(0, 256, count * kind.bytes, dtype=np.uint8).tobytes())
    for start in range(0, len(out), kind.bytes):
        places = [208] if kind.name == "Q6_K" else [2 * i for i in range(HALVES[kind.name])]
        for place in places:
            out[start + place : start + place + 2] = struct.pack("<e", generator.normal())
    return bytes(out)


@pytest.mark.parametrize("kind", BLOCKS, ids=lambda kind: kind.name)
def test_decoding_equals_a_loop_over_single_numbers(kind: TensorType) -> None:
    raw = random_blocks(kind, 24)
    slow = [x for i in range(24) for x in SLOW[kind.name](raw[i * kind.bytes : (i + 1) * kind.bytes])]
    fast = decode_tensor(memoryview(bytearray(raw)), kind, (8, 3 * kind.numbers))
    assert fast.shape == (8, 3 * kind.numbers)
    assert fast.dtype == torch.float32
    torch.testing.assert_close(fast.flatten().double(), torch.tensor(slow, dtype=torch.float64), rtol=1e-5, atol=1e-5)


def encoded(tensor: torch.Tensor, kind: TensorType) -> bytes:
    return b"".join(bytes(part) for part in encode_rows(tensor, kind, "x"))


def slow_encode(values: list[float], name: str) -> bytes:
    """One block of 32, in float32 steps where ggml rounds."""
    f32 = np.float32
    if name == "Q8_0":
        scale = f32(max(map(abs, values))) / f32(127)
        steps = [float(f32(x) * (f32(1) / scale)) if scale else 0.0 for x in values]
        levels = [int(math.copysign(math.floor(abs(s) + 0.5), s)) for s in steps]
        return struct.pack("<e32b", float(scale), *levels)
    largest = max(values, key=abs)
    scale = f32(largest) / f32(-8)
    levels = [min(15, int(f32(x) * (f32(1) / scale) + f32(8.5))) if scale else 8 for x in values]
    return struct.pack("<e16B", float(scale), *(levels[i] | levels[i + 16] << 4 for i in range(16)))


@pytest.mark.parametrize("kind", WRITTEN_BLOCKS, ids=lambda kind: kind.name)
@pytest.mark.parametrize("spread", [1e-3, 1.0, 300.0])
def test_encoding_equals_a_loop_over_single_numbers(kind: TensorType, spread: float) -> None:
    generator = torch.Generator().manual_seed(1)
    tensor = torch.randn(40, 64, generator=generator) * spread
    tensor[3] = 0
    tensor[5, 7] = 100 * spread  # an outlier
    blocks = tensor.reshape(-1, 32).tolist()
    assert encoded(tensor, kind) == b"".join(slow_encode(block, kind.name) for block in blocks)


@pytest.mark.parametrize("kind", WRITTEN_BLOCKS, ids=lambda kind: kind.name)
@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=32, max_size=32))
def test_no_number_comes_back_further_off_than_a_step(kind: TensorType, values: list[float]) -> None:
    """Half a step of Q8_0; a whole step of Q4_0, whose range ends one step short on one side. And 2^-11 of the scale's
    own rounding on each number, or its smallest step of 2^-25 on the highest level."""
    tensor = torch.tensor([values])
    back = decode_tensor(memoryview(bytearray(encoded(tensor, kind))), kind, (1, 32))
    largest = float(tensor.abs().max())
    step = largest / (127 * 2 if kind.name == "Q8_0" else 8)
    slack = largest * 2**-11 + (127 if kind.name == "Q8_0" else 8) * 2.0**-24
    assert float((back - tensor).abs().max()) <= step * (1 + 1e-5) + slack


@pytest.mark.parametrize("kind", WRITTEN_BLOCKS, ids=lambda kind: kind.name)
def test_what_was_decoded_encodes_to_the_same_numbers(kind: TensorType) -> None:
    tensor = torch.randn(64, 128, generator=torch.Generator().manual_seed(2))
    once = decode_tensor(memoryview(bytearray(encoded(tensor, kind))), kind, (64, 128))
    twice = decode_tensor(memoryview(bytearray(encoded(once, kind))), kind, (64, 128))
    assert torch.equal(once, twice)


@pytest.mark.parametrize("name", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_plain_formats_are_torchs_dtypes(name: str, dtype: torch.dtype) -> None:
    tensor = torch.randn(5, 7, generator=torch.Generator().manual_seed(3)).to(dtype)
    kind = TYPES[name]
    raw = encoded(tensor, kind)
    assert len(raw) == kind.size((5, 7)) == 35 * kind.bytes
    assert torch.equal(decode_tensor(memoryview(bytearray(raw)), kind, (5, 7)), tensor.to(kind.dtype))


def test_a_large_tensor_is_coded_in_parts_with_the_same_bytes() -> None:
    tensor = torch.randn(33, 1 << 16, generator=torch.Generator().manual_seed(4))  # 33 parts of 2^16
    for kind in WRITTEN_BLOCKS:
        parts = list(encode_rows(tensor, kind, "x"))
        assert len(parts) == 2
        assert b"".join(map(bytes, parts)) == b"".join(encoded(row, kind) for row in tensor)


@pytest.mark.parametrize("name", ["Q8_0", "Q4_0"])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_numbers_that_are_none_are_refused_by_name(name: str, bad: float) -> None:
    tensor = torch.zeros(2, 32)
    tensor[1, 3] = bad
    with pytest.raises(CheckpointError, match="x holds values that are no finite numbers"):
        encoded(tensor, TYPES[name])


@pytest.mark.parametrize(("name", "value"), [("F16", 7e4), ("Q8_0", 9e6), ("Q4_0", 6e5)])
def test_numbers_beyond_the_range_are_refused_with_the_limit(name: str, value: float) -> None:
    with pytest.raises(CheckpointError, match=rf"x holds values of .*{name} reaches to [\d,]+"):
        encoded(torch.full((1, 32), value), TYPES[name])
    encoded(torch.full((1, 32), value * 0.8), TYPES[name])


def test_every_type_has_its_code() -> None:
    assert {code: kind.name for code, kind in BY_CODE.items()} == {codes()[name]: name for name in TYPES}
    assert len(set(codes().values())) == len(codes())
