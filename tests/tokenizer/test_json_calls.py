from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from puna.core.chat import ToolCall
from puna.tokenizer.json_calls import MAX_DEPTH, CallObject, JsonCalls, JsonObject, load_json

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
OBJECTS = st.dictionaries(st.text(), VALUES, max_size=5)


def accepted(reader: JsonObject | JsonCalls, text: str) -> int:
    """How many characters the reader takes before it refuses one."""
    for at, char in enumerate(text):
        if not reader.push(char):
            assert reader.reason
            return at
    return len(text)


def call_in(text: str, known: tuple[str, ...] = ()) -> ToolCall | None:
    reader = CallObject(known)
    return reader.call if accepted(reader, text) == len(text) else None


@given(value=OBJECTS, indent=st.sampled_from([None, 0, 4]), ascii_only=st.booleans())
@settings(max_examples=100)
def test_every_object_is_read_as_by_json(value: dict[str, Any], indent: int | None, ascii_only: bool) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    reader = JsonObject()
    assert accepted(reader, text) == len(text)
    assert reader.complete
    assert reader.members == value


@given(text=st.text(alphabet='{}[]":,\\u0a1-.eE \ntrufalsn', max_size=16).map(lambda text: '{"a":' + text))
@settings(max_examples=400)
@example(text='{"a":1}')
@example(text='{"a":[1,]}')
@example(text='{"a":01}')
@example(text='{"a":-}')
@example(text='{"a":1.}')
@example(text='{"a":"\\x"}')
def test_what_json_refuses_is_not_completed(text: str) -> None:
    try:
        expected = json.loads(text, strict=False)
    except json.JSONDecodeError:
        expected = None
    reader = JsonObject()
    whole = accepted(reader, text) == len(text) and reader.complete
    assert whole == isinstance(expected, dict)


@given(value=OBJECTS, cut=st.integers(0, 200))
def test_every_beginning_of_an_object_is_accepted(value: dict[str, Any], cut: int) -> None:
    text = json.dumps(value)[:-1][:cut]
    reader = JsonObject()
    assert accepted(reader, text) == len(text)
    assert not reader.complete


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("x", 0),
        ("[", 0),
        ('{"a" 1', 5),
        ("{a", 1),
        ("{'a", 1),
        ('{"a":x', 5),
        ('{"a":nul ', 8),
        ('{"a":tr}', 7),
        ('{"a":01', 6),
        ('{"a":1..', 7),
        ('{"a":1 2', 7),
        ('{"a":NaN', 5),
        ('{"a":Infinity', 5),
        ('{"a":1,}', 7),
        ('{"a":[1}', 7),
        ('{"a":"\\q', 7),
        ('{"a":"\\u12g', 10),
        ('{"a":1}}', 7),
        ('{"a":1e999}', 10),
    ],
)
def test_a_text_is_refused_at_the_first_character_that_cannot_stand(text: str, at: int) -> None:
    assert accepted(JsonObject(), text) == at


def test_raw_line_breaks_in_strings_are_accepted() -> None:
    reader = JsonObject()
    accepted(reader, '{"code": "a\n\tb"}')
    assert reader.members == {"code": "a\n\tb"}


@pytest.mark.parametrize("opening", ['{"a":', "["])
def test_nesting_is_bounded(opening: str) -> None:
    text = '{"a":' + opening * 100_000
    assert accepted(JsonObject(), text) == len('{"a":' + opening * (MAX_DEPTH - 1) + opening[0]) - 1


def test_numbers_are_bounded() -> None:
    assert accepted(JsonObject(), '{"a":' + "1" * 100_000) < 5000
    assert accepted(JsonObject(), '{"a":' + "1" * 4300 + "}") == 4306


def test_surrogates_in_escapes_are_joined_or_replaced() -> None:
    assert load_json('["\\ud83d\\ude00", {"\\ud800": "\\udc00"}]') == ["😀", {"\ufffd": "\ufffd"}]


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ('{"type": "function", "name": "f", "parameters": {"a": {"b": [1, "it\'s"]}}}', {"a": {"b": [1, "it's"]}}),
        ('{"name": "f", "parameters": {"a": 1}}', {"a": 1}),
        ('{"name": "f", "arguments": {"a": 1}}', {"a": 1}),
        ('{"parameters": {"a": 1}, "name": "f"}', {"a": 1}),
        ('{"name": "f", "parameters": {}}', {}),
        ('{"name": "f", "arguments": "{\\"a\\": 1}"}', {"a": 1}),
        ('{"name": "f", "arguments": ""}', {}),
        ('{"name": "f", "parameters": null}', {}),
        ('{"type": "function", "name": "f"}', {}),
        ('{"type": "function", "function": {"name": "f", "arguments": {"a": 1}}}', {"a": 1}),
        ('{"function": {"name": "f", "parameters": {"a": 1}}}', {"a": 1}),
        ('{\n    "type": "function",\n    "name": "f",\n    "parameters": {\n        "a": 1\n    }\n}', {"a": 1}),
    ],
)
def test_forms_of_a_call(text: str, arguments: dict[str, Any]) -> None:
    assert call_in(text) == ToolCall("f", arguments)


def test_a_name_alone_is_a_call_of_a_known_tool_only() -> None:
    assert call_in('{"name": "f"}') is None
    assert call_in('{"name": "f"}', known=("f",)) == ToolCall("f")


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ('{"answer": 1}', 8),
        ('{"name": 5}', 10),
        ('{"name": ""}', 10),
        ('{"name": null}', 13),
        ('{"type": "person"', 16),
        ('{"name": "Bob", "age": 3}', 20),
        ('{"name": "f", "parameters": [1]}', 30),
        ('{"name": "f", "parameters": "x"}', 30),
        ('{"name": "f", "arguments": "{\\"a\\": 1} x"}', 40),
        ('{"parameters": {}}', 17),
        ('{"function": {"arguments": {}}}', 29),
        ('{"function": "f"}', 15),
        ('{"name": "f", "parameters": {}, "function": {"name": "f"}}', 57),
        ("{}", 1),
    ],
)
def test_an_object_that_is_no_call_is_refused_as_soon_as_it_shows(text: str, at: int) -> None:
    assert accepted(CallObject(), text) == at


@pytest.mark.parametrize("between", ["", " ", "; ", ",", "\n", " ;\n"])
def test_several_calls(between: str) -> None:
    one, two = '{"name": "f", "parameters": {"a": 1}}', '{"name": "g", "parameters": {}}'
    reader = JsonCalls()
    text = f" {one}{between}{two}{between}\n"
    assert accepted(reader, text) == len(text)
    assert reader.complete
    assert reader.calls == [ToolCall("f", {"a": 1}), ToolCall("g")]


def test_a_row_of_calls_is_complete_only_between_them() -> None:
    one = '{"name": "f", "parameters": {}}'
    assert accepted(JsonCalls(), "; " + one) == 0
    assert accepted(JsonCalls(), one + " x") == len(one) + 1
    reader = JsonCalls()
    accepted(reader, one + "; {")
    assert not reader.complete
