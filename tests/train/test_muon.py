from __future__ import annotations

from copy import deepcopy
from functools import partial

import pytest
import torch
from torch import Tensor

from puna.train import muon
from puna.train.muon import POLAR_EXPRESS, Muon, orthogonalize

JORDAN = [(3.4445, -4.7750, 2.0315)] * 5
SHAPES = [(16, 16), (16, 64), (64, 16), (1, 8), (8, 1), (96, 128)]


def matrix(rows: int, columns: int, smallest: float = 0.01, seed: int = 0) -> Tensor:
    """A matrix with singular values from 1 down to `smallest`."""
    generator = torch.Generator().manual_seed(seed)
    rank = min(rows, columns)
    u, _ = torch.linalg.qr(torch.randn(rows, rank, generator=generator, dtype=torch.float64))
    v, _ = torch.linalg.qr(torch.randn(columns, rank, generator=generator, dtype=torch.float64))
    return (u * torch.logspace(0, torch.tensor(smallest).log10().item(), rank, dtype=torch.float64) @ v.T).float()


def nearest(x: Tensor) -> Tensor:
    """U V^T of the singular value decomposition."""
    u, _, v = torch.linalg.svd(x.double(), full_matrices=False)
    return (u @ v).float()


def alike(a: Tensor, b: Tensor) -> float:
    return float((a * b).sum() / (a.norm() * b.norm()))


@pytest.mark.parametrize("shape", SHAPES)
def test_the_result_is_nearly_the_nearest_semi_orthogonal_matrix(shape: tuple[int, int]) -> None:
    x = matrix(*shape)
    y = orthogonalize(x[None])[0]
    assert y.shape == x.shape
    assert y.dtype == x.dtype
    singular = torch.linalg.svdvals(y)
    assert singular.min() > 0.7
    assert singular.max() < 1.2
    assert alike(y, nearest(x)) > 0.99


@pytest.mark.parametrize("exponent", [-4, -2, 0, 3, 10, 15])
def test_the_scale_of_a_gradient_does_not_matter(exponent: int) -> None:
    x = matrix(24, 40)
    assert alike(orthogonalize(x[None] * 10.0**exponent)[0], nearest(x)) > 0.99


@pytest.mark.parametrize("scale", [0.0, 1e-38, 1e-20, 1e-10, 1e20, 1e38])
def test_no_gradient_is_so_small_or_large_that_it_gives_no_number(scale: float) -> None:
    y = orthogonalize(matrix(8, 12)[None] * scale)
    assert torch.isfinite(y).all()
    assert torch.linalg.matrix_norm(y, 2).max() < 1.2
    if scale == 0:
        assert not y.any()


def test_a_matrix_of_low_rank_is_turned_within_its_own_space() -> None:
    # Signs are exact in bfloat16; the rounding of other numbers would be turned, and raised, like a gradient.
    x = matrix(20, 30)[:, :1].sign() @ matrix(20, 30)[:1].sign()
    singular = torch.linalg.svdvals(orthogonalize(x[None])[0])
    assert 0.7 < singular[0] < 1.2
    assert singular[1] < 0.05


def test_matrices_are_turned_alike_alone_in_a_batch_and_transposed() -> None:
    x = torch.stack([matrix(12, 20, seed=seed) for seed in range(5)])
    together = orthogonalize(x)
    for one, expected in zip(x, together, strict=True):
        torch.testing.assert_close(orthogonalize(one[None])[0], expected, atol=0.01, rtol=0)
    torch.testing.assert_close(orthogonalize(x.mT).mT, together, atol=0.01, rtol=0)


def plain_orthogonalize(x: Tensor, coefficients: list[tuple[float, float, float]], margin: float) -> Tensor:
    """The formula in float64, one matrix at a time."""
    wide = x.shape[0] <= x.shape[1]
    x = x if wide else x.T
    x = x / (x.norm() * margin + 1e-7)
    for a, b, c in coefficients:
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x if wide else x.T


class PlainMuon:
    """The optimizer as its formula says it, in float64."""

    def __init__(self, parameters: list[Tensor], lr: float, momentum: float, weight_decay: float) -> None:
        self.parameters = [p.detach().double() for p in parameters]
        self.buffers = [torch.zeros_like(p) for p in self.parameters]
        self.lr, self.momentum, self.weight_decay = lr, momentum, weight_decay

    def step(self, gradients: list[Tensor]) -> None:
        for p, buffer, gradient in zip(self.parameters, self.buffers, gradients, strict=True):
            g = gradient.double()
            buffer.copy_(self.momentum * buffer + (1 - self.momentum) * g)
            update = plain_orthogonalize(
                (1 - self.momentum) * g + self.momentum * buffer, list(POLAR_EXPRESS), margin=1.02
            )
            p *= 1 - self.lr * self.weight_decay
            p -= self.lr * max(1.0, p.shape[0] / p.shape[1]) ** 0.5 * update


def parameters() -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(3)
    shapes = [(12, 20), (12, 20), (20, 12), (16, 16), (12, 20)]
    return [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]


def gradients(seed: int) -> list[Tensor]:
    return [matrix(*p.shape, seed=10 * seed + i) for i, p in enumerate(parameters())]


def take_steps(optimizer: torch.optim.Optimizer, params: list[torch.nn.Parameter], seeds: range) -> None:
    for seed in seeds:
        for p, gradient in zip(params, gradients(seed), strict=True):
            p.grad = gradient.clone()
        optimizer.step()


def assert_same_path(start: list[torch.nn.Parameter], ours: list[Tensor], theirs: list[Tensor], within: float) -> None:
    """Compares the ways that two optimizers have gone, as shares of their length."""
    for p, a, b in zip(start, ours, theirs, strict=True):
        way = b.double() - p.detach().double()
        assert (a.double() - b.double()).norm() < within * way.norm()


def test_steps_follow_the_plain_formula() -> None:
    params = parameters()
    plain = PlainMuon(list(params), lr=0.02, momentum=0.9, weight_decay=0.1)
    optimizer = Muon(params, lr=0.02, momentum=0.9, weight_decay=0.1)
    for seed in range(8):
        take_steps(optimizer, params, range(seed, seed + 1))
        plain.step(gradients(seed))
    assert_same_path(parameters(), [p.detach() for p in params], plain.parameters, within=0.02)


def test_steps_follow_torchs_muon_with_its_coefficients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(muon, "orthogonalize", partial(orthogonalize, coefficients=JORDAN, margin=1.0))
    ours, theirs = parameters(), parameters()
    take_steps(Muon(ours, lr=0.02, momentum=0.95, weight_decay=0.1), ours, range(8))
    reference = torch.optim.Muon(theirs, lr=0.02, momentum=0.95, weight_decay=0.1, ns_steps=5)
    take_steps(reference, theirs, range(8))
    assert_same_path(parameters(), [p.detach() for p in ours], [p.detach() for p in theirs], within=0.02)


def test_a_resumed_optimizer_takes_the_very_same_steps() -> None:
    params = parameters()
    optimizer = Muon(params, lr=0.02)
    take_steps(optimizer, params, range(3))
    copies = [torch.nn.Parameter(p.detach().clone()) for p in params]
    resumed = Muon(copies, lr=0.5, momentum=0.5)
    resumed.load_state_dict(deepcopy(optimizer.state_dict()))
    take_steps(optimizer, params, range(3, 6))
    take_steps(resumed, copies, range(3, 6))
    for a, b in zip(params, copies, strict=True):
        assert torch.equal(a, b)


def test_parameters_without_a_gradient_stay() -> None:
    first, second, *_ = parameters()
    before = second.detach().clone()
    optimizer = Muon([first, second], lr=0.1, weight_decay=0.5)
    first.grad = torch.ones_like(first)
    optimizer.step()
    assert torch.equal(second, before)
    assert second not in optimizer.state


def test_a_gradient_of_zeros_only_decays_the_weight() -> None:
    (p, *_) = parameters()
    before = p.detach().clone()
    p.grad = torch.zeros_like(p)
    Muon([p], lr=0.1, weight_decay=0.5).step()
    torch.testing.assert_close(p.detach(), before * 0.95)


def test_groups_have_settings_of_their_own() -> None:
    a, b = torch.nn.Parameter(torch.zeros(4, 6)), torch.nn.Parameter(torch.zeros(4, 6))
    optimizer = Muon([{"params": [a], "lr": 0.1}, {"params": [b]}], lr=0.2)
    a.grad, b.grad = matrix(4, 6), matrix(4, 6)
    optimizer.step()
    torch.testing.assert_close(2 * a.detach(), b.detach(), atol=1e-3, rtol=0.02)


def test_a_closure_may_compute_the_gradients() -> None:
    p = torch.nn.Parameter(torch.ones(3, 4))
    optimizer = Muon([p], lr=0.1)

    def closure() -> float:
        optimizer.zero_grad()
        loss = (p**2).sum()
        loss.backward()
        return loss.item()

    assert optimizer.step(closure) == 12
    assert (p < 1).all()


@pytest.mark.parametrize("shape", [(5,), (2, 3, 4), ()])
def test_only_matrices_are_taken(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="Muon takes matrices"):
        Muon([torch.nn.Parameter(torch.zeros(shape))], lr=0.1)
