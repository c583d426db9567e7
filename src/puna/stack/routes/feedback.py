"""/v1alpha/feedback: what users think of answers, kept with their consent as data for preference training.

Its export is the file that preference training reads: one JSON object a line, {"prompt", "chosen", "rejected"}, each a
list of messages.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Mapping
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from puna.base.errors import PunaError
from puna.core.chat import Message
from puna.stack.context import caller_of, new_id, stack_of
from puna.stack.errors import ApiError, invalid, not_found
from puna.stack.state.store import Record, Store, run
from puna.stack.wire.base import listed
from puna.stack.wire.feedback import FeedbackRequest, MessageJson, Pair

router = APIRouter(prefix="/v1alpha/feedback", tags=["feedback"])
KIND = "feedback"
_PAGE = 100


@router.post("", response_model=None)
async def create_feedback(request: Request, body: FeedbackRequest) -> JSONResponse:
    if not body.consent:
        raise ApiError(403, "Nothing is kept without consent: true.", param="consent", code="consent_required")
    data: dict[str, Any] = {"kind": body.kind, "prompt": [_message(one, "prompt") for one in body.prompt]}
    if isinstance(body, Pair):
        chosen, rejected = _answer(body.chosen, "chosen"), _answer(body.rejected, "rejected")
        if chosen == rejected:
            raise invalid("The chosen and the rejected answer are the same.", "rejected")
        data |= {"chosen": chosen, "rejected": rejected, "source": body.source}
    else:
        data |= {"answer": _answer(body.answer, "answer"), "rating": body.rating}
    data |= {"model": body.model, "conversation": body.conversation}
    stack, owner = stack_of(request), caller_of(request).owner
    record = await run(stack.store.put, KIND, new_id("fb"), data, owner=owner, created=time.time())
    return JSONResponse(_shown(record))


def _message(data: MessageJson, param: str) -> MessageJson:
    """A message as it is kept: read once, so that a kept file has no message that training could not read."""
    try:
        return Message.from_json(data).to_json()
    except (PunaError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise invalid(f"This is no message: {error}.", param) from error


def _answer(data: MessageJson, param: str) -> MessageJson:
    message = _message(data, param)
    if message["role"] != "assistant":
        raise invalid(f"An answer is the assistant's, and this is the {message['role']}'s.", param)
    return message


def _shown(record: Record) -> dict[str, Any]:
    return {"id": record.id, "object": "feedback", "created_at": int(record.created), **record.data}


@router.get("", response_model=None)
async def list_feedback(
    request: Request,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=_PAGE)] = 20,
    order: Literal["asc", "desc"] = "desc",
) -> JSONResponse:
    stack, owner = stack_of(request), caller_of(request).owner
    page = await run(stack.store.list, KIND, owner, after=after, limit=limit, order=order)
    return JSONResponse(listed([_shown(record) for record in page.records], page.has_more))


@router.get("/export", response_model=None)
async def export_pairs(request: Request) -> Response:
    """All pairs, oldest first, as lines of JSON."""
    lines = _lines(stack_of(request).store, caller_of(request).owner)
    headers = {"Content-Disposition": 'attachment; filename="preferences.jsonl"'}
    return StreamingResponse(lines, media_type="application/x-ndjson", headers=headers)


async def _lines(store: Store, owner: str) -> AsyncIterator[str]:
    after: str | None = None
    while True:
        page = await run(store.list, KIND, owner, after=after, limit=_PAGE, order="asc")
        for record in page.records:
            if record.data["kind"] == "pair":
                yield json.dumps(_line(record.data), ensure_ascii=False) + "\n"
        if not page.has_more:
            return
        after = page.records[-1].id


def _line(data: Mapping[str, Any]) -> dict[str, Any]:
    return {"prompt": data["prompt"], "chosen": [data["chosen"]], "rejected": [data["rejected"]]}


@router.delete("/{id}", response_model=None)
async def delete_feedback(request: Request, id: str) -> JSONResponse:
    if not await run(stack_of(request).store.delete, KIND, id, caller_of(request).owner):
        raise not_found("feedback", id)
    return JSONResponse({"id": id, "object": "feedback.deleted", "deleted": True})
