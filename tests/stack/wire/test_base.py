"""What all bodies share."""

from __future__ import annotations

from puna.stack.wire.base import Wire, listed


class Example(Wire):
    model: str
    n: int = 1


def test_fields_that_nobody_knows_are_read_over() -> None:
    made = Example.model_validate({"model": "a", "newer": {"x": 1}})
    assert made.model_dump() == {"model": "a", "n": 1}


def test_a_page_names_its_ends() -> None:
    assert listed([]) == {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}
    page = listed([{"id": "a"}, {"id": "b"}], True)
    assert (page["first_id"], page["last_id"], page["has_more"]) == ("a", "b", True)
