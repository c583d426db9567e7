"""The trace of a retrieval: which ranker put which chunk where, and how long it took.

Kept for every search, because it is what explains a wrong answer: was the passage not found, found and ranked low, or
found and thrown out. It holds ids and scores, and no text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Ranking:
    """What one ranker said.

    Attributes:
        ranker: "bm25", "vector", "fused", "rerank", "spread", "kept" (after the threshold and the limit).
        query: what it was asked.
        chunks: (chunk id, score), best first.
        milliseconds: how long it took.
    """

    ranker: str
    query: str
    chunks: Sequence[tuple[str, float]]
    milliseconds: float


@dataclass(slots=True)
class Trace:
    """The rankings of one retrieval, in the order they were made."""

    rankings: list[Ranking] = field(default_factory=list)

    def places(self, chunk_id: str) -> dict[str, int]:
        """The chunk's best place (from 1) by ranker; rankers that did not have it are left out."""
        places: dict[str, int] = {}
        for ranking in self.rankings:
            for place, (chunk, _) in enumerate(ranking.chunks, 1):
                if chunk == chunk_id:
                    places[ranking.ranker] = min(place, places.get(ranking.ranker, place))
        return places

    def to_json(self, limit: int = 20) -> list[dict[str, Any]]:
        """The rankings, each with its first `limit` chunks."""
        return [
            {
                "ranker": ranking.ranker,
                "query": ranking.query,
                "found": len(ranking.chunks),
                "milliseconds": round(ranking.milliseconds, 3),
                "chunks": [{"chunk_id": chunk, "score": round(score, 6)} for chunk, score in ranking.chunks[:limit]],
            }
            for ranking in self.rankings
        ]

    def describe(self, limit: int = 10) -> str:
        """A table for a terminal: the kept chunks, and the place that each ranker gave them."""
        kept = self.rankings[-1].chunks[:limit] if self.rankings else ()
        rankers = list(dict.fromkeys(ranking.ranker for ranking in self.rankings))
        lines = [f"{'chunk':34}" + "".join(f"{ranker:>8}" for ranker in rankers)]
        for chunk, _ in kept:
            places = self.places(chunk)
            lines.append(f"{chunk:34}" + "".join(f"{places.get(ranker, '-'):>8}" for ranker in rankers))
        return "\n".join(lines)
