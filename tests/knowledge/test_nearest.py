"""The nearest vectors: exact, by codes, after changes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from puna.base.errors import InputError
from puna.knowledge.nearest import Floats, Ids, Nearest, encode, unit


def vectors(count: int, dimensions: int = 32, seed: int = 0) -> Floats:
    return unit(np.random.default_rng(seed).standard_normal((count, dimensions)))


def fetcher(table: Floats) -> Callable[[Ids], Floats]:
    return lambda ids: table[ids]


def made(table: Floats, exact_below: int, documents: Ids | None = None) -> Nearest:
    ids = np.arange(len(table))
    owners = ids if documents is None else documents
    return Nearest.empty(table.shape[1], exact_below).changed(np.zeros(0, bool), ids, owners, fetcher(table))


def brute(table: Floats, query: Floats, limit: int) -> list[int]:
    return np.argsort(-(table.astype(np.float64) @ query), kind="stable")[:limit].tolist()


@pytest.mark.parametrize("exact_below", [10_000, 0])
def test_the_nearest_are_found_by_either_way(exact_below: int):
    table = vectors(3000)
    nearest = made(table, exact_below)
    assert (nearest.exact is None) == (exact_below == 0)
    for query in vectors(20, seed=1):
        found = nearest.search(query, 10, None, fetcher(table))
        assert [id for id, _ in found] == brute(table, query, 10)
        assert [score for _, score in found] == pytest.approx([float(table[id] @ query) for id, _ in found], abs=1e-5)


def test_only_allowed_documents_are_found():
    table = vectors(200)
    nearest = made(table, 1000, np.arange(200) % 4)
    found = nearest.search(table[5], 10, np.array([2, 3]), fetcher(table))
    assert found
    assert {id % 4 for id, _ in found} <= {2, 3}
    assert nearest.search(table[5], 10, np.array([], np.int64), fetcher(table)) == []


def test_nothing_at_a_right_angle_or_beyond_is_found():
    table = np.array([[1, 0], [0, 1], [-1, 0], [0, 0]], np.float32)
    found = made(table, 10).search(np.array([1, 0], np.float32), 4, None, fetcher(table))
    assert found == [(0, 1.0)]
    assert made(table, 10).search(np.zeros(2, np.float32), 4, None, fetcher(table)) == []


def test_equals_at_the_end_are_all_given():
    table = np.array([[1, 0], [0.6, 0.8], [0.6, 0.8], [0.6, 0.8]], np.float32)
    found = made(table, 10).search(np.array([1, 0], np.float32), 2, None, fetcher(table))
    assert [id for id, _ in found] == [0, 1, 2, 3]


@pytest.mark.parametrize("exact_below", [10_000, 150, 0])
def test_changes_leave_what_a_new_one_would_have(exact_below: int):
    table = vectors(300)
    old = made(table[:200], exact_below)
    keep = np.arange(200) % 3 > 0
    changed = old.changed(keep, np.arange(200, 300), np.arange(200, 300), fetcher(table))
    ids = np.concatenate([np.arange(200)[keep], np.arange(200, 300)])
    assert changed.ids.tolist() == ids.tolist()
    for query in vectors(5, seed=2):
        found = [id for id, _ in changed.search(query, 7, None, fetcher(table))]
        assert found == ids[brute(table[ids], query, 7)].tolist()
    assert len(old) == 200


def test_shrinking_goes_back_to_exact_vectors():
    table = vectors(100)
    small = made(table, 50).changed(np.arange(100) < 20, np.zeros(0, np.int64), np.zeros(0, np.int64), fetcher(table))
    assert small.exact is not None
    assert (small.exact == table[:20]).all()


def test_codes_are_near_their_vectors():
    table = vectors(50)
    codes, scales = encode(table)
    assert np.abs(codes * scales[:, None] - table).max() <= scales.max() / 2 + 1e-6
    assert encode(np.zeros((2, 3), np.float32))[0].tolist() == [[0, 0, 0], [0, 0, 0]]


def test_length_one_or_zero_and_no_nonsense():
    assert np.linalg.norm(unit([[3, 4], [0, 0], [0.3, 0.4]]), axis=1) == pytest.approx([1, 0, 1])
    assert np.linalg.norm(unit([[3, 4], [0, 0], [0.3, 0.4]], most=True), axis=1) == pytest.approx([1, 0, 0.5])
    for wrong in ([[1, float("nan")]], [[float("inf")]], [1, 2], []):
        with pytest.raises(InputError, match="finite numbers"):
            unit(wrong)
