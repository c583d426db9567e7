"""`Store`: what every route keeps, as records of some kind with an id, an owner and JSON.

A record belongs to an owner, and every reading says whose records it may see: there is no way to ask for everybody's.
Lists go by the order of creation, which `seq` fixes even within a millisecond, and are paged by id as OpenAI's are.
What belongs together is written in one `transaction`; when it has returned, it survives a kill.

Calls are short and block: from the event loop they are made with `await run(store.get, ...)`.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal, ParamSpec, Protocol, TypeVar

import anyio.to_thread

_SCANNED = 200  # records at a time, where all of a kind are gone through

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Record:
    """A kept object.

    Attributes:
        kind: "file", "response", "conversation_item", ...
        id: unique within its kind.
        owner: whose it is; "" where nobody signs in.
        parent: the id of what it belongs to, such as an item's conversation; "" for none.
        created: seconds since 1970.
        seq: rises with every record of the store.
        data: JSON.
    """

    kind: str
    id: str
    owner: str
    parent: str
    created: float
    seq: int
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Page:
    """Some records of a list, and whether more follow."""

    records: Sequence[Record]
    has_more: bool


class Store(Protocol):
    """Records in a database."""

    def put(
        self, kind: str, id: str, data: Mapping[str, Any], *, owner: str = "", parent: str = "", created: float = 0.0
    ) -> Record:
        """Writes a record. One with this kind and id keeps its owner, parent, place and time, and gets new data.

        Raises:
            ApiError: 404 where the record is another owner's.
        """
        ...

    def insert(
        self, kind: str, id: str, data: Mapping[str, Any], *, owner: str = "", parent: str = "", created: float = 0.0
    ) -> Record | None:
        """Writes a new record; None where one with this kind and id is there already."""
        ...

    def get(self, kind: str, id: str, owner: str = "") -> Record | None: ...

    def delete(self, kind: str, id: str, owner: str = "") -> bool:
        """Deletes a record; the records whose parent it is stay. Returns whether there was one."""
        ...

    def delete_children(self, kind: str, parent: str, owner: str = "") -> int: ...

    def list(
        self,
        kind: str,
        owner: str = "",
        *,
        parent: str | None = None,
        after: str | None = None,
        before: str | None = None,
        limit: int = 20,
        order: Literal["asc", "desc"] = "desc",
    ) -> Page:
        """Records of a kind by creation, those after (or before) the record with an id.

        Raises:
            ApiError: 404 where there is no such record.
        """
        ...

    def transaction(self) -> AbstractContextManager[None]:
        """What is written within is kept together, or not at all; this thread's alone, and may be nested."""
        ...

    def close(self) -> None: ...


def every(store: Store, kind: str, owner: str, parent: str | None = None) -> Iterator[Record]:
    """All records of a kind, the oldest first."""
    after = None
    while True:
        page = store.list(kind, owner, parent=parent, after=after, limit=_SCANNED, order="asc")
        yield from page.records
        if not page.has_more:
            return
        after = page.records[-1].id


async def run(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Calls what blocks without holding up the event loop."""
    return await anyio.to_thread.run_sync(functools.partial(function, *args, **kwargs))


def list_where(keep: Callable[[Record], bool], read: Callable[..., Page], limit: int, after: str | None = None) -> Page:
    """A page of the records for which `keep` holds, from as many pages of all as that takes.

    Args:
        keep: whether a record belongs to the list.
        read: `store.list` with all its arguments but `limit` and `after`.
        limit: records of the page.
        after: the record before the page.
    """
    found: list[Record] = []
    while True:
        page = read(limit=max(100, limit), after=after)
        found.extend(record for record in page.records if keep(record))
        if len(found) > limit or not page.has_more:
            return Page(found[:limit], len(found) > limit)
        after = page.records[-1].id


def dump(data: Mapping[str, Any]) -> str:
    """JSON as it is kept. Halves of surrogate pairs, which JSON may hold and UTF-8 may not, are escaped."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return text if is_text(text) else json.dumps(data, separators=(",", ":"))


def load(text: str) -> dict[str, Any]:
    return json.loads(text)


def is_text(text: str) -> bool:
    """Whether a database can hold a text; an id that it cannot hold is nobody's."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text
