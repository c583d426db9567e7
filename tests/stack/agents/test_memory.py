"""What an agent is given to read."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from puna.stack.agents.memory import GROUP, recall
from puna.stack.errors import ApiError
from puna.stack.testing import make_stack


class Stores:
    """Vector stores that find one passage, and note what they were asked."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    async def search(self, *args: Any) -> list[dict[str, Any]]:
        self.asked.append(args)
        return [{"file_id": "f", "filename": "a.txt", "score": 1.0, "text": "Llamas hum."}]


def recalled(folder: Path, documents: list, groups: list, stores: Stores | None = None) -> Any:
    stack = make_stack(folder)
    if stores:
        stack.parts["vector_stores"] = stores
    return asyncio.run(recall(stack, "me", "what?", documents, groups))


def test_nothing_given_is_nothing_read(tmp_path: Path) -> None:
    assert recalled(tmp_path, [], ["builtin::rag"]) is None


def test_documents_and_passages(tmp_path: Path) -> None:
    stores = Stores()
    documents = [
        {"content": "one", "mime_type": "text/plain"},
        {"content": {"uri": "data:text/plain;base64,dHdv"}, "mime_type": "text/plain"},
        {"content": {"uri": "data:,thr%65e"}, "mime_type": "text/plain"},
    ]
    found = recalled(tmp_path, documents, [{"name": GROUP, "args": {"vector_store_ids": ["v", "w"]}}], stores)
    assert found.text == "Document 1:\none\n\nDocument 2:\ntwo\n\nDocument 3:\nthree\n\nFrom a.txt:\nLlamas hum."
    assert found.stores == "v, w"
    assert stores.asked == [("me", ["v", "w"], ["what?"], 5, None)]


def test_long_documents_are_cut_and_say_so(tmp_path: Path) -> None:
    found = recalled(tmp_path, [{"content": "x" * 50_000, "mime_type": "text/plain"}, {"content": "y"}], [])
    assert len(found.text) < 16_100
    assert "[cut]" in found.text
    assert found.text.endswith("y")


@pytest.mark.parametrize(
    ("document", "group", "status"),
    [
        ({"content": {"uri": "https://example.org"}, "mime_type": "text/html"}, "x", 501),
        ({"content": "x", "mime_type": "application/pdf"}, "x", 400),
        ({"content": {"uri": "data:text/plain;base64,%%%"}, "mime_type": "text/plain"}, "x", 400),
        (None, {"name": GROUP, "args": {}}, 400),
        (None, {"name": GROUP, "args": {"vector_db_ids": ["v"]}}, 400),
    ],
)
def test_what_cannot_be_read_is_refused(tmp_path: Path, document: Any, group: Any, status: int) -> None:
    with pytest.raises(ApiError) as refused:
        recalled(tmp_path, [document] if document else [], [group])
    assert refused.value.status == status
