from __future__ import annotations

import pytest
import torch

from puna.base.errors import ResourceError
from puna.model.cache import ContiguousCache


def new_cache(config, rows: int = 2, capacity: int = 8) -> ContiguousCache:
    return ContiguousCache(config, rows, capacity, torch.float32, torch.device("cpu"))


def test_gives_back_what_was_stored_in_order(tiny) -> None:
    config = tiny()
    cache = new_cache(config)
    pieces = [torch.randn(2, config.num_key_value_heads, n, config.head_dim) for n in (3, 1, 2)]
    for piece in pieces:
        ids = cache.admit(torch.full((2, piece.shape[2]), 5))
        for layer in range(config.num_hidden_layers):
            k, v = cache.extend(layer, piece * 2**layer, -piece)
    whole = torch.cat(pieces, dim=2)
    assert cache.length == 6
    assert torch.equal(ids, torch.full((2, 6), 5))
    assert torch.equal(k, whole * 2 ** (config.num_hidden_layers - 1))
    assert torch.equal(v, -whole)


def test_refuses_more_than_it_holds(tiny) -> None:
    cache = new_cache(tiny(), capacity=4)
    cache.admit(torch.zeros(2, 3, dtype=torch.int64))
    with pytest.raises(ResourceError, match="holds 4 tokens a row; 5"):
        cache.admit(torch.zeros(2, 2, dtype=torch.int64))
    assert cache.length == 3


@torch.no_grad()
def test_decoding_token_by_token_equals_the_whole_pass(tiny, random_model) -> None:
    model = random_model(tiny())
    ids = torch.randint(0, 96, (2, 24), generator=torch.Generator().manual_seed(0))
    whole = model(ids)
    cache = new_cache(model.config, capacity=24)
    parts = [model(ids[:, :10], cache=cache), model(ids[:, 10:13], cache=cache)]
    parts += [model(ids[:, i : i + 1], cache=cache) for i in range(13, 24)]
    assert torch.allclose(torch.cat(parts, dim=1), whole, atol=1e-5)


@torch.no_grad()
def test_left_padded_rows_are_as_if_alone(tiny, random_model) -> None:
    model = random_model(tiny())
    generator = torch.Generator().manual_seed(1)
    rows = [torch.randint(0, 96, (n,), generator=generator) for n in (9, 4, 1)]
    new = torch.randint(0, 96, (3, 3), generator=generator)
    ids = torch.zeros(3, 9, dtype=torch.int64)
    documents = torch.full((3, 9), -1)
    positions = torch.zeros(3, 9, dtype=torch.int64)
    for b, row in enumerate(rows):
        ids[b, 9 - len(row) :] = row
        documents[b, 9 - len(row) :] = 0
        positions[b, 9 - len(row) :] = torch.arange(len(row))
    cache = new_cache(model.config, rows=3, capacity=12)
    logits = [model(ids, positions, documents, cache)[:, -1]]
    for step in range(3):
        at = torch.tensor([[len(row) + step] for row in rows])
        logits.append(model(new[:, step : step + 1], at, torch.zeros(3, 1, dtype=torch.int64), cache)[:, -1])
    for b, row in enumerate(rows):
        alone = model(torch.cat((row, new[b]))[None])[0, len(row) - 1 :]
        assert torch.allclose(torch.stack(logits, dim=1)[b], alone, atol=1e-5)


@torch.no_grad()
def test_rewinding_continues_from_the_shared_beginning(tiny, random_model) -> None:
    model = random_model(tiny())
    first, second = torch.randint(0, 96, (2, 1, 8), generator=torch.Generator().manual_seed(2))
    second[:, :5] = first[:, :5]
    cache = new_cache(model.config, rows=1, capacity=8)
    model(first, cache=cache)
    cache.rewind(5)
    assert cache.length == 5
    assert torch.allclose(model(second[:, 5:], cache=cache), model(second)[:, 5:], atol=1e-5)
    cache.rewind(100)
    assert cache.length == 8


@torch.no_grad()
def test_rows_that_ended_can_leave(tiny, random_model) -> None:
    model = random_model(tiny())
    ids = torch.randint(0, 96, (4, 7), generator=torch.Generator().manual_seed(3))
    cache = new_cache(model.config, rows=4, capacity=7)
    model(ids[:, :6], cache=cache)
    stay = torch.tensor([3, 1])
    cache.keep_rows(stay)
    assert torch.allclose(model(ids[stay, 6:], cache=cache), model(ids[stay])[:, 6:], atol=1e-5)
