"""The index of a run's passages."""

from __future__ import annotations

from pathlib import Path

from puna.data import corpus
from puna.knowledge.index import PassageIndex


def test_all_documents_are_indexed_and_found(finished_run: Path) -> None:
    index = PassageIndex(finished_run / "index" / "passages")
    for document in corpus.read(finished_run / "read" / "corpus"):
        if document.source.startswith("module_"):
            name = document.text.split("def ")[1].split("(")[0]
            best, _ = index.search(f"What does {name} do?", 1)[0]
            assert best.source == document.source
            assert document.text[best.start : best.end] == best.text
            assert name in best.text
