"""`puna data`."""

from __future__ import annotations

import json
from pathlib import Path

from puna.data import corpus


def test_read_reports_and_keeps(puna, documents: Path, tmp_path: Path) -> None:
    (documents / "copy.py").write_text((documents / "up.py").read_text())
    code, out, _ = puna("data", "read", documents, "--out", tmp_path / "corpus", "-q")
    assert code == 0
    assert "Read 7 files" in out
    assert "duplicates dropped: 1" in out
    assert len(corpus.read(tmp_path / "corpus")) == 6


def test_questions_quote_their_documents(puna, documents: Path, tmp_path: Path) -> None:
    code, out, err = puna("data", "questions", documents, tmp_path / "made.jsonl", "-q")
    assert code == 0, err
    rows = [json.loads(line) for line in (tmp_path / "made.jsonl").read_text().splitlines()]
    assert rows
    assert f"{len(rows):,} conversations" in out
    assert any("Walk to the" in row["messages"][-1]["content"] for row in rows)
