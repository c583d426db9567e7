"""What all bodies share: fields that nobody here knows are read over, as OpenAI's server does with newer clients."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict


class Wire(BaseModel):
    """A body of a request or an answer."""

    model_config = ConfigDict(extra="ignore", protected_namespaces=())


def listed(data: list[dict[str, Any]], has_more: bool = False) -> dict[str, Any]:
    """A page of a list, in OpenAI's form."""
    return {
        "object": "list",
        "data": data,
        "first_id": data[0].get("id") if data else None,
        "last_id": data[-1].get("id") if data else None,
        "has_more": has_more,
    }
