"""Bodies of the conversations API."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, WithJsonSchema

from puna.stack.wire.base import Wire
from puna.stack.wire.items import ITEM
from puna.stack.wire.responses import Metadata

_ITEMS = {"type": "array", "items": ITEM, "maxItems": 20}
ItemList = Annotated[list[dict[str, Any]], Field(max_length=20), WithJsonSchema(_ITEMS)]


class CreateConversation(Wire):
    """A new conversation, and its first items."""

    items: ItemList | None = None
    metadata: Metadata | None = None


class UpdateConversation(Wire):
    """New metadata, in place of the old."""

    metadata: Metadata | None


class AddItems(Wire):
    """Items to be put at a conversation's end."""

    items: Annotated[ItemList, Field(min_length=1), WithJsonSchema({**_ITEMS, "minItems": 1})]
