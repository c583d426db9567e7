"""Filters: every comparison, joins, what is missing, and what is no filter."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.base.errors import InputError
from puna.knowledge.filters import predicate

BOOK = {"author": "Ada", "year": 1843, "price": 2.5, "public": True, "tags": ["a"]}


def passes(kind: str, key: str, value: Any) -> bool:
    return predicate({"type": kind, "key": key, "value": value})(BOOK)


@pytest.mark.parametrize(
    ("kind", "key", "value", "expected"),
    [
        ("eq", "author", "Ada", True), ("eq", "author", "ada", False), ("ne", "author", "Bob", True),
        ("gt", "year", 1842, True), ("gt", "year", 1843, False), ("gte", "year", 1843, True),
        ("lt", "price", 3, True), ("lte", "price", 2.5, True), ("lt", "price", 2, False),
        ("eq", "year", 1843.0, True), ("gt", "author", "Abe", True),
        ("in", "author", ["Bob", "Ada"], True), ("in", "author", [], False), ("nin", "author", ["Bob"], True),
        # Of another kind.
        ("eq", "public", 1, False), ("eq", "public", True, True), ("eq", "year", "1843", False),
        ("gt", "year", "1", False), ("lt", "author", 5, False), ("gt", "public", False, True), ("gt", "tags", 1, False),
        # Not there.
        ("eq", "nobody", "x", False), ("gt", "nobody", 0, False), ("in", "nobody", ["x"], False),
        ("ne", "nobody", "x", True), ("nin", "nobody", ["x"], True),
    ],
)  # fmt: skip
def test_comparisons(kind: str, key: str, value: Any, expected: bool):
    assert passes(kind, key, value) is expected


def test_joins_nest():
    early = {"type": "lt", "key": "year", "value": 1900}
    mine = {"type": "eq", "key": "author", "value": "Bob"}
    assert predicate({"type": "or", "filters": [mine, early]})(BOOK)
    assert not predicate({"type": "and", "filters": [mine, early]})(BOOK)
    assert predicate({"type": "and", "filters": [early, {"type": "or", "filters": [mine, early]}]})(BOOK)
    assert predicate({"type": "and", "filters": []})(BOOK)
    assert not predicate({"type": "or", "filters": []})(BOOK)


@given(st.sampled_from(["author", "year", "price", "public", "none"]),
       st.one_of(st.text(max_size=3), st.integers(-3, 2000), st.booleans(), st.floats(allow_nan=False)))  # fmt: skip
def test_a_comparison_and_its_opposite_differ(key: str, value: Any):
    assert passes("eq", key, value) != passes("ne", key, value)
    assert passes("in", key, [value]) == passes("eq", key, value)
    assert passes("nin", key, [value]) == passes("ne", key, value)
    if passes("gte", key, value) or passes("lte", key, value):
        assert passes("gt", key, value) != passes("lte", key, value)


@pytest.mark.parametrize(
    "wrong",
    [
        {}, {"type": "like", "key": "a", "value": "b"}, {"type": ["eq"]}, {"type": "eq", "key": "a"}, {"type": "and"},
        {"type": "eq", "key": 3, "value": 3}, {"type": "eq", "key": "a", "value": None},
        {"type": "in", "key": "a", "value": "b"},
        {"type": "gt", "key": "a", "value": [1]}, {"type": "or", "filters": ["x"]}, {"type": "and", "filters": {}},
    ],
)  # fmt: skip
def test_what_is_no_filter_is_refused(wrong: Any):
    with pytest.raises(InputError):
        predicate(wrong)


def test_an_unknown_type_names_the_nearest():
    with pytest.raises(InputError, match="'gte'"):
        predicate({"type": "gtee", "key": "a", "value": 1})


def test_nesting_has_an_end():
    deep: dict[str, Any] = {"type": "eq", "key": "a", "value": 1}
    for _ in range(1000):
        deep = {"type": "and", "filters": [deep]}
    with pytest.raises(InputError, match="20 deep"):
        predicate(deep)
