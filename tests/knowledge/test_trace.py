"""The trace: where each ranker put a chunk."""

from __future__ import annotations

import json

from puna.knowledge.trace import Ranking, Trace


def trace() -> Trace:
    return Trace(
        [
            Ranking("bm25", "q1", [("a", 0.9), ("b", 0.5)], 1.0),
            Ranking("bm25", "q2", [("b", 0.8)], 1.0),
            Ranking("vector", "q1", [("c", 0.7), ("a", 0.6)], 2.0),
            Ranking("kept", "", [("a", 1.0), ("c", 0.4)], 0.0),
        ]
    )


def test_the_best_place_by_ranker():
    assert trace().places("a") == {"bm25": 1, "vector": 2, "kept": 1}
    assert trace().places("b") == {"bm25": 1}
    assert trace().places("nobody") == {}


def test_it_can_be_written_down_and_says_how_many_were_found():
    rows = json.loads(json.dumps(trace().to_json(limit=1)))
    assert [row["found"] for row in rows] == [2, 1, 2, 2]
    assert rows[0]["chunks"] == [{"chunk_id": "a", "score": 0.9}]


def test_a_table_of_the_kept_chunks():
    lines = trace().describe().splitlines()
    assert lines[0].split() == ["chunk", "bm25", "vector", "kept"]
    assert [line.split() for line in lines[1:]] == [["a", "1", "2", "1"], ["c", "-", "1", "2"]]
    assert len(Trace().describe().splitlines()) == 1
