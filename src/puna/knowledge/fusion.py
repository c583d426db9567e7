"""Rankings made into one, and a ranking spread over more than one thing.

Reciprocal-rank fusion asks only for places, because scores of different rankers have no common scale (Cormack, Clarke
and Buettcher, SIGIR 2009). Maximal marginal relevance takes passages one by one, each for its own score less what it
repeats of those taken before (Carbonell and Goldstein, SIGIR 1998).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

T = TypeVar("T", bound=Hashable)
RRF_K = 10.0  # the paper has 60, which lets the lower places of a weaker ranking outvote the first of a better one


def reciprocal_rank(rankings: Sequence[Sequence[T]], weights: Sequence[float], k: float = RRF_K) -> dict[T, float]:
    """Each item's score: the sum of weight / (k + place) over the rankings, places from 1, as a share of the most.

    What every ranking puts first has 1.0.
    """
    most = sum(weights) / (k + 1)
    scores: dict[T, float] = {}
    for ranking, weight in zip(rankings, weights, strict=True):
        for place, item in enumerate(ranking, 1):
            scores[item] = scores.get(item, 0.0) + weight / (k + place) / most
    return scores


def spread(relevance: Sequence[float], likeness: npt.NDArray[np.float32], limit: int, diversity: float) -> list[int]:
    """Maximal marginal relevance: positions of up to `limit` items, in the order they are taken.

    Args:
        relevance: of each item; only differences matter, they are brought to 0..1.
        likeness: of each item to each other, in 0..1.
        limit: how many.
        diversity: 0 takes the most relevant, 1 the least like those taken before.
    """
    worth = np.asarray(relevance, np.float64)
    if not len(worth):
        return []
    span = worth.max() - worth.min()
    worth = (worth - worth.min()) / span if span else np.ones_like(worth)
    taken: list[int] = []
    nearest = np.zeros_like(worth)  # likeness to the nearest of those taken
    free = np.ones(len(worth), bool)
    while len(taken) < min(limit, len(worth)):
        value = np.where(free, (1 - diversity) * worth - diversity * nearest, -np.inf)
        best = int(value.argmax())  # the first of equals, which is the one that stood higher
        taken.append(best)
        free[best] = False
        nearest = np.maximum(nearest, likeness[best])
    return taken


def shared_words(texts: Sequence[frozenset[str]]) -> npt.NDArray[np.float32]:
    """Likeness without vectors: shared words as a share of all words of the two (Jaccard)."""
    result = np.eye(len(texts), dtype=np.float32)
    for i, one in enumerate(texts):
        for j, other in enumerate(texts[:i]):
            together = len(one | other)
            result[i, j] = result[j, i] = len(one & other) / together if together else 1.0
    return result


def best_of(scores: Sequence[Mapping[T, float]]) -> dict[T, float]:
    """Each item's highest score."""
    best: dict[T, float] = {}
    for one in scores:
        for item, score in one.items():
            best[item] = max(score, best.get(item, score))
    return best
