"""Cited answers over the API."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import httpx

from puna.core.chat import Message
from puna.core.document import Span
from puna.knowledge.chunk import Passage
from puna.reader.reading import CitedAnswer
from puna.stack.testing import make_stack, talk

TEXT = "The grass is high. Llamas like it."
PASSAGE = Passage(text=TEXT, document_id="d1", source="puna.md", start=0, end=len(TEXT), heading="Grass")


class Scripted:
    """One document and one answer."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Sequence[Message]]] = []

    def answer(self, question: str, history: Sequence[Message] = ()) -> CitedAnswer:
        self.asked.append((question, list(history)))
        return CitedAnswer(TEXT[19:], (Span("d1", 19, len(TEXT)),), (PASSAGE,), 0.75)

    def document(self, source: str) -> str | None:
        return TEXT if source == "puna.md" else None


def ask(folder: Path, reader: Any, work: Callable[[httpx.AsyncClient], Awaitable[None]]) -> None:
    stack = make_stack(folder)
    if reader is not None:
        stack.parts["reader"] = reader
    talk(stack, work)


def test_an_answer_comes_with_the_place_that_it_quotes(tmp_path: Path) -> None:
    reader = Scripted()

    async def work(client: httpx.AsyncClient) -> None:
        body = {"question": "Who likes it?", "history": [{"role": "user", "content": "What is high?"}]}
        found = (await client.post("/v1alpha/reader/answer", json=body)).json()
        (citation,) = found["citations"]
        assert found["text"] == citation["text"] == "Llamas like it."
        text = (await client.get("/v1alpha/reader/document", params={"source": citation["source"]})).json()["text"]
        assert text[citation["start"] : citation["end"]] == citation["text"]
        assert found["confidence"] == 0.75

    ask(tmp_path, reader, work)
    assert reader.asked == [("Who likes it?", [Message("user", "What is high?")])]


def test_what_cannot_be_answered_is_refused(tmp_path: Path) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        url = "/v1alpha/reader/answer"
        assert (await client.post(url, json={"question": ""})).status_code == 400
        assert (await client.post(url, json={"question": "x" * 4001})).status_code == 400
        refused = await client.post(url, json={"question": "x", "history": [{"role": "tool"}]})
        assert refused.json()["error"]["param"] == "history.0.role"
        assert (await client.get("/v1alpha/reader/document")).json()["error"]["param"] == "source"
        gone = await client.get("/v1alpha/reader/document", params={"source": "../secret"})
        assert gone.status_code == 404

    ask(tmp_path, Scripted(), work)


def test_a_server_without_documents_says_so(tmp_path: Path) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        refused = await client.post("/v1alpha/reader/answer", json={"question": "Who?"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (404, "no_documents")

    ask(tmp_path, None, work)
