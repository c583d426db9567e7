"""Places, gains and their means."""

from __future__ import annotations

import math

import pytest

from puna.evals.retrieval import RetrievalScores, gain, place, score


@pytest.mark.parametrize(
    ("ranking", "right", "expected"),
    [([7, 3, 9], 7, 1), ([7, 3, 9], 9, 3), ([7, 3, 9], 4, 0), ([], 4, 0), ([*range(10), 42], 42, 0)],
)
def test_the_place_counts_from_one_and_ends_at_ten(ranking: list[int], right: int, expected: int) -> None:
    assert place(ranking, right) == expected


def test_the_gain_halves_at_the_third_place() -> None:
    assert [gain(1), gain(3), gain(0)] == [1.0, 0.5, 0.0]
    assert gain(2) == pytest.approx(1 / math.log2(3))


def test_figures_are_means_over_all_questions() -> None:
    scores = score([1, 3, 0, 1])
    assert scores == RetrievalScores(questions=4, recall=0.75, ndcg=0.625, first=0.5)
    assert score([]) == RetrievalScores(0, 0.0, 0.0, 0.0)
