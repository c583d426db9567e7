"""/v1/conversations: items that are kept in order, to which responses add what was asked and answered."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from starlette.responses import JSONResponse, Response

from puna.stack.context import Stack, caller_of, new_id, stack_of
from puna.stack.errors import invalid, not_found
from puna.stack.responses import records
from puna.stack.responses.attachments import read_attachments
from puna.stack.responses.items import Item, public, read_items
from puna.stack.state.store import Record, run
from puna.stack.wire.base import listed
from puna.stack.wire.conversations import AddItems, CreateConversation, UpdateConversation

router = APIRouter(tags=["Conversations"])


def _object(record: Record) -> dict[str, Any]:
    return {
        "id": record.id,
        "object": "conversation",
        "created_at": int(record.created),
        "metadata": record.data["metadata"],
    }


def _include(request: Request) -> tuple[str, ...]:
    query = request.query_params
    return (*query.getlist("include"), *query.getlist("include[]"))


def _load(stack: Stack, owner: str, id: str) -> Record:
    record = stack.store.get(records.CONVERSATION, id, owner)
    if record is None:
        raise not_found("conversation", id, "conversation_id")
    return record


async def _read(stack: Stack, owner: str, given: list[dict[str, Any]]) -> list[Item]:
    items = read_items(given, "items")
    await read_attachments(stack, owner, items)
    return items


def _add(stack: Stack, owner: str, id: str, items: list[Item]) -> list[Item]:
    """Adds all, or none where one has an id that the conversation has already; one that is elsewhere is copied."""
    found = records.resolved(stack.store, owner, items, id, "items")
    found = [records.find(stack.store, owner, item["id"]) or item for item in found]
    for i, item in enumerate(found):
        if not records.add_item(stack.store, owner, id, item):
            raise invalid(f"Item already in conversation: {item['id']!r}.", f"items.{i}.id", "duplicate_id")
    return found


@router.get("/v1/conversations", response_model=None)
async def list_conversations(
    request: Request,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    order: Literal["asc", "desc"] = "desc",
) -> Response:
    """An owner's conversations. OpenAI's API has no such list; the chat page and `puna chat --server` need it."""
    stack, owner = stack_of(request), caller_of(request).owner
    found = await run(stack.store.list, records.CONVERSATION, owner, after=after, limit=limit, order=order)
    return JSONResponse(listed([_object(record) for record in found.records], found.has_more))


@router.post("/v1/conversations", response_model=None)
async def create_conversation(request: Request, body: CreateConversation | None = None) -> Response:
    """A conversation, with its first items."""
    stack, owner = stack_of(request), caller_of(request).owner
    body = body or CreateConversation()
    items = await _read(stack, owner, body.items or [])
    id = new_id("conv")

    def write() -> Record:
        with stack.store.transaction():
            record = stack.store.put(records.CONVERSATION, id, {"metadata": body.metadata or {}}, owner=owner)
            _add(stack, owner, id, items)
            return record

    return JSONResponse(_object(await run(write)))


@router.get("/v1/conversations/{conversation_id}", response_model=None)
async def get_conversation(request: Request, conversation_id: str) -> Response:
    return JSONResponse(_object(await run(_load, stack_of(request), caller_of(request).owner, conversation_id)))


@router.post("/v1/conversations/{conversation_id}", response_model=None)
async def update_conversation(request: Request, conversation_id: str, body: UpdateConversation) -> Response:
    """Sets the metadata."""
    stack, owner = stack_of(request), caller_of(request).owner

    def write() -> Record:
        with stack.store.transaction():
            _load(stack, owner, conversation_id)
            data = {"metadata": body.metadata or {}}
            return stack.store.put(records.CONVERSATION, conversation_id, data, owner=owner)

    return JSONResponse(_object(await run(write)))


@router.delete("/v1/conversations/{conversation_id}", response_model=None)
async def delete_conversation(request: Request, conversation_id: str) -> Response:
    """Deletes a conversation with its items."""
    stack, owner = stack_of(request), caller_of(request).owner

    def write() -> None:
        with stack.store.transaction():
            _load(stack, owner, conversation_id)
            records.delete_conversation(stack.store, owner, conversation_id)

    await run(write)
    return JSONResponse({"id": conversation_id, "object": "conversation.deleted", "deleted": True})


@router.post("/v1/conversations/{conversation_id}/items", response_model=None)
async def add_items(request: Request, conversation_id: str, body: AddItems) -> Response:
    """Puts items at the end: all of them or none."""
    stack, owner = stack_of(request), caller_of(request).owner
    items = await _read(stack, owner, body.items)

    def write() -> list[Item]:
        with stack.store.transaction():
            _load(stack, owner, conversation_id)
            return _add(stack, owner, conversation_id, items)

    include = _include(request)
    return JSONResponse(listed([public(item, include) for item in await run(write)]))


@router.get("/v1/conversations/{conversation_id}/items", response_model=None)
async def list_items(
    request: Request,
    conversation_id: str,
    after: str | None = None,
    before: str | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    order: Literal["asc", "desc"] = "desc",
) -> Response:
    stack, owner, include = stack_of(request), caller_of(request).owner, _include(request)

    def read() -> dict[str, Any]:
        _load(stack, owner, conversation_id)
        marks: dict[str, str] = {}
        for name, id in (("after", after), ("before", before)):
            if id is not None:
                _item(stack, owner, conversation_id, id, name)
                marks[name] = records.item_key(conversation_id, id)
        found = stack.store.list(
            records.CONVERSATION_ITEM, owner, parent=conversation_id, limit=limit, order=order, **marks
        )
        return listed([public(dict(record.data), include) for record in found.records], found.has_more)

    return JSONResponse(await run(read))


def _item(stack: Stack, owner: str, conversation: str, id: str, param: str = "item_id") -> Item:
    record = stack.store.get(records.CONVERSATION_ITEM, records.item_key(conversation, id), owner)
    if record is None:
        raise not_found("item", id, param)
    return dict(record.data)


@router.get("/v1/conversations/{conversation_id}/items/{item_id}", response_model=None)
async def get_item(request: Request, conversation_id: str, item_id: str) -> Response:
    item = await run(_item, stack_of(request), caller_of(request).owner, conversation_id, item_id)
    return JSONResponse(public(item, _include(request)))


@router.delete("/v1/conversations/{conversation_id}/items/{item_id}", response_model=None)
async def delete_item(request: Request, conversation_id: str, item_id: str) -> Response:
    """Deletes an item; answers with the conversation."""
    stack, owner = stack_of(request), caller_of(request).owner

    def write() -> Record:
        with stack.store.transaction():
            _item(stack, owner, conversation_id, item_id)
            records.delete_item(stack.store, owner, conversation_id, item_id)
            return _load(stack, owner, conversation_id)

    return JSONResponse(_object(await run(write)))
