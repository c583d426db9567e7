"""What is kept of responses and conversations, and how it is read again.

A response is one record: the object, the items that the client sent with it, and what came before. Beside it stands one
small record for each of its items, by which a client can refer to an item alone. A conversation's items are records of
their own under the conversation's id, since they are listed, added and deleted one by one. What belongs to one response
is written in one transaction. All functions here block.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from puna.stack.errors import ApiError, invalid, not_found
from puna.stack.responses.items import Item, item_id
from puna.stack.state.store import Record, Store, every

RESPONSE, RESPONSE_ITEM = "response", "response_item"
CONVERSATION, CONVERSATION_ITEM = "conversation", "conversation_item"
ITEM_PLACE = "conversation_item_place"  # an item's id -> a conversation that has it


@dataclass(frozen=True, slots=True)
class Kept:
    """A response as it is kept.

    Attributes:
        response: the object, its output as the server knows it.
        input: the items that came with the request.
        conversation: that it belongs to; "" for none.
        upto: the place of the last of the conversation's items that it was an answer to.
        include: what the client wanted to see of items.
    """

    response: dict[str, Any]
    input: list[Item] = field(default_factory=list)
    conversation: str = ""
    upto: int = 0
    include: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        return self.response["id"]

    def data(self) -> dict[str, Any]:
        return {
            "response": self.response,
            "input": self.input,
            "conversation": self.conversation,
            "upto": self.upto,
            "include": list(self.include),
        }


def kept_of(record: Record) -> Kept:
    data = record.data
    return Kept(data["response"], data["input"], data["conversation"], data["upto"], tuple(data["include"]))


def load(store: Store, owner: str, id: str, param: str | None = None) -> Kept:
    """A response.

    Raises:
        ApiError: 404 where the owner has none of this id.
    """
    record = store.get(RESPONSE, id, owner)
    if record is None:
        raise not_found("response", id, param)
    return kept_of(record)


def save(store: Store, owner: str, kept: Kept) -> None:
    """Writes a response as it is now; the first time too."""
    store.put(RESPONSE, kept.id, kept.data(), owner=owner, created=float(kept.response["created_at"]))


def finish(store: Store, owner: str, kept: Kept, whole: bool) -> None:
    """Writes a response at its end, with its items, and where it is `whole` its part of the conversation."""
    if kept.response["store"]:
        save(store, owner, kept)
        for item in kept.response["output"]:
            store.insert(RESPONSE_ITEM, item["id"], {}, owner=owner, parent=kept.id)
    # A conversation that was deleted meanwhile stays so.
    if whole and kept.conversation and store.get(CONVERSATION, kept.conversation, owner):
        for item in (*kept.input, *kept.response["output"]):
            if not add_item(store, owner, kept.conversation, item):
                add_item(store, owner, kept.conversation, {**item, "id": item_id(item["type"])})


def delete(store: Store, owner: str, id: str) -> bool:
    with store.transaction():
        store.delete_children(RESPONSE_ITEM, id, owner)
        return store.delete(RESPONSE, id, owner)


# Conversations --------------------------------------------------------------------------------------------------------


def item_key(conversation: str, id: str) -> str:
    """Items bear ids that clients chose, which are unique within their conversation alone."""
    return f"{conversation}/{id}"


def add_item(store: Store, owner: str, conversation: str, item: Item) -> bool:
    """Puts an item at a conversation's end; False where it has one of this id."""
    key = item_key(conversation, item["id"])
    if store.insert(CONVERSATION_ITEM, key, item, owner=owner, parent=conversation) is None:
        return False
    store.insert(ITEM_PLACE, f"{owner}/{item['id']}", {}, owner=owner, parent=conversation)
    return True


def delete_item(store: Store, owner: str, conversation: str, id: str) -> None:
    store.delete(CONVERSATION_ITEM, item_key(conversation, id), owner)
    place = store.get(ITEM_PLACE, f"{owner}/{id}", owner)
    if place and place.parent == conversation:
        store.delete(ITEM_PLACE, place.id, owner)


def delete_conversation(store: Store, owner: str, id: str) -> None:
    store.delete_children(CONVERSATION_ITEM, id, owner)
    store.delete_children(ITEM_PLACE, id, owner)
    store.delete(CONVERSATION, id, owner)


def conversation_items(store: Store, owner: str, id: str, upto: int | None = None) -> tuple[list[Item], int]:
    """A conversation's items, and the place of the last; those after `upto` are left out.

    Raises:
        ApiError: 404 where the owner has no such conversation.
    """
    if store.get(CONVERSATION, id, owner) is None:
        raise not_found("conversation", id, "conversation")
    records = [r for r in every(store, CONVERSATION_ITEM, owner, id) if upto is None or r.seq <= upto]
    return [dict(record.data) for record in records], records[-1].seq if records else 0


# What came before -----------------------------------------------------------------------------------------------------


def chain(store: Store, owner: str, id: str) -> list[Item]:
    """All items up to the end of a response: those that it was an answer to, and its own.

    Raises:
        ApiError: 404 where a response of the chain is not there, 400 where this one has not ended well.
    """
    links: list[Kept] = []
    before: list[Item] = []
    at: str | None = id
    while at is not None:
        kept = load(store, owner, at, "previous_response_id")
        if kept.response["status"] not in ("completed", "incomplete"):
            raise invalid(
                f"The response {at!r} is {kept.response['status']}; one that ended can be gone on from.",
                "previous_response_id",
                "previous_response_not_completed",
            )
        links.append(kept)
        if kept.conversation:
            before, _ = conversation_items(store, owner, kept.conversation, kept.upto)
            break
        at = kept.response["previous_response_id"]
    return before + [item for kept in reversed(links) for item in (*kept.input, *kept.response["output"])]


def resolved(store: Store, owner: str, items: Sequence[Item], conversation: str, param: str) -> list[Item]:
    """References replaced by the items, and searches with what they found, where it is kept here.

    Raises:
        ApiError: 404 for an item that is not there.
    """
    found: list[Item] = []
    for i, item in enumerate(items):
        if item["type"] == "item_reference":
            named = find(store, owner, item["id"], conversation)
            if named is None:
                raise ApiError(404, f"There is no item {item['id']!r}.", param=f"{param}.{i}.id", code="not_found")
            found.append(named)
        elif item["type"] == "file_search_call" and "_results" not in item:
            known = find(store, owner, item["id"], conversation) or {}
            found.append({**item, "_results": known.get("_results", [])})
        else:
            found.append(item)
    return found


def find(store: Store, owner: str, id: str, conversation: str = "") -> Item | None:
    """An item of the owner, best of this conversation, or else wherever it is."""
    place = store.get(ITEM_PLACE, f"{owner}/{id}", owner)
    for where in (conversation, place.parent if place else ""):
        if where and (record := store.get(CONVERSATION_ITEM, item_key(where, id), owner)):
            return dict(record.data)
    index = store.get(RESPONSE_ITEM, id, owner)
    record = store.get(RESPONSE, index.parent, owner) if index else None
    output: Sequence[Mapping[str, Any]] = record.data["response"]["output"] if record else ()
    return next((dict(item) for item in output if item["id"] == id), None)
