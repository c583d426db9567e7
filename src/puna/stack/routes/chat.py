"""Chat completions: answers whole or as a stream, and those that were kept with `store: true`.

A kept answer is written before its last piece is sent, so that a client that has seen the end can fetch it.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import Any, Literal

from fastapi import APIRouter, Query, Request
from starlette.responses import JSONResponse, Response

from puna.core.completion import Done, TextDelta, ToolCallDelta
from puna.stack.context import Caller, Stack, caller_of, new_id, stack_of
from puna.stack.conversion import (
    choice_of,
    constraint_of,
    messages_of,
    params_of,
    plain_json,
    settled,
    structured_of,
    tools_of,
    whole,
)
from puna.stack.errors import invalid, not_found
from puna.stack.providers.provider import Ask, Provider
from puna.stack.routes.models import find
from puna.stack.sse import EventStream, connected, ending, told
from puna.stack.state.store import Record, run
from puna.stack.wire.base import listed
from puna.stack.wire.chat import ChatRequest, ChunkWriter, Frame, MetadataUpdate, chat_completion, frame_of

router = APIRouter(tags=["chat"])
KIND = "chat_completion"
_PAGE = 100  # records that a filtered list reads at a time


@router.post("/v1/openai/v1/chat/completions", response_model=None, include_in_schema=False)
@router.post("/v1/chat/completions", response_model=None)
async def create(request: Request, body: ChatRequest) -> Response:
    stack, caller = stack_of(request), caller_of(request)
    provider, info = await find(stack, body.model)
    ask = ask_of(body, info.id, caller, provider)
    frame = frame_of(new_id("chatcmpl"), time.time(), provider, info)
    parallel = body.parallel_tool_calls is not False
    if body.stream:
        pieces = _pieces(stack, caller, provider, ask, frame, body)
        return EventStream(pieces, told, ending(request.url.path))
    if body.stream_options is not None:
        raise invalid("stream_options is of use with stream: true alone.", "stream_options")
    async with connected(request.receive):
        completion = await whole(settled(provider.stream(ask), parallel))
    answer = chat_completion(frame, completion)
    if body.store:
        await run(_keep, stack, caller, body, answer)
        answer["metadata"] = plain_json(body.metadata or {})
    return JSONResponse(answer)


def ask_of(body: ChatRequest, model: str, caller: Caller, provider: Provider) -> Ask:
    """A body as what a provider is asked.

    Raises:
        ApiError: 400, for what cannot be done, with the field's name.
    """
    if body.functions:
        raise invalid("`functions` was replaced by `tools` in 2023.", "functions", "unsupported_parameter")
    if body.response_format and body.structured_outputs:
        raise invalid("An answer has one form: response_format or structured_outputs.", "structured_outputs")
    messages = messages_of(body.messages)
    choice, tools = choice_of(body.tool_choice, tools_of(body.tools))
    constraint = constraint_of(body.response_format) or structured_of(body.structured_outputs)
    params = params_of(body.sampling(), constraint, choice)
    key = caller.provider_keys.get(provider.id, "")
    routing = {**(body.provider or {}), "keys": dict(caller.provider_keys)} if provider.type == "inline::router" else {}
    return Ask(model, messages, params, tools, owner=caller.owner, key=key, routing=routing)


async def _pieces(
    stack: Stack, caller: Caller, provider: Provider, ask: Ask, frame: Frame, body: ChatRequest
) -> AsyncGenerator[bytes, None]:
    writer = ChunkWriter(frame, bool(body.stream_options and body.stream_options.include_usage))
    events = settled(provider.stream(ask), body.parallel_tool_calls is not False)
    started = False
    async with aclosing(events) as stream:
        async for event in stream:
            if not started:  # not before the first event: until then a failure has a status
                started = True
                yield writer.start()
            match event:
                case TextDelta(text):
                    yield writer.text(text)
                case ToolCallDelta(call):
                    yield writer.call(call)
                case Done(completion):
                    if body.store:
                        await run(_keep, stack, caller, body, chat_completion(frame, completion))
                    yield writer.end(completion)


# Kept answers ---------------------------------------------------------------------------------------------------------


def _keep(stack: Stack, caller: Caller, body: ChatRequest, answer: Mapping[str, Any]) -> None:
    given, metadata = plain_json(body.messages), plain_json(body.metadata or {})
    messages = [{"id": f"{answer['id']}-{i}", **message} for i, message in enumerate(given)]
    data = {"completion": answer, "messages": messages, "metadata": metadata}
    stack.store.insert(KIND, answer["id"], data, owner=caller.owner)


def _shown(record: Record) -> dict[str, Any]:
    data = record.data
    return {**data["completion"], "metadata": data["metadata"], "input_messages": data["messages"]}


@router.get("/v1/chat/completions", response_model=None)
async def list_kept(
    request: Request,
    after: str | None = None,
    limit: int = Query(20, ge=1, le=100),
    model: str | None = None,
    order: Literal["asc", "desc"] = "asc",
) -> JSONResponse:
    """Answers kept with `store: true`; `metadata[key]=value` in the query picks those that bear it."""
    wanted = {
        name[9:-1]: value
        for name, value in request.query_params.items()
        if name.startswith("metadata[") and name.endswith("]")
    }

    def fits(record: Record) -> bool:
        mine = record.data["metadata"]
        its = record.data["completion"]["model"]
        same_model = model is None or its == model or its.endswith(f"/{model}")
        return same_model and all(mine.get(key) == value for key, value in wanted.items())

    stack, caller = stack_of(request), caller_of(request)
    found = await run(_matching, stack, caller.owner, after, limit + 1, order, fits)
    return JSONResponse(listed([_shown(record) for record in found[:limit]], len(found) > limit))


def _matching(
    stack: Stack,
    owner: str,
    after: str | None,
    count: int,
    order: Literal["asc", "desc"],
    fits: Callable[[Record], bool],
) -> list[Record]:
    found: list[Record] = []
    while len(found) < count:
        page = stack.store.list(KIND, owner, after=after, limit=_PAGE, order=order)
        found += [record for record in page.records if fits(record)]
        if not page.has_more:
            break
        after = page.records[-1].id
    return found[:count]


async def _kept(request: Request, id: str) -> Record:
    record = await run(stack_of(request).store.get, KIND, id, caller_of(request).owner)
    if record is None:
        raise not_found("chat completion", id, "completion_id")
    return record


@router.get("/v1/chat/completions/{id}", response_model=None)
async def get_kept(request: Request, id: str) -> JSONResponse:
    return JSONResponse(_shown(await _kept(request, id)))


@router.post("/v1/chat/completions/{id}", response_model=None)
async def update_kept(request: Request, id: str, body: MetadataUpdate) -> JSONResponse:
    record = await _kept(request, id)
    data = {**record.data, "metadata": plain_json(body.metadata or {})}
    return JSONResponse(_shown(await run(stack_of(request).store.put, KIND, id, data, owner=record.owner)))


@router.get("/v1/chat/completions/{id}/messages", response_model=None)
async def list_messages(
    request: Request,
    id: str,
    after: str | None = None,
    limit: int = Query(20, ge=1, le=100),
    order: Literal["asc", "desc"] = "asc",
) -> JSONResponse:
    """The messages that a kept answer answers."""
    messages = list((await _kept(request, id)).data["messages"])
    if order == "desc":
        messages.reverse()
    if after is not None:
        place = next((i for i, message in enumerate(messages) if message["id"] == after), None)
        if place is None:
            raise not_found("message", after, "after")
        messages = messages[place + 1 :]
    return JSONResponse(listed(messages[:limit], len(messages) > limit))


@router.delete("/v1/chat/completions/{id}", response_model=None)
async def delete_kept(request: Request, id: str) -> JSONResponse:
    await _kept(request, id)
    await run(stack_of(request).store.delete, KIND, id, caller_of(request).owner)
    return JSONResponse({"object": "chat.completion.deleted", "id": id, "deleted": True})
