"""Whether the documents hold what was asked for, so that "not in the documents" can be said before a model is asked.

The measure is how well the best passage fits: the reranker's score where there is one, else the share of the
question's words, by their rarity, that one passage holds. It is low where the thing that is asked about is named
nowhere. It says nothing of a question whose subject is there and whose answer is not: that is left to the reader of
the passages, who has a sentence for it (`grounding.NOT_IN_TEXT`).
"""

from __future__ import annotations

from collections.abc import Sequence

from puna.knowledge.search import Hit

THRESHOLD = 0.4  # tells best on questions about Python's library, see benchmarks/retrieval.py


def strength(hits: Sequence[Hit]) -> float:
    """How well the best hit fits, in 0..1; 0 without hits."""
    for ranker in ("rerank", "bm25", "vector"):
        scores = [hit.scores[ranker] for hit in hits if ranker in hit.scores]
        if scores:
            return max(scores)
    return 0.0


def supported(hits: Sequence[Hit], threshold: float = THRESHOLD) -> list[Hit]:
    """The hits, or none of them where even the best does not fit: then the answer is `grounding.NOT_IN_TEXT`."""
    return list(hits) if strength(hits) >= threshold else []


def calibrate(answered: Sequence[float], unanswered: Sequence[float]) -> float:
    """The threshold that tells questions of the two kinds apart best, each kind counted alike.

    Args:
        answered: strengths of questions whose answers are in the documents.
        unanswered: strengths of questions whose answers are not.
    """
    best, threshold = -1.0, THRESHOLD
    for candidate in sorted({*answered, *unanswered}):
        right = sum(one >= candidate for one in answered) / max(len(answered), 1)
        right += sum(one < candidate for one in unanswered) / max(len(unanswered), 1)
        if right > best:
            best, threshold = right, candidate
    return threshold


def separation(answered: Sequence[float], unanswered: Sequence[float]) -> float:
    """How often a question with an answer is stronger than one without (the area under the ROC curve)."""
    pairs = len(answered) * len(unanswered)
    wins = sum((one > other) + (one == other) / 2 for one in answered for other in unanswered)
    return wins / pairs if pairs else 0.5
