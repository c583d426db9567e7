"""What all bodies share.

Fields that nobody here knows are read over, as OpenAI's server does with newer clients. What no answer could show again
and no database could keep is replaced or refused at the door: JSON can say half of a character ("\\ud800"), Python's
reader takes NaN, and a null character no PostgreSQL text may hold.
"""

from __future__ import annotations

import math
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

_DEEPEST = 60
_REPLACED = dict.fromkeys((0, *range(0xD800, 0xE000)), 0xFFFD)
_LARGEST = 1 << 63


class Wire(BaseModel):
    """A body of a request or an answer."""

    model_config = ConfigDict(extra="ignore", protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def cleaned(cls, value: Any) -> Any:
        return clean(value)


def clean(value: Any, depth: int = 0) -> Any:
    """A JSON value that can be kept and shown.

    Raises:
        ValueError: a number that JSON does not have, or what is nested too deep.
    """
    if depth > _DEEPEST:
        raise ValueError(f"it is nested more than {_DEEPEST} deep")
    if isinstance(value, str):
        return value if value.isprintable() else value.translate(_REPLACED)
    if isinstance(value, list):
        return [clean(item, depth + 1) for item in value]
    if isinstance(value, dict):
        return {clean(key, depth): clean(item, depth + 1) for key, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} is no number of JSON")
    if isinstance(value, int) and not -_LARGEST <= value < _LARGEST:
        return _as_float(value)
    return value


def _as_float(value: int) -> float:
    """A whole number of more than 64 bits as most readers of JSON take it; fields for whole numbers refuse it."""
    try:
        return float(value)
    except OverflowError:
        raise ValueError("a whole number is beyond what a number of JSON can be") from None


def listed(data: list[dict[str, Any]], has_more: bool = False) -> dict[str, Any]:
    """A page of a list, in OpenAI's form.

    The ids of an empty page are "": OpenAI's schema has strings there and no null, clients that check take nothing
    else, and those that follow `last_id` take "" for the end.
    """
    return {
        "object": "list",
        "data": data,
        "first_id": data[0].get("id", "") if data else "",
        "last_id": data[-1].get("id", "") if data else "",
        "has_more": has_more,
    }
