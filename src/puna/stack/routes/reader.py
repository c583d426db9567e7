"""Cited answers from the documents that a server was started with: every answer is a quotation with its place.

`stack.parts["reader"]` answers; a server without documents has none and says so with 404, so that a page can ask once
and chat plainly. Questions over uploaded files go through vector stores.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import JSONResponse

from puna.core.chat import Message
from puna.stack import spans
from puna.stack.context import stack_of
from puna.stack.errors import ApiError, invalid, not_found
from puna.stack.state.store import run
from puna.stack.wire.base import Wire

if TYPE_CHECKING:  # a server starts without numpy, which the reader computes with
    from puna.reader.reading import CitedAnswer

router = APIRouter(prefix="/v1alpha/reader", tags=["reader"])
_LONGEST = 4000  # characters of a question


class Documents(Protocol):
    """What answers from documents, and shows them. Both calls block."""

    def answer(self, question: str, history: Sequence[Message] = ()) -> CitedAnswer: ...

    def document(self, source: str) -> str | None:
        """The text of a document by its source; None where there is none."""
        ...


class Turn(Wire):
    role: str
    content: str = ""


class AnswerRequest(Wire):
    question: str = Field(min_length=1, max_length=_LONGEST)
    history: list[Turn] = Field(default_factory=list)


class Citation(Wire):
    source: str
    document_id: str
    start: int
    end: int
    text: str
    heading: str


class Answer(Wire):
    text: str
    citations: list[Citation]
    confidence: float


@router.post("/answer", response_model=None, responses={200: {"model": Answer}})
async def answer(request: Request, body: AnswerRequest) -> JSONResponse:
    """Answers a question with a quotation from the documents, or says that they do not hold the answer."""
    history = [_message(turn, place) for place, turn in enumerate(body.history)]
    what = {"gen_ai.operation.name": "retrieval", "gen_ai.data_source.id": "documents"}
    with spans.carried(spans.begin("retrieval documents", what)) as span:
        found = await run(_documents(request).answer, body.question, history)
        if span is not None:
            span.set({"puna.retrieval.passages": len(found.spans)})
    return JSONResponse(found.to_json())


@router.get("/document", response_model=None)
async def document(request: Request, source: str = "") -> JSONResponse:
    """The whole text of a document, into which citations point."""
    documents = _documents(request)
    if not source:
        raise invalid("Name a document: ?source=...", "source")
    text = await run(documents.document, source)
    if text is None:
        raise not_found("document", source, "source")
    return JSONResponse({"source": source, "text": text})


def _documents(request: Request) -> Documents:
    documents = stack_of(request).parts.get("reader")
    if documents is None:
        raise ApiError(
            404, "This server has no documents of its own; start it on a run of puna raise.", code="no_documents"
        )
    return documents


def _message(turn: Turn, place: int) -> Message:
    if turn.role == "user":
        return Message("user", turn.content)
    if turn.role == "assistant":
        return Message("assistant", turn.content)
    raise invalid(f"history.{place}.role is {turn.role!r}; it must be user or assistant.", f"history.{place}.role")
