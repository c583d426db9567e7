"""`puna eval`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    """Multiple choice, which a model of random weights answers in a moment."""
    path = tmp_path / "sums.jsonl"
    rows = [
        {
            "question": f"What is {i} + {i}? Think of apples in two baskets on one table",
            "choices": [str(2 * i), "no"],
            "answer": 0,
        }
        for i in range(12)
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def test_it_prints_figures_and_keeps_samples(puna, checkpoint: Path, documents: Path, tmp_path: Path) -> None:
    samples = tmp_path / "samples.jsonl"
    options = ("--tasks", "3", "--max-tokens", "4", "-q")
    code, out, _ = puna("eval", checkpoint, documents, *options, "--json", "--samples", samples)
    assert code == 0
    result = json.loads(out)
    assert result["bits_per_byte"]["bytes"] == sum(path.stat().st_size for path in documents.iterdir())
    assert result["exact_match"]["count"] == len(samples.read_text().splitlines()) == 3
    code, out, _ = puna("eval", checkpoint, documents, *options)
    assert f"{result['bits_per_byte']['value']:.4f} bits a byte" in out


def test_no_questions_on_request(puna, checkpoint: Path, documents: Path) -> None:
    code, out, _ = puna("eval", checkpoint, documents, "--tasks", "0", "-q", "--json")
    assert code == 0
    assert "exact_match" not in json.loads(out)


def test_question_files_are_measured_kept_and_compared(puna, checkpoint: Path, questions: Path, tmp_path: Path) -> None:
    out = tmp_path / "first"
    code, text, _ = puna(
        "eval", checkpoint, "--task", questions, "--shots", "2", "--limit", "8", "--out", out, "-q", "--json"
    )
    assert code == 0
    scores = json.loads(text)["suites"]["sums"]["scores"]
    assert scores["acc"]["count"] == scores["acc_norm"]["count"] == 8
    rows = [json.loads(line) for line in (out / "samples-sums.jsonl").read_text().splitlines()]
    assert sum(row["scores"]["acc"] for row in rows) == 8 * scores["acc"]["value"]
    assert rows[0]["prompt"].count("Question:") == 3
    assert (out / "index.html").read_text().startswith("<!doctype html>")
    other = tmp_path / "second"
    options = ("--task", questions, "--shots", "2", "--limit", "8", "--out", other, "--against", out, "-q")
    code, text, _ = puna("eval", checkpoint, *options)
    assert code == 0 and "sums: acc " in text
    assert "+0.0%" in text and "p = 1 (McNemar, exact)" in text
    assert json.loads((other / "comparison.json").read_text())["suites"]["sums"]["acc"]["difference"] == 0


def test_the_questions_in_the_training_documents_are_named(
    puna, checkpoint: Path, questions: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "training"
    folder.mkdir()
    (folder / "a.txt").write_text(
        "Before. Question: what is 7 + 7? think of apples in two baskets on one table answer 14"
    )
    code, text, _ = puna("eval", checkpoint, "--task", questions, "--training", folder, "-q")
    assert code == 0
    assert "sums: 1 of 12 questions stand in the training documents (7)" in text


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ((), "nothing to measure on"),
        ((".", "--out", "x"), "--out is about questions of --task"),
        (("--task", "needle=long"), "has no length in bytes"),
        (("--task", "mmmlu=a.jsonl"), "Did you mean 'mmlu'"),
        (("--task", "a.txt"), "a.txt ends in '.txt'"),
        (("--task", "needle=1024", "--against", "nowhere"), "nowhere has no results"),
        (("--task", "needle=1024", "--shots", "-1"), "shots is -1"),
    ],
)
def test_what_cannot_be_measured_is_refused(puna, checkpoint: Path, tmp_path: Path, options: tuple, says: str) -> None:
    arguments = [str(tmp_path) if one == "x" else one for one in options]
    code, _, errors = puna("eval", checkpoint, *arguments, "-q")
    assert code != 0 and says in errors
