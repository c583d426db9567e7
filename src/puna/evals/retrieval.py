"""How good a ranking is at finding the passage that answers: recall and nDCG of its first places.

One passage is right for each question, so nDCG is 1 / log2(1 + its place), and 0 where it is not among the first
(Jarvelin and Kekalainen, 2002).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

DEPTH = 10


@dataclass(frozen=True, slots=True)
class RetrievalScores:
    """Means over questions.

    Attributes:
        questions: how many.
        recall: share whose passage is among the first ten.
        ndcg: of the first ten.
        first: share whose passage stands first.
    """

    questions: int
    recall: float
    ndcg: float
    first: float


def place(ranking: Sequence[int], right: int, depth: int = DEPTH) -> int:
    """Where the right one stands among the first `depth`, from 1; 0 where it does not."""
    try:
        return ranking.index(right, 0, depth) + 1
    except ValueError:
        return 0


def gain(place: int) -> float:
    """The nDCG of one question."""
    return 1 / math.log2(1 + place) if place else 0.0


def score(places: Sequence[int]) -> RetrievalScores:
    """The figures of many questions, from the place of each; all 0 without questions."""
    if not places:
        return RetrievalScores(0, 0.0, 0.0, 0.0)
    return RetrievalScores(
        questions=len(places),
        recall=fmean(one > 0 for one in places),
        ndcg=fmean(map(gain, places)),
        first=fmean(one == 1 for one in places),
    )
