from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from puna.model.attention import attend, blocked, document_mask, fused

IMPLEMENTATIONS = [blocked, fused, attend]


def slow(q: Tensor, k: Tensor, v: Tensor, allowed: Tensor | None) -> Tensor:
    """Softmax attention by its definition, one query at a time, in float64."""
    B, H, T, K = q.shape
    S, shared = k.shape[2], H // k.shape[1]
    out = []
    for b in range(B):
        for h in range(H):
            for t in range(T):
                scores = k[b, h // shared].double() @ q[b, h, t].double() / math.sqrt(K)
                if allowed is None:
                    seen = torch.arange(S) <= t + S - T
                else:
                    seen = allowed[b if len(allowed) > 1 else 0, 0, t]
                weights = scores.masked_fill(~seen, float("-inf")).softmax(0)
                out.append(weights @ v[b, h // shared].double())
    return torch.stack(out).view(B, H, T, K)


def inputs(B: int, H: int, G: int, T: int, S: int, K: int, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(B, heads, n, K, generator=generator) for heads, n in ((H, T), (G, S), (G, S))]


def random_mask(B: int, T: int, seed: int) -> Tensor:
    ids = torch.randint(0, 3, (B, T), generator=torch.Generator().manual_seed(seed)).sort(dim=1).values
    mask = document_mask(ids, ids)
    return mask if mask is not None else torch.ones(B, 1, T, T, dtype=torch.bool).tril()


@given(B=st.integers(1, 3), G=st.integers(1, 3), R=st.integers(1, 4), T=st.integers(1, 12), seed=st.integers(0, 99))
@settings(max_examples=25, deadline=None)
@pytest.mark.parametrize("masked", [False, True])
def test_all_implementations_follow_the_definition(B: int, G: int, R: int, T: int, seed: int, masked: bool) -> None:
    q, k, v = inputs(B, G * R, G, T, T, 6, seed)
    allowed = random_mask(B, T, seed) if masked else None
    expected = slow(q, k, v, allowed)
    for function in IMPLEMENTATIONS:
        assert torch.allclose(function(q, k, v, allowed).double(), expected, atol=1e-6), function


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_gradients_follow_the_definition(implementation, masked: bool) -> None:
    tensors = [x.requires_grad_() for x in inputs(2, 4, 2, 9, 9, 6)]
    allowed = random_mask(2, 9, 1) if masked else None
    weight = torch.randn(2, 4, 9, 6, generator=torch.Generator().manual_seed(5))
    expected = torch.autograd.grad((slow(*tensors, allowed) * weight).sum(), tensors)
    got = torch.autograd.grad((implementation(*tensors, allowed) * weight).sum(), tensors)
    for mine, theirs in zip(got, expected, strict=True):
        assert torch.allclose(mine, theirs, atol=1e-5)


@pytest.mark.parametrize("T", [255, 256, 257, 600])
def test_blocks_meet_without_a_seam(T: int) -> None:
    q, k, v = (x.requires_grad_() for x in inputs(1, 2, 1, T, T, 4))
    ids = (torch.arange(T) >= 250).long()[None]
    for allowed in (None, document_mask(ids, ids)):
        whole, parts = fused(q, k, v, allowed), blocked(q, k, v, allowed)
        assert torch.allclose(whole, parts, atol=1e-5)
        for mine, theirs in zip(
            torch.autograd.grad(parts.square().sum(), (q, k, v)),
            torch.autograd.grad(whole.square().sum(), (q, k, v)),
            strict=True,
        ):
            assert torch.allclose(mine, theirs, atol=1e-4)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_bfloat16_loses_no_more_than_its_rounding(implementation) -> None:
    q, k, v = (x.bfloat16().requires_grad_() for x in inputs(2, 4, 2, 40, 40, 16))
    out = implementation(q, k, v, None)
    assert out.dtype == torch.bfloat16
    expected = slow(q, k, v, None)
    assert torch.allclose(out.double(), expected, atol=0.02)
    (grad,) = torch.autograd.grad(out.float().sum(), q)
    (right,) = torch.autograd.grad(expected.sum(), q)
    assert torch.allclose(grad.double(), right.double(), atol=0.02)


def test_one_new_token_sees_the_whole_cache() -> None:
    q, k, v = inputs(2, 4, 2, 1, 17, 8)
    assert torch.allclose(attend(q, k, v, None).double(), slow(q, k, v, None), atol=1e-6)


def test_several_new_tokens_after_a_cache_need_a_mask() -> None:
    q, k, v = inputs(1, 4, 2, 3, 8, 8)
    ids = torch.zeros(1, 8, dtype=torch.int64)
    allowed = document_mask(ids[:, 5:], ids)
    assert allowed is not None
    assert torch.allclose(attend(q, k, v, allowed).double(), slow(q, k, v, None), atol=1e-6)


def test_document_mask_is_causal_within_a_document() -> None:
    ids = torch.tensor([[0, 0, 1, 1, -1], [0, 0, 0, 0, 0]])
    mask = document_mask(ids, ids)
    assert mask is not None
    for b in range(2):
        for t in range(5):
            for s in range(5):
                assert bool(mask[b, 0, t, s]) == (s <= t and ids[b, s] == ids[b, t])


def test_no_mask_where_the_rows_are_whole_documents() -> None:
    ids = torch.tensor([[3, 3, 3], [7, 7, 7]])
    assert document_mask(ids, ids) is None
    assert document_mask(ids[:, 2:], ids) is None
    assert document_mask(ids[:, 1:], ids) is not None


def test_training_gives_no_token_a_look_ahead() -> None:
    q, k, v = (x.requires_grad_() for x in inputs(1, 2, 1, 300, 300, 4))
    out = attend(q, k, v, None)
    (grad,) = torch.autograd.grad(out[0, :, 270].sum(), v)
    assert float(grad[0, 0, 271:].abs().max()) == 0.0
    assert float(grad[0, 0, :271].abs().min()) > 0.0
