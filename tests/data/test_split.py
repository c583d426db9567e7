"""Splits: whole groups, close to the share, the same whatever the order."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.base.errors import ConfigError, InputError
from puna.core.document import Document
from puna.data.split import split

SIZES = st.lists(st.integers(1, 400), min_size=2, max_size=40)


def corpus(sizes: list[int]) -> list[Document]:
    return [Document("x" * size, f"{i}-{size}", f"{i}") for i, size in enumerate(sizes)]


def singletons(documents: list[Document]) -> list[list[int]]:
    return [[i] for i in range(len(documents))]


@given(SIZES, st.floats(0.01, 0.9), st.integers(0, 5))
def test_every_document_is_on_one_side_and_something_is_held_out(sizes: list[int], fraction: float, seed: int):
    documents = corpus(sizes)
    parts = split(documents, singletons(documents), fraction, seed)
    assert sorted(d.id for d in parts.train + parts.held_out) == sorted(d.id for d in documents)
    assert parts.held_out and parts.train
    held = sum(len(d.text) for d in parts.held_out)
    assert held <= fraction * sum(sizes) or held == min(sizes)


def test_the_share_is_met_closely_where_documents_are_many():
    documents = corpus([100] * 400)
    assert len(split(documents, singletons(documents), 0.05, 0).held_out) == 20


def test_groups_are_not_cut():
    documents = corpus([10] * 30)
    groups = [list(range(i, i + 3)) for i in range(0, 30, 3)]
    held = {d.source for d in split(documents, groups, 0.2, 1).held_out}
    assert len(held) == 6
    assert all(len(held & {str(i) for i in group}) in (0, 3) for group in groups)


def test_a_group_that_would_go_beyond_is_trained_on():
    documents = corpus([1000, 10, 10, 10, 10])
    for seed in range(20):
        assert "0" not in {d.source for d in split(documents, singletons(documents), 0.02, seed).held_out}


def test_the_order_of_documents_and_groups_does_not_matter():
    documents = corpus([random.Random(i).randint(50, 150) for i in range(60)])
    expected = {d.id for d in split(documents, singletons(documents), 0.1, 3).held_out}
    random.Random(1).shuffle(documents)
    groups = singletons(documents)
    random.Random(2).shuffle(groups)
    assert {d.id for d in split(documents, groups, 0.1, 3).held_out} == expected


def test_an_unrelated_document_moves_little():
    documents = corpus([100] * 200)
    before = {d.id for d in split(documents, singletons(documents), 0.1, 0).held_out}
    documents.append(Document("y" * 100, "new", "new"))
    after = {d.id for d in split(documents, singletons(documents), 0.1, 0).held_out}
    assert len(before ^ after) <= 2


def test_seeds_hold_out_different_documents():
    documents = corpus([100] * 100)
    assert (
        len({tuple(d.id for d in split(documents, singletons(documents), 0.1, seed).held_out) for seed in range(5)})
        == 5
    )


def test_nothing_is_held_out_on_request_and_one_group_cannot_be_split():
    documents = corpus([10, 10])
    assert split(documents, [[0, 1]], 0.0, 0).held_out == []
    with pytest.raises(InputError, match=r"split\.held_out=0"):
        split(documents, [[0, 1]], 0.1, 0)
    for fraction in (-0.1, 1.0):
        with pytest.raises(ConfigError, match="share to hold out"):
            split(documents, singletons(documents), fraction, 0)
