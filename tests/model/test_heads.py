from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from puna.model import heads
from puna.model.heads import cross_entropy, logits, token_logprobs


def inputs(B: int, T: int, D: int, V: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(B, T, D, generator=generator)
    weight = torch.randn(V, D, generator=generator)
    targets = torch.randint(0, V, (B, T), generator=generator)
    mask = torch.rand(B, T, generator=generator) < 0.6
    return hidden, weight, targets.masked_fill(~mask, -1), mask


def reference(hidden: Tensor, weight: Tensor, targets: Tensor, mask: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Loss and gradients in float64, by the definition."""
    hidden, weight = (x.detach().double().requires_grad_() for x in (hidden, weight))
    loss = F.cross_entropy((hidden @ weight.T)[mask], targets[mask], reduction="sum")
    return loss.detach(), list(torch.autograd.grad(loss, (hidden, weight)))


@pytest.fixture(params=[1, 50, 1 << 21])
def chunk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many numbers a chunk of logits has: from the least that is allowed (64 tokens) to all at once."""
    monkeypatch.setattr(heads, "_CHUNK_NUMBERS", request.param)
    return request.param


@pytest.mark.parametrize("tokens", [1, 15, 16, 17, 32, 33, 100])
def test_loss_and_gradients_at_every_chunk_boundary(chunk: int, tokens: int) -> None:
    hidden, weight, targets, mask = inputs(2, tokens, 7, 11)
    mask[0] = True
    targets[0] = targets[0].clamp(min=0)
    loss, (grad_hidden, grad_weight) = reference(hidden, weight, targets, mask)
    hidden.requires_grad_()
    weight.requires_grad_()
    got = cross_entropy(hidden, weight, targets, mask)
    got.backward()
    assert got.dtype == torch.float32
    assert got.item() == pytest.approx(loss.item(), rel=1e-5)
    assert torch.allclose(hidden.grad.double(), grad_hidden, atol=1e-5)
    assert torch.allclose(weight.grad.double(), grad_weight, atol=1e-4)
    assert torch.equal(hidden.grad[~mask], torch.zeros_like(hidden.grad[~mask]))


@given(seed=st.integers(0, 10_000), scale=st.floats(0.01, 30), factor=st.floats(-3, 3))
@settings(max_examples=30, deadline=None)
def test_gradients_carry_the_factor_of_the_loss(seed: int, scale: float, factor: float) -> None:
    hidden, weight, targets, mask = inputs(2, 9, 5, 13, seed)
    hidden = (hidden * scale).requires_grad_()
    weight.requires_grad_()
    _, (grad_hidden, grad_weight) = reference(hidden, weight, targets, mask)
    (cross_entropy(hidden, weight, targets, mask) * factor).backward()
    assert torch.allclose(hidden.grad.double(), grad_hidden * factor, atol=1e-4)
    assert torch.allclose(weight.grad.double(), grad_weight * factor, atol=1e-3 * scale + 1e-4)


def test_extreme_logits_stay_finite() -> None:
    hidden, weight, targets, mask = inputs(1, 6, 4, 9)
    hidden = (hidden * 1e4).requires_grad_()
    mask[:] = True
    targets = targets.clamp(min=0)
    loss = cross_entropy(hidden, weight, targets, mask)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(hidden.grad).all()
    assert loss.item() == pytest.approx(reference(hidden, weight, targets, mask)[0].item(), rel=1e-5)


def test_a_batch_with_nothing_to_learn() -> None:
    hidden, weight, targets, mask = inputs(2, 5, 4, 9)
    hidden.requires_grad_()
    weight.requires_grad_()
    loss = cross_entropy(hidden, weight, torch.full_like(targets, -1), torch.zeros_like(mask))
    loss.backward()
    assert loss.item() == 0.0
    assert torch.equal(hidden.grad, torch.zeros_like(hidden))
    assert torch.equal(weight.grad, torch.zeros_like(weight))


@pytest.mark.parametrize("frozen", ["hidden", "weight", "both"])
def test_only_what_learns_gets_a_gradient(frozen: str) -> None:
    hidden, weight, targets, mask = inputs(2, 5, 4, 9)
    _, (grad_hidden, grad_weight) = reference(hidden, weight, targets, mask)
    hidden.requires_grad_(frozen == "weight")
    weight.requires_grad_(frozen == "hidden")
    loss = cross_entropy(hidden, weight, targets, mask)
    if frozen == "both":
        assert not loss.requires_grad
        return
    loss.backward()
    if frozen == "weight":
        assert torch.allclose(hidden.grad.double(), grad_hidden, atol=1e-5)
        assert weight.grad is None
    else:
        assert torch.allclose(weight.grad.double(), grad_weight, atol=1e-5)
        assert hidden.grad is None


def test_autocast_keeps_float32_gradients_of_float32_weights() -> None:
    hidden, weight, targets, mask = inputs(4, 64, 32, 50)
    hidden, weight = (hidden / 6).requires_grad_(), weight.requires_grad_()
    loss, (grad_hidden, grad_weight) = reference(hidden, weight, targets, mask)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = cross_entropy(hidden, weight, targets, mask)
    got.backward()
    assert got.item() == pytest.approx(loss.item(), rel=0.01)
    assert hidden.grad.dtype == weight.grad.dtype == torch.float32
    for mine, theirs in ((hidden.grad, grad_hidden), (weight.grad, grad_weight)):
        assert F.cosine_similarity(mine.double().flatten(), theirs.flatten(), dim=0) > 0.999


def test_bfloat16_hidden_states_with_float32_weights() -> None:
    hidden, weight, targets, mask = inputs(2, 40, 16, 30)
    hidden, weight = hidden.bfloat16().requires_grad_(), weight.requires_grad_()
    loss, _ = reference(hidden, weight, targets, mask)
    got = cross_entropy(hidden, weight, targets, mask)
    got.backward()
    assert got.item() == pytest.approx(loss.item(), rel=0.02)
    assert (hidden.grad.dtype, weight.grad.dtype) == (torch.bfloat16, torch.float32)


def test_token_logprobs_are_those_of_the_softmax(chunk: int) -> None:
    hidden, weight, targets, _ = inputs(3, 21, 7, 11)
    got = token_logprobs(hidden, weight, targets)
    expected = (hidden.double() @ weight.double().T).log_softmax(-1)
    expected = expected.gather(2, targets.clamp(min=0)[..., None]).squeeze(2)
    assert got.shape == (3, 21)
    assert torch.allclose(got.double(), expected.masked_fill(targets < 0, 0.0), atol=1e-5)
    assert not got.requires_grad


@pytest.mark.parametrize("chunk_tokens", [0, 1, 7, 1000])
def test_token_logprobs_have_the_gradient_of_the_softmax(chunk_tokens: int) -> None:
    hidden, weight, targets, mask = inputs(3, 21, 7, 11)
    factors = torch.randn(3, 21, generator=torch.Generator().manual_seed(1))
    hidden.requires_grad_(), weight.requires_grad_()
    got = token_logprobs(hidden, weight, targets, chunk_tokens)
    found = torch.autograd.grad((got * factors).sum(), (hidden, weight))
    exact = [x.detach().double().requires_grad_() for x in (hidden, weight)]
    logprobs = (exact[0] @ exact[1].T).log_softmax(-1).gather(2, targets.clamp(min=0)[..., None]).squeeze(2)
    expected = torch.autograd.grad((logprobs * factors * mask).sum(), exact)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a.double(), b, atol=1e-5, rtol=1e-5)


def test_no_targets_are_no_logprobs_and_a_gradient_of_zero() -> None:
    hidden, weight, targets, _ = inputs(2, 5, 7, 11)
    hidden.requires_grad_()
    got = token_logprobs(hidden, weight, torch.full_like(targets, -1))
    assert not got.any()
    assert not torch.autograd.grad(got.sum(), hidden)[0].any()


def test_token_logprobs_sum_to_the_loss() -> None:
    hidden, weight, targets, mask = inputs(2, 20, 7, 11)
    loss = cross_entropy(hidden, weight, targets, mask)
    assert -token_logprobs(hidden, weight, targets).sum().item() == pytest.approx(loss.item(), rel=1e-5)


def test_logits_are_float32() -> None:
    hidden, weight, _, _ = inputs(2, 3, 4, 9)
    assert torch.allclose(logits(hidden, weight), hidden @ weight.T, atol=1e-6)
    assert logits(hidden.bfloat16(), weight.bfloat16()).dtype == torch.float32
