"""Attention over pages, against softmax(q k^T) v of each sequence by itself in float64."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from puna.base.errors import ResourceError
from puna.core.completion import SamplingParams
from puna.engine.batch import lay_out
from puna.engine.paged_cache import PagedCache, attend_block, attend_block_fused, page_bytes, stored_dtype
from puna.engine.sampler import Sampler
from puna.engine.scheduler import Slice
from puna.engine.sequence import Request, Sequence
from puna.testing import tiny_config

CPU = torch.device("cpu")
PAGE = 4
H, K = 4, 16


def config(heads: int = 2):
    return tiny_config(num_attention_heads=H, num_key_value_heads=heads, head_dim=K)


def reference(q_HTK: Tensor, k_GLK: Tensor, v_GLK: Tensor) -> Tensor:
    """In float64, head by head and token by token."""
    out = torch.zeros(q_HTK.shape, dtype=torch.float64)
    (heads, T, _), (G, L, _) = q_HTK.shape, k_GLK.shape
    for h in range(heads):
        k_LK, v_LK = k_GLK[h * G // heads].double(), v_GLK[h * G // heads].double()
        for t in range(T):
            seen = L - T + t + 1
            weights = (k_LK[:seen] @ q_HTK[h, t].double() / K**0.5).softmax(0)
            out[h, t] = weights @ v_LK[:seen]
    return out


@dataclass
class Drawn:
    """A sequence, and random queries, keys and values of all its tokens."""

    sequence: Sequence
    q_HTK: Tensor
    k_GTK: Tensor
    v_GTK: Tensor


def draw(length: int, pages: list[int], heads: int, dtype: torch.dtype, seed: int) -> Drawn:
    generator = torch.Generator().manual_seed(seed)
    request = Request((1,) * length, SamplingParams())
    made = (torch.randn(n, length, K, generator=generator).to(dtype) for n in (H, heads, heads))
    return Drawn(Sequence(seed, request, 999, Sampler(request.params, ()), tokens=[1] * length, pages=pages), *made)


def attend(cache: PagedCache, parts: list[tuple[Drawn, int, int]]) -> list[Tensor]:
    """One step in every layer; the attention of each part in the last one, (H, T, K)."""
    drawn = {one.sequence: one for one, _, _ in parts}
    batch = lay_out([Slice(one.sequence, start, end) for one, start, end in parts], PAGE, CPU)
    cache.begin(batch)

    def row(name: str) -> Tensor:
        return torch.cat([getattr(drawn[s.sequence], name)[:, s.start : s.end] for s in batch.slices], dim=1)[None]

    for layer in range(len(cache.k_PGSK)):
        out_HNK = cache.attend(layer, row("q_HTK"), row("k_GTK"), row("v_GTK"))[0]
    pieces = dict(
        zip((s.sequence for s in batch.slices), out_HNK.split([s.count for s in batch.slices], 1), strict=True)
    )
    return [pieces[one.sequence] for one, _, _ in parts]


TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 0.03, torch.float16: 0.004}


@pytest.mark.parametrize("heads", [1, 2, 4])
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_every_token_sees_its_own_sequence_up_to_itself(heads: int, dtype: torch.dtype):
    """Short slices, long ones and parts after others, of sequences whose pages lie anywhere, in the same steps."""
    cache = PagedCache(config(heads), 40, PAGE, dtype, CPU)
    for tensor in (*cache.k_PGSK, *cache.v_PGSK):
        tensor.fill_(float("nan"))  # nobody may look at what was never written
    scattered = torch.randperm(40, generator=torch.Generator().manual_seed(1)).tolist()
    long = draw(70, scattered[:18], heads, dtype, 1)
    short = draw(9, scattered[18:21], heads, dtype, 2)
    middle = draw(40, scattered[21:31], heads, dtype, 3)
    done: dict[int, list[Tensor]] = {1: [], 2: [], 3: []}
    for step in (
        [(long, 0, 33), (short, 0, 5)],
        [(short, 5, 8), (long, 33, 34), (middle, 0, 17)],
        [(long, 34, 70), (short, 8, 9), (middle, 17, 40)],
    ):
        for (one, _, _), out in zip(step, attend(cache, step), strict=True):
            assert out.dtype == dtype
            done[one.sequence.number].append(out)
    for one in (long, short, middle):
        found = torch.cat(done[one.sequence.number], dim=1).double()
        assert torch.allclose(found, reference(one.q_HTK, one.k_GTK, one.v_GTK), atol=TOLERANCE[dtype])


@pytest.mark.parametrize(("stored", "bound"), [(torch.int8, 1 / 127 / 2), (torch.float8_e4m3fn, 2**-4)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_a_quantised_cache_gives_the_attention_of_the_rounded_numbers(
    stored: torch.dtype, bound: float, dtype: torch.dtype
):
    """Whether a token is read alone or in a block; the rounding is within the format's bound."""
    cache = PagedCache(config(), 20, PAGE, stored, CPU)
    one = draw(30, list(range(19, 11, -1)), 2, dtype, 4)
    outs = [attend(cache, [(one, start, end)])[0] for start, end in ((0, 20), (20, 23), (23, 24), (24, 30))]
    held = []
    for x_PGSK, scale_PGS, given in (
        (cache.k_PGSK[-1], cache.k_scale_PGS[-1], one.k_GTK),
        (cache.v_PGSK[-1], cache.v_scale_PGS[-1], one.v_GTK),
    ):
        rounded = x_PGSK.double() * scale_PGS[..., None].double()
        rounded = rounded[one.sequence.pages].transpose(0, 1).flatten(1, 2)[:, :30]
        largest = given.double().abs().amax(-1, keepdim=True)
        assert bool(((rounded - given.double()).abs() <= 1.01 * bound * largest).all())
        held.append(rounded)
    tolerance = max(TOLERANCE[dtype], 1e-5)
    assert torch.allclose(torch.cat(outs, dim=1).double(), reference(one.q_HTK, *held), atol=tolerance)


@pytest.mark.parametrize("stored", [torch.int8, torch.float8_e4m3fn])
def test_zeros_and_huge_numbers_are_stored_too(stored: torch.dtype):
    cache = PagedCache(config(), 4, PAGE, stored, CPU)
    one = draw(3, [0], 2, torch.float32, 0)
    one.v_GTK[:, 0], one.v_GTK[:, 1] = 0.0, 1e30
    (out,) = attend(cache, [(one, 0, 3)])
    assert bool(torch.isfinite(out).all())
    assert bool((out[:, 0] == 0).all())


@pytest.mark.parametrize("shape", [(1, 300, 300), (2, 257, 600), (4, 1, 9), (2, 16, 16)])
def test_a_block_of_any_length_is_the_last_of_the_tokens_it_sees(shape: tuple[int, int, int]):
    heads, T, L = shape
    generator = torch.Generator().manual_seed(0)
    q_HTK, k_GLK, v_GLK = (torch.randn(*s, generator=generator) for s in ((H, T, K), (heads, L, K), (heads, L, K)))
    for form in (attend_block, attend_block_fused):
        assert torch.allclose(form(q_HTK, k_GLK, v_GLK).double(), reference(q_HTK, k_GLK, v_GLK), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "dtype", "expected"),
    [
        ("auto", torch.bfloat16, torch.bfloat16),
        ("auto", torch.float32, torch.float32),
        ("int8", torch.bfloat16, torch.int8),
        ("fp8", torch.float32, torch.float8_e4m3fn),
    ],
)
def test_what_is_stored_is_the_models_own_dtype_or_the_one_asked_for(name: str, dtype, expected):
    assert stored_dtype(name, dtype) == expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8, torch.float8_e4m3fn])
def test_the_bytes_of_a_page_are_those_of_its_tensors(dtype: torch.dtype):
    cache = PagedCache(config(), 5, PAGE, dtype, CPU)
    held = [*cache.k_PGSK, *cache.v_PGSK, *cache.k_scale_PGS, *cache.v_scale_PGS]
    assert sum(tensor.nbytes for tensor in held) == 5 * page_bytes(config(), PAGE, dtype)


def test_a_cache_beyond_all_memory_is_refused():
    with pytest.raises(ResourceError, match=r"The cache of .* does not fit into memory") as caught:
        PagedCache(config(), 1 << 50, PAGE, torch.float32, CPU)
    assert "cache_bytes" in caught.value.hint
