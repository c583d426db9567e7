"""Rankings made into one, and spread."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.knowledge.fusion import best_of, reciprocal_rank, shared_words, spread


def test_what_all_put_first_has_one_and_agreement_beats_a_single_first_place():
    assert reciprocal_rank([["a", "b"], ["a", "c"]], [1, 1])["a"] == pytest.approx(1.0)
    scores = reciprocal_rank([["a", "b"], ["c", "b"]], [1, 1])
    assert scores["b"] > scores["a"] == scores["c"]


def test_the_weight_of_a_ranking_decides_between_two_firsts():
    scores = reciprocal_rank([["a"], ["b"]], [1, 2])
    assert scores["b"] == pytest.approx(2 * scores["a"])


@given(st.lists(st.permutations(list("abcdef")), min_size=1, max_size=4))
def test_scores_are_shares_and_a_better_place_never_hurts(rankings: list[list[str]]):
    scores = reciprocal_rank(rankings, [1.0] * len(rankings))
    assert all(0 < score <= 1 + 1e-9 for score in scores.values())
    item = rankings[0][-1]
    better = [[item, *rankings[0][:-1]], *rankings[1:]]
    assert reciprocal_rank(better, [1.0] * len(rankings))[item] > scores[item]


def test_spreading_takes_the_best_and_then_what_is_unlike_it():
    likeness = np.array([[1, 0.99, 0.1], [0.99, 1, 0.1], [0.1, 0.1, 1]], np.float32)
    assert spread([1.0, 0.9, 0.5], likeness, 3, 0.0) == [0, 1, 2]
    assert spread([1.0, 0.9, 0.5], likeness, 2, 0.7) == [0, 2]
    assert spread([1.0, 0.9, 0.5], likeness, 9, 0.7) == [0, 2, 1]
    assert spread([], np.zeros((0, 0), np.float32), 3, 0.5) == []


def test_equals_keep_their_order():
    assert spread([0.5, 0.5, 0.5], np.eye(3, dtype=np.float32), 3, 0.0) == [0, 1, 2]


def test_likeness_by_words():
    likeness = shared_words([frozenset("ab"), frozenset("bc"), frozenset(), frozenset("ab")])
    assert likeness[0, 1] == pytest.approx(1 / 3)
    assert likeness[0, 3] == 1
    assert likeness[0, 2] == 0
    assert (likeness == likeness.T).all()


def test_the_best_score_of_each():
    assert best_of([{"a": 1.0, "b": 3.0}, {"a": 2.0}]) == {"a": 2.0, "b": 3.0}
