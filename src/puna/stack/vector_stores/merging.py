"""What several stores found, as one ranking.

A fused score says which place a passage has in its own store, and the best of each store has the same one. So the
rankings are fused anew over all of them, by what can be compared across stores: the share of the question's words, and
the cosine of the vectors. Cosines of different embedding models are compared as if they were of one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from puna.knowledge.library import Hit

_RANKERS = ("bm25", "vector")


def merge(found: Sequence[Sequence[Hit]], *, fused: bool) -> list[Hit]:
    """The passages of all stores, best first.

    Args:
        found: by each store, best first.
        fused: whether their scores are fused ones; others are compared as they are.
    """
    hits = [hit for some in found for hit in some]
    if fused and sum(bool(some) for some in found) > 1:
        from puna.knowledge.fusion import reciprocal_rank

        rankings = [ranking for name in _RANKERS if (ranking := _ranking(hits, name))]
        scores = reciprocal_rank(rankings, [1.0] * len(rankings))
        hits = [replace(hit, score=scores.get(place, 0.0)) for place, hit in enumerate(hits)]
    return sorted(hits, key=lambda hit: -hit.score)


def _ranking(hits: Sequence[Hit], name: str) -> list[int]:
    """Places of the passages that a ranker found, best first."""
    return sorted((i for i, hit in enumerate(hits) if name in hit.scores), key=lambda i: -hits[i].scores[name])
