"""Rotations: orthogonal for every width, and made of one size of entries where Hadamard matrices are known."""

from __future__ import annotations

import pytest
import torch

from puna.quant.methods.hadamard import random_rotation

HADAMARD = [1, 2, 4, 8, 12, 20, 24, 28, 36, 44, 52 * 2, 60, 64, 96, 128, 192, 384, 640, 1024]


@pytest.mark.parametrize("size", [*HADAMARD, 3, 5, 33, 36 * 3])
def test_it_is_orthogonal(size: int) -> None:
    q = random_rotation(size, seed=0)
    torch.testing.assert_close(q @ q.T, torch.eye(size, dtype=torch.float64), atol=1e-10, rtol=0)


@pytest.mark.parametrize("size", HADAMARD)
def test_its_entries_have_one_size(size: int) -> None:
    q = random_rotation(size, seed=0)
    torch.testing.assert_close(q.abs(), torch.full_like(q, size**-0.5))


@pytest.mark.parametrize("size", [2048, 3072])
def test_the_widths_of_llama_are_hadamard(size: int) -> None:
    q = random_rotation(size, seed=0)
    torch.testing.assert_close(q.abs(), torch.full_like(q, size**-0.5))
    torch.testing.assert_close(q[:8] @ q.T, torch.eye(size, dtype=torch.float64)[:8], atol=1e-10, rtol=0)


def test_a_seed_gives_one_rotation() -> None:
    assert torch.equal(random_rotation(64, 3), random_rotation(64, 3))
    assert not torch.equal(random_rotation(64, 3), random_rotation(64, 4))


def test_an_outlier_is_spread_over_all_channels() -> None:
    x = torch.zeros(1, 64, dtype=torch.float64)
    x[0, 5] = 100
    assert float((x @ random_rotation(64, 0)).abs().max()) == pytest.approx(100 / 8)
