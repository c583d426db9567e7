from __future__ import annotations

import json
from pathlib import Path

import pytest

from puna.base.errors import ConfigError
from puna.core.document import Document
from puna.core.verdict import Task
from puna.evals.contamination import contamination, ngrams
from puna.evals.formats import read_suite

GSM8K = Path(__file__).parents[3] / "shared" / "data" / "gsm8k" / "train.jsonl"
SHAKESPEARE = Path(__file__).parents[3] / "shared" / "data" / "tinyshakespeare" / "input.txt"


def test_ngrams_are_of_lower_case_words_without_punctuation() -> None:
    assert list(ngrams("One, two\nTHREE-four", 3)) == ["one two three", "two three four"]
    assert list(ngrams("one two", 3)) == []


def test_the_overlap_is_the_share_of_a_questions_ngrams() -> None:
    tasks = [Task("a", "one two three four five", "six"), Task("b", "seven", ""), Task("c", "ten nine eight", "x")]
    documents = [Document("x one two three four.", id="d1"), Document("ONE two, three", id="d2")]
    report = contamination(tasks, documents, words=3)
    assert [row.overlap for row in report.rows] == [0.5, None, 0.0]
    assert report.rows[0].documents == ("d1", "d2")
    assert json.loads(json.dumps(report.to_json())) == {
        "questions": 3, "too_short": 1, "contaminated": 1, "words": 3, "threshold": 0.5,
        "found": [{"id": "a", "overlap": 0.5, "documents": ["d1", "d2"]}],
    }  # fmt: skip


@pytest.mark.skipif(not GSM8K.exists() or not SHAKESPEARE.exists(), reason="shared/data is not there")
def test_questions_that_are_planted_in_a_real_text_are_found_and_no_others() -> None:
    tasks = read_suite(GSM8K).tasks[:500]
    text = SHAKESPEARE.read_text(encoding="utf-8")
    planted = {tasks[i].id for i in (3, 77, 400)}
    parts = [text[i : i + 50_000] for i in range(0, len(text), 50_000)]
    for place, id in zip((2, 5, 9), sorted(planted), strict=True):
        task = next(task for task in tasks if task.id == id)
        # Another case, other line ends: it is still the question.
        parts[place] += " " + task.prompt.upper().replace(" ", "\n") + " " + task.answer + " "
    documents = [Document(part, id=f"part {i}") for i, part in enumerate(parts)]
    report = contamination(tasks, documents)
    assert {row.task.id for row in report.contaminated} == planted
    assert all(row.overlap and row.overlap > 0.95 and len(row.documents) == 1 for row in report.contaminated)
    assert max(row.overlap or 0.0 for row in report.rows if row.task.id not in planted) == 0.0


def test_faulty_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        contamination([], [], words=0)
    with pytest.raises(ConfigError, match="above 0 and at most 1"):
        contamination([], [], threshold=0.0)
