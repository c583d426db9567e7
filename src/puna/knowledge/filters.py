"""Filters on attributes, in the form of OpenAI's vector stores: comparisons of one key, joined by "and" and "or".

    {"type": "and", "filters": [{"type": "eq", "key": "author", "value": "Ada"},
                                {"type": "gte", "key": "year", "value": 1843}]}

A comparison with a key that a document does not have is false, but for "ne" and "nin", which are then true. Values of
different kinds are never equal and have no order; true is not 1. There are no patterns and no paths into values.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

from puna.base.errors import InputError, near

Filter = Mapping[str, Any]
Predicate = Callable[[Mapping[str, Any]], bool]

_ORDER = {"gt": operator.gt, "gte": operator.ge, "lt": operator.lt, "lte": operator.le}
_JOINS = {"and": all, "or": any}
_TYPES = ("eq", "ne", *_ORDER, "in", "nin", *_JOINS)
_DEEPEST = 20
_ABSENT = object()


def predicate(filters: Filter, depth: int = 0) -> Predicate:
    """A function from attributes to whether they pass.

    Raises:
        InputError: the filter has an unknown type, lacks a part, or is nested more than 20 deep.
    """
    if not isinstance(filters, Mapping):
        raise InputError(f"A filter is {filters!r}; it must be an object with 'type'.")
    kind = filters.get("type")
    if not isinstance(kind, str) or kind not in _TYPES:
        raise InputError(f"A filter has the type {kind!r}.", hint=near(str(kind), _TYPES))
    if depth > _DEEPEST:
        raise InputError(f"The filters are nested more than {_DEEPEST} deep.")
    if kind in _JOINS:
        parts = filters.get("filters")
        if not isinstance(parts, list | tuple):
            raise InputError(f"A filter of type {kind!r} has no list 'filters'.")
        inner = [predicate(part, depth + 1) for part in parts]
        return lambda attributes: _JOINS[kind](test(attributes) for test in inner)
    return _comparison(kind, filters)


def _comparison(kind: str, filters: Filter) -> Predicate:
    key = filters.get("key")
    if not isinstance(key, str) or "value" not in filters:
        raise InputError(f"A filter of type {kind!r} needs 'key' (a text) and 'value'.")
    value = filters["value"]
    if kind in ("in", "nin"):
        if not isinstance(value, list | tuple):
            raise InputError(f"A filter of type {kind!r} needs a list as its value, and has {value!r}.")
        wanted = kind == "in"
        return lambda attributes: any(_equal(attributes.get(key, _ABSENT), one) for one in value) == wanted
    if not isinstance(value, str | int | float | bool):
        raise InputError(f"A filter of type {kind!r} needs a text, a number or a truth value, and has {value!r}.")
    if kind in ("eq", "ne"):
        wanted = kind == "eq"
        return lambda attributes: _equal(attributes.get(key, _ABSENT), value) == wanted
    compare = _ORDER[kind]
    return lambda attributes: _kind(attributes.get(key, _ABSENT)) == _kind(value) and compare(attributes[key], value)


def _equal(one: Any, other: Any) -> bool:
    return _kind(one) == _kind(other) and one == other


def _kind(value: Any) -> type:
    """Its type, with one for all numbers."""
    return float if isinstance(value, int | float) and not isinstance(value, bool) else type(value)
