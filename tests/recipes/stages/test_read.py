"""The reading stage."""

from __future__ import annotations

import os
from pathlib import Path

from puna.data import corpus
from puna.recipes.stages.read import source_hash


def test_the_hash_follows_names_sizes_and_times(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    before = source_hash(tmp_path)
    assert source_hash(tmp_path) == before
    os.utime(tmp_path / "a.txt", (1, 1))
    touched = source_hash(tmp_path)
    assert touched != before
    (tmp_path / "a.txt").rename(tmp_path / "b.txt")
    renamed = source_hash(tmp_path)
    assert renamed not in (before, touched)
    assert list(source_hash(tmp_path / "b.txt")) == [str(tmp_path / "b.txt")]


def test_exact_copies_are_dropped_and_counted(finished_run: Path, documents: Path, tiny, tmp_path: Path) -> None:
    import json
    import shutil

    from puna.base.config import override
    from puna.base.progress import Silent
    from puna.recipes.raising import raise_model

    shutil.copytree(documents, tmp_path / "documents")
    shutil.copy(documents / "guide.md", tmp_path / "documents" / "copy.md")
    config = override(tiny, [f"documents={tmp_path / 'documents'}"])
    records = raise_model(config, tmp_path / "run", Silent(), until="read")
    whole = json.loads((finished_run / "read" / "card.json").read_text())["metrics"]
    assert records["read"].metrics["duplicates"] == 1
    assert records["read"].metrics["documents"] == whole["documents"]
    assert len(corpus.read(tmp_path / "run" / "read" / "corpus")) == whole["documents"]
