"""A run's documents as a server shows them."""

from __future__ import annotations

from pathlib import Path

from puna.core.document import Document
from puna.data import corpus
from puna.knowledge.grounding import NOT_IN_TEXT
from puna.reader.reading import Reader
from puna.recipes.documents import RunDocuments
from puna.testing import ScriptedChatModel


def test_texts_of_both_parts_are_found_by_source_and_nothing_else(tmp_path: Path) -> None:
    for part, name in (("train", "a.md"), ("held_out", "b/c.md")):
        corpus.write(tmp_path / "split" / part, [Document(f"text of {name}", name, name)])
    documents = RunDocuments(tmp_path, Reader(ScriptedChatModel(["?"]), lambda question: []))
    assert documents.document("a.md") == "text of a.md"
    assert documents.document("b/c.md") == "text of b/c.md"
    assert documents.document("../a.md") is None
    assert documents.answer("Where?").text == NOT_IN_TEXT


def test_a_run_that_cannot_answer_has_no_documents(tmp_path: Path) -> None:
    assert RunDocuments.of(tmp_path) is None
