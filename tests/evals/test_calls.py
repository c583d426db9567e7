from __future__ import annotations

import pytest

from puna.base.errors import InputError
from puna.core.chat import ToolCall
from puna.evals.calls import expected_calls, match_text, mismatch

WEATHER = [{"weather": {"city": ["Oslo", "Oslo, Norway"], "days": [3], "unit": ["", "C"]}}]


@pytest.mark.parametrize(
    ("arguments", "fits"),
    [
        ({"city": " oslo ", "days": 3}, True),
        ({"city": "Oslo, Norway", "days": 3.0, "unit": "c"}, True),
        ({"city": "Oslo"}, False),
        ({"city": "Oslo", "days": "3"}, False),
        ({"city": "Oslo", "days": True}, False),
        ({"city": "Oslo", "days": 3, "more": 1}, False),
    ],
)
def test_each_argument_has_an_allowed_value_or_may_be_left_out(arguments: dict, fits: bool) -> None:
    assert (mismatch([ToolCall("weather", arguments)], expected_calls(WEATHER)) == "") == fits


def test_calls_match_in_any_order_and_each_once() -> None:
    expected = expected_calls([{"f": {"a": [1]}}, {"f": {"a": [2]}}, {"g": {}}])
    calls = [ToolCall("g"), ToolCall("f", {"a": 2}), ToolCall("f", {"a": 1})]
    assert mismatch(calls, expected) == ""
    assert mismatch([calls[0], calls[1], calls[1]], expected) == "no call of f with the expected arguments"
    assert mismatch(calls[:2], expected) == "2 calls; 3 were expected"


def test_lists_are_compared_entry_by_entry() -> None:
    expected = expected_calls({"name": "f", "arguments": {"xs": ["A", 1]}})
    assert mismatch([ToolCall("f", {"xs": ["a", 1.0]})], expected) == ""
    assert mismatch([ToolCall("f", {"xs": ["a"]})], expected) != ""


def test_calls_are_read_from_a_models_text() -> None:
    expected = expected_calls(WEATHER)
    assert match_text('{"name": "weather", "parameters": {"city": "Oslo", "days": 3}}', expected) == ""
    assert match_text('[weather(city="Oslo", days=3)]', expected) == ""
    assert match_text("I cannot know the weather.", expected) != ""


@pytest.mark.parametrize("value", ["f()", [1], {"f": 1}, {"f": {}, "g": {}}])
def test_what_is_no_call_is_refused(value: object) -> None:
    with pytest.raises(InputError, match="must hold calls"):
        expected_calls(value)
