"""A page of a list that is in memory, by the ids of its items, as the lists of the store are paged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from puna.stack.errors import not_found
from puna.stack.responses.items import Item
from puna.stack.wire.base import listed


def page(
    items: Sequence[Item], after: str | None, before: str | None, limit: int, order: Literal["asc", "desc"]
) -> dict[str, Any]:
    """Args:
        items: the oldest first.
        after, before: the id of the item behind, or before, which the page lies.
        limit: of items.
        order: of the page.

    Raises:
        ApiError: 404 where there is no item of that id.
    """
    ordered = list(items) if order == "asc" else list(items)[::-1]
    if after is not None:
        ordered = ordered[_place(ordered, after, "after") + 1 :]
    if before is not None:
        ordered = ordered[: _place(ordered, before, "before")]
    if before is not None and after is None:
        return listed(ordered[-limit:], len(ordered) > limit)
    return listed(ordered[:limit], len(ordered) > limit)


def _place(items: Sequence[Item], id: str, param: str) -> int:
    for i, item in enumerate(items):
        if item["id"] == id:
            return i
    raise not_found("item", id, param)
