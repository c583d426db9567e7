"""The seam between the model and a cache, with the plainest cache that there can be: it keeps everything."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from puna.model.attention import attend
from puna.model.cache import Cache


class Kept:
    """Keys and values of one sequence, one after another; notes what it is asked."""

    def __init__(self, layers: int) -> None:
        self.longest = 0
        self.k: list[list[Tensor]] = [[] for _ in range(layers)]
        self.v: list[list[Tensor]] = [[] for _ in range(layers)]
        self.asked: list[tuple[int, tuple[int, ...], tuple[int, ...]]] = []

    def attend(self, layer: int, q_BHTK: Tensor, k_BGTK: Tensor, v_BGTK: Tensor) -> Tensor:
        self.asked.append((layer, tuple(q_BHTK.shape), tuple(k_BGTK.shape)))
        self.k[layer].append(k_BGTK)
        self.v[layer].append(v_BGTK)
        k_BGSK, v_BGSK = torch.cat(self.k[layer], dim=2), torch.cat(self.v[layer], dim=2)
        T, S = q_BHTK.shape[2], k_BGSK.shape[2]
        return attend(q_BHTK, k_BGSK, v_BGSK, torch.ones(1, 1, T, S, dtype=torch.bool).tril(S - T))


@torch.no_grad()
@pytest.mark.parametrize("pieces", [(24,), (10, 3, *[1] * 11), (1,) * 24])
def test_a_model_with_a_cache_computes_what_the_whole_pass_does(tiny, random_model, pieces: tuple[int, ...]) -> None:
    model = random_model(tiny())
    ids = torch.randint(0, 96, (1, 24), generator=torch.Generator().manual_seed(0))
    cache, parts, start = Kept(2), [], 0
    for count in pieces:
        positions = torch.arange(start, start + count)[None]
        cache.longest = start = start + count
        parts.append(model(ids[:, positions[0]], positions, cache=cache))
    assert torch.allclose(torch.cat(parts, dim=1), model(ids), atol=1e-5)
    assert cache.asked[:2] == [(layer, (1, 4, pieces[0], 8), (1, 2, pieces[0], 8)) for layer in (0, 1)]


@torch.no_grad()
def test_a_cache_gets_keys_after_rotation(tiny, random_model) -> None:
    """So that a cached token is never turned again, and equal tokens at other places have other keys."""
    model = random_model(tiny())
    cache = Kept(2)
    cache.longest = 3
    model(torch.tensor([[5, 5, 5]]), torch.arange(3)[None], cache=cache)
    k_GTK, v_GTK = cache.k[0][0][0], cache.v[0][0][0]
    assert torch.equal(v_GTK[:, 0], v_GTK[:, 2])
    assert not torch.allclose(k_GTK[:, 0], k_GTK[:, 2])
    assert torch.allclose(k_GTK[:, 0].norm(dim=-1), k_GTK[:, 2].norm(dim=-1), atol=1e-5)


@torch.no_grad()
def test_the_rows_tokens_may_stand_anywhere_below_the_longest(tiny, random_model) -> None:
    """A row may hold tokens of many sequences: its positions need not rise, and the cache alone bounds them."""

    class Alone(Kept):
        def attend(self, layer: int, q_BHTK: Tensor, k_BGTK: Tensor, v_BGTK: Tensor) -> Tensor:
            return v_BGTK.repeat_interleave(q_BHTK.shape[1] // v_BGTK.shape[1], dim=1)  # each sees itself alone

    model = random_model(tiny(max_position_embeddings=64))
    cache = Alone(2)
    cache.longest = 41
    row = model(torch.tensor([[7, 9, 7]]), torch.tensor([[40, 0, 3]]), cache=cache)
    first = model(torch.tensor([[7]]))
    assert torch.allclose(row[0, 0], first[0, 0], atol=1e-5)
    assert torch.allclose(row[0, 2], first[0, 0], atol=1e-5)


def test_the_protocol_is_what_a_plain_class_meets() -> None:
    cache: Cache = Kept(1)
    assert cache.longest == 0
