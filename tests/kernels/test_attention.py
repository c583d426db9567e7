"""Decode attention against softmax by its definition in float64; `test_build` runs this file for every instruction set.

Slots of the cache that no sequence sees hold NaN here, so that reading one would show.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from puna.base.errors import InputError
from puna.kernels.attention import decode_attention, masked
from puna.kernels.build import library

FLOATS = (torch.float32, torch.bfloat16)
CACHES = (torch.float32, torch.bfloat16, torch.float16, torch.int8, torch.float8_e4m3fn)
LARGEST = {torch.int8: 127.0, torch.float8_e4m3fn: 448.0}


@dataclass
class Cached:
    """Arguments of the attention, by their names there."""

    q_NHK: Tensor
    k_PGSK: Tensor
    v_PGSK: Tensor
    block_table_NB: Tensor
    lengths_N: Tensor
    k_scale_PGS: Tensor | None = None
    v_scale_PGS: Tensor | None = None

    def run(self) -> Tensor:
        return decode_attention(**vars(self))


def stored(x_PGSK: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
    """x in the cache's dtype, with a scale for each token and head where it needs one."""
    if dtype not in LARGEST:
        return x_PGSK.to(dtype), None
    scale = x_PGSK.abs().amax(-1) / LARGEST[dtype]
    codes = x_PGSK / scale.unsqueeze(-1)
    return (codes.round() if dtype == torch.int8 else codes).to(dtype), scale


def cached(
    lengths: list[int], H: int, G: int, K: int, S: int, dtype: torch.dtype = torch.float32, q_dtype=torch.float32
) -> Cached:
    """Random sequences in shuffled pages."""
    N, B = len(lengths), max(-(-max(lengths) // S), 1)
    P = N * B + 2
    pages = torch.randperm(P)[: N * B].view(N, B).int()
    seen_PS = torch.zeros(P, S, dtype=torch.bool)
    for n, length in enumerate(lengths):
        for t in range(length):
            seen_PS[pages[n, t // S], t % S] = True
        pages[n, -(-length // S) :] = -1
    (k, k_scale), (v, v_scale) = (stored(torch.randn(P, G, S, K), dtype) for _ in range(2))
    unseen = ~seen_PS[:, None, :].expand(P, G, S)
    for tensor in (k, v) if dtype not in LARGEST else (k_scale, v_scale):
        assert tensor is not None
        tensor[unseen] = math.nan
    q = (2 * torch.randn(N, H, K)).to(q_dtype)
    return Cached(q, k, v, pages, torch.tensor(lengths), k_scale, v_scale)


def definition(c: Cached) -> Tensor:
    (N, H, K), (_, G, S, _) = c.q_NHK.shape, c.k_PGSK.shape
    out = torch.zeros(N, H, K, dtype=torch.float64)
    for n, length in enumerate(c.lengths_N.tolist()):
        for h in range(H if length else 0):
            places = [(int(c.block_table_NB[n, t // S]), h // (H // G), t % S) for t in range(length)]
            keys, values = (
                torch.stack([cache[place].double() * (1 if scale is None else scale[place]) for place in places])
                for cache, scale in ((c.k_PGSK, c.k_scale_PGS), (c.v_PGSK, c.v_scale_PGS))
            )
            weights = (keys @ c.q_NHK[n, h].double() / math.sqrt(K)).softmax(0)
            out[n, h] = weights @ values
    return out


def assert_close(got: Tensor, expected: Tensor) -> None:
    rtol, atol = (1e-4, 2e-5) if got.dtype == torch.float32 else (1e-2, 1e-2)
    torch.testing.assert_close(got.double(), expected, rtol=rtol, atol=atol)


@pytest.mark.parametrize("q_dtype", FLOATS)
@pytest.mark.parametrize("dtype", CACHES)
@pytest.mark.parametrize("K", [2, 6, 48, 64, 80, 128])
def test_every_cache_dtype_and_head_size(K: int, dtype: torch.dtype, q_dtype: torch.dtype) -> None:
    torch.manual_seed(K)
    case = cached([5, 70], 4, 2, K, 16, dtype, q_dtype)
    assert_close(case.run(), definition(case))


@pytest.mark.parametrize("q_dtype", FLOATS)
@pytest.mark.parametrize("dtype", CACHES)
def test_the_form_for_gpus_gives_the_same_and_reads_no_unseen_slot(dtype: torch.dtype, q_dtype: torch.dtype) -> None:
    torch.manual_seed(7)
    for lengths, H, G in (([5, 0, 70, 33], 4, 2), ([16], 2, 2), ([1, 90], 6, 1)):
        case = cached(lengths, H, G, 32, 16, dtype, q_dtype)
        assert_close(masked(**vars(case)), definition(case))


@pytest.mark.parametrize("S", [1, 7, 16, 128])
@pytest.mark.parametrize(("H", "G"), [(1, 1), (4, 4), (6, 2), (5, 1), (14, 2), (8, 1)])
def test_every_number_of_heads_and_page_size(H: int, G: int, S: int) -> None:
    torch.manual_seed(H * S)
    for dtype in (torch.bfloat16, torch.int8):
        case = cached([33, 1, 66], H, G, 32, S, dtype)
        assert_close(case.run(), definition(case))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("lengths", [[0], [0, 3, 0], [1, 15, 16, 17], [63, 64, 65], [255, 256, 257], [600, 2, 40]])
def test_ragged_lengths_across_pages_and_parts(lengths: list[int], dtype: torch.dtype) -> None:
    torch.manual_seed(sum(lengths))
    case = cached(lengths, 2, 1, 64, 16, dtype, dtype)
    got = case.run()
    assert_close(got, definition(case))
    for n, length in enumerate(lengths):
        assert length or not got[n].any()
    case.lengths_N = case.lengths_N.int()
    assert torch.equal(case.run(), got)


def test_no_sequences_give_no_rows() -> None:
    cache = torch.ones(2, 1, 4, 8)
    table = torch.empty(0, 1, dtype=torch.int32)
    got = decode_attention(torch.empty(0, 2, 8), cache, cache, table, torch.empty(0, dtype=torch.int64))
    assert got.shape == (0, 2, 8)


def test_pages_may_lie_apart() -> None:
    """The cache of one layer out of several, with pages outermost."""
    torch.manual_seed(5)
    for dtype in (torch.bfloat16, torch.int8):
        case = cached([40, 20], 4, 2, 64, 16, dtype)
        apart = replace(case)
        for name in ("k_PGSK", "v_PGSK", "k_scale_PGS", "v_scale_PGS"):
            tensor = getattr(case, name)
            if tensor is not None:
                setattr(apart, name, torch.stack([torch.zeros_like(tensor), tensor], dim=1)[:, 1])
        assert not apart.k_PGSK.is_contiguous()
        assert torch.equal(apart.run(), case.run())


@pytest.mark.parametrize("q_dtype", FLOATS)
def test_scores_far_apart_and_large(q_dtype: torch.dtype) -> None:
    torch.manual_seed(6)
    case = cached([300], 4, 1, 64, 16, torch.float32, q_dtype)
    case.q_NHK[0, 0] *= 1000
    case.q_NHK[0, 1] = 0
    case.q_NHK[0, 2] *= 1e-30
    case.q_NHK[0, 3] *= -50
    assert_close(case.run(), definition(case))


def test_a_maximum_that_comes_late_rescales_what_was_gathered() -> None:
    torch.manual_seed(7)
    case = cached([200], 1, 1, 64, 16)
    for t, boost in ((100, 5.0), (150, 20.0), (199, 30.0)):
        page = case.block_table_NB[0, t // 16]
        case.k_PGSK[page, 0, t % 16] = case.q_NHK[0, 0] * boost / 64
    assert_close(case.run(), definition(case))


def test_a_number_that_is_none_spoils_its_own_sequence_alone() -> None:
    torch.manual_seed(8)
    case = cached([30, 30, 30], 2, 1, 64, 16)
    clean = case.run()
    case.k_PGSK[case.block_table_NB[1, 0], 0, 3, 5] = math.nan
    got = case.run()
    assert got[1].isnan().all()
    assert torch.equal(got[0], clean[0])
    assert torch.equal(got[2], clean[2])


def test_a_sequence_gets_the_same_numbers_whatever_runs_beside_it() -> None:
    torch.manual_seed(9)
    case = cached([700, 3, 90], 8, 2, 64, 16, torch.bfloat16, torch.bfloat16)
    together, before = case.run(), torch.get_num_threads()
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            for n in range(3):
                one = slice(n, n + 1)
                alone = replace(
                    case, q_NHK=case.q_NHK[one], block_table_NB=case.block_table_NB[one], lengths_N=case.lengths_N[one]
                )
                got = alone.run()
                assert_close(got, together[one].double())
                assert library() is None or torch.equal(got, together[one])
    finally:
        torch.set_num_threads(before)


# Refusals -------------------------------------------------------------------------------------------------------------


def changed(change: Callable[[Cached], None], dtype: torch.dtype = torch.float32) -> Callable[[], Tensor]:
    def run() -> Tensor:
        case = cached([9, 20], 4, 2, 8, 4, dtype)
        change(case)
        return case.run()

    return run


def setting(**values: Callable[[Cached], Tensor | None]) -> Callable[[Cached], None]:
    def change(case: Cached) -> None:
        for name, make in values.items():
            setattr(case, name, make(case))

    return change


def page_outside(case: Cached) -> None:
    case.block_table_NB[1, 4] = 99


def page_missing(case: Cached) -> None:
    case.block_table_NB[1, 4] = -1


REFUSED: dict[str, tuple[Callable[[], Tensor], str]] = {
    "a page outside": (changed(page_outside), "page 99"),
    "a missing page": (changed(page_missing), "page -1"),
    "a length beyond the table": (changed(setting(lengths_N=lambda c: c.lengths_N + 1)), "length 21"),
    "a negative length": (changed(setting(lengths_N=lambda c: -c.lengths_N)), "length -9"),
    "other head sizes": (changed(setting(q_NHK=lambda c: torch.ones(2, 4, 6))), "(2, 4, 6)"),
    "heads that do not divide": (changed(setting(q_NHK=lambda c: torch.ones(2, 3, 8))), "(2, 3, 8)"),
    "another number of tables": (changed(setting(block_table_NB=lambda c: c.block_table_NB[:1])), "(1, 5)"),
    "values of another shape": (changed(setting(v_PGSK=lambda c: c.v_PGSK[1:])), "(11, 2, 4, 8)"),
    "values of another dtype": (changed(setting(v_PGSK=lambda c: c.v_PGSK.bfloat16())), "torch.bfloat16"),
    "float64 queries": (changed(setting(q_NHK=lambda c: c.q_NHK.double())), "torch.float64"),
    "an int64 table": (changed(setting(block_table_NB=lambda c: c.block_table_NB.long())), "torch.int64"),
    "gaps in a page": (
        changed(setting(k_PGSK=lambda c: c.k_PGSK.transpose(1, 2).contiguous().transpose(1, 2))),
        "strides",
    ),
    "int8 without scales": (changed(setting(k_scale_PGS=lambda c: None), torch.int8), "without scales"),
    "float32 with scales": (changed(setting(k_scale_PGS=lambda c: torch.ones(12, 2, 4))), "with scales"),
    "scales of another shape": (changed(setting(v_scale_PGS=lambda c: torch.ones(12, 2)), torch.int8), "(12, 2)"),
    "gradients": (changed(setting(q_NHK=lambda c: c.q_NHK.requires_grad_())), "gradients"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused_before_it_is_read(name: str) -> None:
    call, said = REFUSED[name]
    with pytest.raises(InputError) as caught:
        call()
    assert said in str(caught.value)
