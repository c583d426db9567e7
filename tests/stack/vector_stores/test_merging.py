"""Passages of several stores in one order."""

from __future__ import annotations

from puna.knowledge.library import Hit
from puna.stack.vector_stores.merging import merge


def hit(id: str, score: float, **scores: float) -> Hit:
    return Hit(id, id, f"{id}.txt", "text", 0, 4, "", score, scores)


def test_one_store_keeps_its_order_and_scores() -> None:
    found = [hit("a", 1.0, bm25=0.2), hit("b", 0.5, bm25=0.9)]
    assert merge([found, []], fused=True) == found


def test_fused_rankings_are_fused_anew() -> None:
    first = [hit("a", 1.0, bm25=0.2, vector=0.3), hit("b", 0.9, vector=0.2)]
    second = [hit("c", 1.0, bm25=0.9, vector=0.8)]
    merged = merge([first, second], fused=True)
    assert [one.document_id for one in merged] == ["c", "a", "b"]
    assert merged[0].score == 1.0
    assert merged[1].score > merged[2].score > 0


def test_plain_scores_are_compared_as_they_are() -> None:
    merged = merge([[hit("a", 0.4, vector=0.4)], [hit("b", 0.6, vector=0.6)]], fused=False)
    assert [one.score for one in merged] == [0.6, 0.4]


def test_nothing_found_is_nothing() -> None:
    assert merge([], fused=True) == merge([[], []], fused=True) == []
