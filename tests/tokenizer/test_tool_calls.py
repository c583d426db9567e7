from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from puna.base.errors import InputError, ToolCallError
from puna.core.chat import ToolCall
from puna.tokenizer import parse_tool_calls
from puna.tokenizer.tool_calls import FunctionTag, ToolFormat, is_builtin, parse_tagged, write_calls

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
CALLS = st.builds(
    ToolCall, st.from_regex(r"[a-z_][A-Za-z0-9_]{0,12}", fullmatch=True), st.dictionaries(st.text(), VALUES, max_size=4)
)
FORMATS: list[ToolFormat] = ["json", "function_tag", "pythonic"]


def written(call: ToolCall, tool_format: ToolFormat = "json") -> str:
    (segment,) = write_calls([call], tool_format)
    return segment.text


@pytest.mark.parametrize(
    ("tool_format", "text"),
    [
        ("json", '{"type": "function", "name": "f", "parameters": {"n": 10, "s": "żó\\"", "t": [true, null]}}'),
        ("function_tag", '<function=f>{"n": 10, "s": "żó\\"", "t": [true, null]}</function>'),
        ("pythonic", "[f(n=10, s='żó\"', t=[True, None])]"),
    ],
)
def test_how_a_call_is_written(tool_format: ToolFormat, text: str) -> None:
    assert written(ToolCall("f", {"n": 10, "s": 'żó"', "t": (True, None)}), tool_format) == text


@pytest.mark.parametrize("tool_format", FORMATS)
@given(calls=st.lists(CALLS, min_size=1, max_size=3))
@settings(max_examples=50)
def test_what_is_written_is_read(tool_format: ToolFormat, calls: list[ToolCall]) -> None:
    (segment,) = write_calls(calls, tool_format)
    assert not segment.builtin
    assert list(parse_tool_calls(segment.text)) == calls
    assert list(parse_tagged(segment.text)) == calls


@given(query=st.text() | st.sampled_from(['")', '")<|eom_id|>', '")\n', '" "', "'", "\\", ' ") ', '.call(query="']))
@pytest.mark.parametrize("name", ["brave_search", "wolfram_alpha", "photogen"])
def test_a_query_may_hold_anything(name: str, query: str) -> None:
    call = ToolCall(name, {"query": query})
    (segment,) = write_calls([call], "pythonic")
    assert segment == (f'{name}.call(query="{query}")', True)
    assert parse_tool_calls(segment.text) == (call,)


def test_llamas_own_examples_are_read() -> None:
    pi = ToolCall("wolfram_alpha", {"query": "100th decimal of pi"})
    assert parse_tagged('wolfram_alpha.call(query="100th decimal of pi")') == (pi,)
    assert parse_tagged(" wolfram_alpha.call( query = '100th decimal of pi' )\n") == (pi,)
    songs = ToolCall("trending_songs", {"n": "10", "genre": "all"})
    text = '{\n    "type": "function",\n    "name": "trending_songs",\n    "parameters": {"n": "10", "genre": "all"}\n}'
    assert parse_tagged(text) == (songs,)
    assert parse_tagged('<function=trending_songs>{"n": 10}</function>') == (ToolCall("trending_songs", {"n": 10}),)
    assert parse_tagged("[get_user_info(user_id=7890, special='black')]") == (
        ToolCall("get_user_info", {"user_id": 7890, "special": "black"}),
    )


@pytest.mark.parametrize(
    "code",
    [
        "print(1)",
        "",
        "x = {'name': 1}",
        "[f(x) for x in y]",
        "[1, 2]",
        "brave_search.call('x')",
        "{}\n",
        "<div>",
        "f(a=1)",
    ],
)
def test_other_text_after_a_tag_is_code(code: str) -> None:
    assert parse_tagged(code) == (ToolCall("code_interpreter", {"code": code}),)


@pytest.mark.parametrize("text", ['{"type": "function", "name": "f", "para', '{"name": "f"} x', "<function=f>{'a': 1}"])
def test_a_broken_call_after_a_tag_is_no_code(text: str) -> None:
    with pytest.raises(ToolCallError):
        parse_tagged(text)


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ('{"type": "function", "name": 5}', "character 30 "),
        ('{"name": "f", "parameters": {"a": }}', "character 34 "),
        ('{"name": "f", "parameters": {}', "breaks off at character 30"),
        ("[f(1)]", "character 3 .*positional"),
        ("[f(a=1)", "breaks off at character 7"),
        ("[]", "character 1 "),
        ("<function=f>{'a': 1}</function>", "character 13 .*double quotes"),
        ("<function=>{}</function>", "character 10 "),
        ("<function=f g>{}</function>", "character 11 "),
        ('<function=f>{"a": 1}</func>', "character 26 "),
        ("<function=f>{} x</function>", "character 15 "),
        ("<function=f>{", "breaks off at character 13"),
        ("<function=f>{}</function> x", "character 26 "),
        ("<tool>", "character 1 "),
        ("Let me call f.", "no tool call"),
        ("", "no tool call"),
        ("search.call(query='x')", "no tool call"),
    ],
)
def test_the_strict_reader_says_where_a_text_stops_being_a_call(text: str, where: str) -> None:
    with pytest.raises(ToolCallError, match=where) as caught:
        parse_tool_calls(text)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ("<function=f>{}</function>", {}),
        ("<function=f></function>", {}),
        ('<function=f> {"a": "</function>"} \n</function>', {"a": "</function>"}),
        ('<function=f>{"a": {"b": {"c": "it\'s"}}}', {"a": {"b": {"c": "it's"}}}),
        ("<function=f>{}</func", {}),
    ],
)
def test_forms_of_a_function_tag(text: str, arguments: dict[str, Any]) -> None:
    assert parse_tool_calls(text) == (ToolCall("f", arguments),)


def test_a_function_tag_takes_nothing_after_its_end() -> None:
    tag = FunctionTag()
    assert all(map(tag.push, "<function=f></function>"))
    assert tag.complete
    assert not tag.push(" ")


def test_built_in_and_other_calls_are_written_apart() -> None:
    search = ToolCall("brave_search", {"query": "x"})
    code = ToolCall("code_interpreter", {"code": "print(1)"})
    other = ToolCall("f")
    segments = write_calls([other, other, search, code, other], "pythonic")
    assert [segment.text for segment in segments] == [
        "[f(), f()]",
        'brave_search.call(query="x")',
        "print(1)",
        "[f()]",
    ]
    assert [segment.builtin for segment in segments] == [False, True, True, False]


@pytest.mark.parametrize(
    "call",
    [
        ToolCall("brave_search", {"query": 5}),
        ToolCall("brave_search", {"query": "x", "count": 3}),
        ToolCall("brave_search", {}),
        ToolCall("code_interpreter", {"query": "x"}),
        ToolCall("search", {"query": "x"}),
    ],
)
def test_built_in_tools_with_other_arguments_are_called_like_any_tool(call: ToolCall) -> None:
    assert not is_builtin(call)
    assert parse_tool_calls(written(call)) == (call,)


def test_arguments_that_are_no_identifiers_are_written_in_a_dictionary() -> None:
    call = ToolCall("f", {"a-b": 1, "c": 2, "": 3})
    assert written(call, "pythonic") == "[f(c=2, **{'a-b': 1, '': 3})]"
    assert parse_tool_calls(written(call, "pythonic")) == (call,)


@pytest.mark.parametrize(
    ("name", "tool_format"), [("a b", "function_tag"), ("a>b", "function_tag"), ("a-b", "pythonic")]
)
def test_names_that_a_format_cannot_spell_are_refused(name: str, tool_format: ToolFormat) -> None:
    with pytest.raises(InputError, match="cannot spell"):
        written(ToolCall(name), tool_format)
    assert parse_tool_calls(written(ToolCall(name))) == (ToolCall(name),)


def nested(depth: int) -> Any:
    value: Any = 0
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("tool_format", FORMATS)
@pytest.mark.parametrize(
    "value",
    [float("nan"), float("inf"), {1, 2}, b"x", object(), nested(70), nested(100_000), 10**5000],
    ids=["nan", "inf", "set", "bytes", "object", "deep", "bomb", "digits"],
)
def test_arguments_that_json_cannot_hold_are_refused(tool_format: ToolFormat, value: Any) -> None:
    with pytest.raises(InputError, match="tool call 'f'"):
        written(ToolCall("f", {"a": value}), tool_format)


@pytest.mark.parametrize("tool_format", FORMATS)
@pytest.mark.parametrize("value", [nested(58), 10**4200, -(2**64)], ids=["deep", "digits", "negative"])
def test_the_largest_arguments_come_back(tool_format: ToolFormat, value: Any) -> None:
    call = ToolCall("f", {"a": value})
    assert parse_tool_calls(written(call, tool_format)) == (call,)


def test_a_call_needs_a_name() -> None:
    with pytest.raises(InputError, match="no name"):
        written(ToolCall(""))
