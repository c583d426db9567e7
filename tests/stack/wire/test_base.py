"""What all bodies share."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from puna.stack.wire.base import Wire, clean, listed

NUMBERS = st.integers(-(1 << 62), 1 << 62) | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


class Example(Wire):
    model: str
    n: int = 1


def test_fields_that_nobody_knows_are_read_over() -> None:
    made = Example.model_validate({"model": "a", "newer": {"x": 1}})
    assert made.model_dump() == {"model": "a", "n": 1}


def test_a_page_names_its_ends() -> None:
    assert listed([]) == {"object": "list", "data": [], "first_id": "", "last_id": "", "has_more": False}
    page = listed([{"id": "a"}, {"id": "b"}], True)
    assert (page["first_id"], page["last_id"], page["has_more"]) == ("a", "b", True)


@given(JSON)
def test_ordinary_json_stays_as_it_is(value) -> None:
    if "\x00" not in json.dumps(value, ensure_ascii=False).replace("\\u0000", "\x00"):
        assert clean(value) == value


@pytest.mark.parametrize("value", ["a\ud800b", {"\udfff": ["\x00"]}])
def test_what_is_no_character_is_replaced(value) -> None:
    assert "\ufffd" in json.dumps(clean(value), ensure_ascii=False).encode().decode()


class Body(Wire):
    """A body."""

    data: dict


@pytest.mark.parametrize("data", [{"a": float("nan")}, {"a": [float("inf")]}, {"a": 10**400}])
def test_numbers_that_json_does_not_have_are_refused(data: dict) -> None:
    with pytest.raises(ValidationError):
        Body.model_validate({"data": data})


def test_depth_has_an_end() -> None:
    deep: list = []
    for _ in range(100):
        deep = [deep]
    with pytest.raises(ValueError, match="60 deep"):
        clean(deep)


def test_whole_numbers_of_more_than_64_bits_are_floats_and_fit_no_field_for_whole_numbers() -> None:
    class Counted(Wire):
        count: int

    assert clean({"a": [-(1 << 63), 1 << 63]}) == {"a": [-(1 << 63), 2.0**63]}
    assert isinstance(clean(1 << 63), float)
    with pytest.raises(ValidationError):
        Counted.model_validate({"count": 1 << 63})
