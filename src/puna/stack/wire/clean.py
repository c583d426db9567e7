"""Bodies that may hold any JSON: what no answer could show again is replaced or refused at the door.

JSON can say half of a character ("\\ud800") and Python's reader takes NaN, but neither can be written as UTF-8 or as
JSON; a null character no PostgreSQL text may hold.
"""

from __future__ import annotations

import math
from typing import Any

from pydantic import model_validator

from puna.stack.wire.base import Wire

_DEEPEST = 60
_REPLACED = dict.fromkeys((0, *range(0xD800, 0xE000)), 0xFFFD)
_LARGEST = 1 << 63


def clean(value: Any, depth: int = 0) -> Any:
    """A JSON value that can be kept and shown.

    Raises:
        ValueError: a number that JSON does not have, or what is nested too deep.
    """
    if depth > _DEEPEST:
        raise ValueError(f"it is nested more than {_DEEPEST} deep")
    if isinstance(value, str):
        return value.translate(_REPLACED)
    if isinstance(value, list):
        return [clean(item, depth + 1) for item in value]
    if isinstance(value, dict):
        return {clean(key, depth): clean(item, depth + 1) for key, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} is no number of JSON")
    if isinstance(value, int) and abs(value) >= _LARGEST:
        raise ValueError("a whole number has more than 64 bits")
    return value


class CleanWire(Wire):
    """A body whose texts and numbers can be kept and shown."""

    @model_validator(mode="before")
    @classmethod
    def cleaned(cls, value: Any) -> Any:
        return clean(value)
