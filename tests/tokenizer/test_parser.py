from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from puna.core.chat import Message, ToolCall, ToolSpec
from puna.core.completion import TextDelta, ToolCallDelta
from puna.tokenizer import Tokenizer, TurnParser
from puna.tokenizer.parser import Event

TOOLS = (ToolSpec("f"), ToolSpec("brave_search"))
F1 = ToolCall("f", {"a": 1})
PIECES = st.lists(
    st.sampled_from(
        [
            '{"name": "f", "parameters": {"a": 1}}',
            '{"type": "function", "name": "f"',
            "[f(a=1)]",
            "[f(a=1",
            '<function=f>{"a": 1}</function>',
            '<function=f>{"a": ',
            "<function=",
            "</function>",
            'brave_search.call(query="x")',
            "brave_search.call(",
            "<|python_tag|>",
            "<|eot_id|>",
            '"',
            "}",
            ")]",
            " ",
            "\n",
            "é😀",
            "text",
        ]
    ),
    max_size=8,
).map("".join)


def ids_of(tokenizer: Tokenizer, *parts: str | int) -> list[int]:
    """Texts and special ids."""
    return [id for part in parts for id in ([part] if isinstance(part, int) else tokenizer.encode(part))]


def one_by_one(parser: TurnParser, ids: list[int]) -> list[Event]:
    return [event for id in ids for event in parser.feed(id)]


def text_of(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def calls_of(events: list[Event]) -> list[ToolCall]:
    return [event.call for event in events if isinstance(event, ToolCallDelta)]


def letters(tokenizer: Tokenizer, text: str) -> list[int]:
    """A text as single bytes, the hardest stream."""
    return [tokenizer.ranks[bytes([byte])] for byte in text.encode()]


def read(tokenizer: Tokenizer, *parts: str | int, tools: tuple[ToolSpec, ...] = TOOLS) -> Message:
    """The message of these parts, after checking that the events tell the same, fed together or byte by byte."""
    parser = TurnParser(tokenizer, tools)
    events = parser.feed(ids_of(tokenizer, *parts)) + parser.close()
    message = parser.finish()
    assert (text_of(events), calls_of(events)) == (message.content, list(message.tool_calls))
    slow = TurnParser(tokenizer, tools)
    for part in parts:
        one_by_one(slow, [part] if isinstance(part, int) else letters(tokenizer, part))
    assert slow.finish() == message
    return message


def test_text_comes_out_at_once(small: Tokenizer) -> None:
    for tools in ((), TOOLS):
        parser = TurnParser(small, tools)
        for id in small.encode("The answer is 42, as {you} [know]"):
            assert text_of(parser.feed(id)) == small.decode([id])
        assert parser.feed(small.eot_id) == []
        assert parser.done
        assert parser.finish() == Message("assistant", "The answer is 42, as {you} [know]")


def test_a_character_is_not_cut(small: Tokenizer) -> None:
    parser = TurnParser(small)
    assert [text_of(parser.feed(id)) for id in letters(small, "€")] == ["", "", "€"]
    assert parser.feed(small.ranks[b"\xe2"]) == []
    assert parser.close() == [TextDelta("\ufffd")]
    assert parser.close() == []
    assert parser.finish() == Message("assistant", "€\ufffd")


def test_how_a_message_ends(small: Tokenizer) -> None:
    assert read(small, "a", small.eot_id) == Message("assistant", "a")
    assert read(small, "a", small.eos_id) == Message("assistant", "a")
    assert read(small, "a", small.eom_id) == Message("assistant", "a", end_of_turn=False)
    assert read(small, "a") == Message("assistant", "a")
    assert read(small, "a", small.eot_id, "b", small.eom_id) == Message("assistant", "a")
    assert read(small) == Message("assistant", "")


def test_neighbouring_texts_come_as_one_event(small: Tokenizer) -> None:
    assert TurnParser(small).feed(small.encode("one two three four five")) == [TextDelta("one two three four five")]


@pytest.mark.parametrize("text", ["", "I look. "])
@pytest.mark.parametrize("tools", [(), TOOLS])
@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ('brave_search.call(query="a "b" c")', ToolCall("brave_search", {"query": 'a "b" c'})),
        ("print('hi')\nx = {1: [2]}", ToolCall("code_interpreter", {"code": "print('hi')\nx = {1: [2]}"})),
        ('{"type": "function", "name": "f", "parameters": {"a": 1}}', F1),
        ('<function=f>{"a": 1}</function>', F1),
        ("[f(a=1)]", F1),
    ],
)
def test_what_follows_the_tag_is_a_call(
    small: Tokenizer, text: str, tools: tuple[ToolSpec, ...], call: str, expected: ToolCall
) -> None:
    message = read(small, text, small.python_tag_id, call, small.eom_id, tools=tools)
    assert message == Message("assistant", text, (expected,), end_of_turn=False)


def test_several_tags(small: Tokenizer) -> None:
    parts = [small.python_tag_id, 'brave_search.call(query="x")', small.python_tag_id, "[f(a=1), f()]"]
    message = read(small, *parts, small.python_tag_id, "print(1)", small.eom_id)
    search, code = ToolCall("brave_search", {"query": "x"}), ToolCall("code_interpreter", {"code": "print(1)"})
    assert message.tool_calls == (search, F1, ToolCall("f"), code)


@pytest.mark.parametrize(
    "call",
    [
        '{"type": "function", "name": "f", "parameters": {"a": 1}}',
        '{"name": "f", "arguments": {"a": 1}}',
        '\n{"name": "f", "parameters": {"a": 1}}\n',
        "[f(a=1)]",
        " [f(a=1)] ",
        '<function=f>{"a": 1}</function>',
        '<function=f>{"a": 1}',
    ],
)
def test_without_a_tag_it_is_a_call_where_tools_are_on_offer(small: Tokenizer, call: str) -> None:
    assert read(small, call, small.eot_id) == Message("assistant", "", (F1,))
    assert read(small, call, small.eot_id, tools=()) == Message("assistant", call)


def test_an_untagged_search_is_a_call_where_that_tool_is_on_offer(small: Tokenizer) -> None:
    text = 'brave_search.call(query="x (y")'
    assert read(small, text, small.eot_id).tool_calls == (ToolCall("brave_search", {"query": "x (y"}),)
    assert read(small, text, small.eot_id, tools=(ToolSpec("f"),)).content == text


def test_several_calls_of_one_message(small: Tokenizer) -> None:
    expected = (F1, ToolCall("g", {"b": "it's"}))
    for text in (
        '[f(a=1), g(b="it\'s")]',
        '{"name": "f", "parameters": {"a": 1}}; {"name": "g", "parameters": {"b": "it\'s"}}',
        '<function=f>{"a": 1}</function><function=g>{"b": "it\'s"}</function>',
        '<function=f>{"a": 1}</function>\n<function=g>{"b": "it\'s"}</function>\n',
    ):
        assert read(small, text, small.eot_id) == Message("assistant", "", expected)


def test_function_tags_stand_anywhere_and_are_certain_with_their_last_character(small: Tokenizer) -> None:
    parser = TurnParser(small, TOOLS)
    events = one_by_one(parser, letters(small, 'I call <function=f>{"a": 1}</function'))
    assert (text_of(events), calls_of(events)) == ("I call ", [])
    assert parser.feed(letters(small, ">")) == [ToolCallDelta(F1)]
    assert parser.feed(letters(small, " \n")) == []
    assert parser.feed(letters(small, "so")) == [TextDelta(" \nso")]
    assert parser.finish() == Message("assistant", "I call  \nso", (F1,))


def test_blanks_around_calls_are_no_content(small: Tokenizer) -> None:
    message = read(small, '<function=f>{"a": 1}</function>\n \n', small.eot_id)
    assert message == Message("assistant", "", (F1,))


@pytest.mark.parametrize(
    ("text", "released_by"),
    [
        ('{"answer": 1}', '{"answer"'),
        ('{"name": "Bob", "age": 3}', '{"name": "Bob", "age"'),
        ('{"name": "f", "parameters": {"a": 1}} means', '{"name": "f", "parameters": {"a": 1}} m'),
        ("{x}", "{x"),
        ("[1, 2]", "[1"),
        ("[link](url)", "[link]"),
        ("[f(x)]", "[f(x)"),
        ("[f(a=b)]", "[f(a=b"),
        ("<b>bold</b>", "<b"),
        ("<function f>", "<function "),
        ("<function=f>x", "<function=f>x"),
        ("brave new world", "brave "),
        ("  text", "  t"),
    ],
)
def test_text_is_held_back_until_it_can_be_no_call_and_no_longer(small: Tokenizer, text: str, released_by: str) -> None:
    assert text.startswith(released_by)
    parser = TurnParser(small, TOOLS)
    assert one_by_one(parser, letters(small, released_by[:-1])) == []
    assert text_of(one_by_one(parser, letters(small, released_by[-1]))) == released_by
    rest = text.removeprefix(released_by)
    assert text_of(one_by_one(parser, letters(small, rest))) == rest


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "f", "parameters": {"a": 1}',
        '{"name": "f", "parameters": {"a": 1}} {"name"',
        "[f(a=1)",
        "[f(a=1), ",
        "[f(a=1), 5]",
        '<function=f>{"a": ',
        "<function=f>{'a': 1}</function>",
        '<function=f>{"a": 1}</nonsense>',
        "brave_search.call(query=x)",
        "brave_search.call(",
        "[" * 5000,
        '{"parameters": ' + "[" * 5000,
        "[f(a=" + "(" * 5000,
        "[f(a=" + "9" * 5000 + ")]",
        '{"name": "f", "parameters": {"a": ' + "9" * 5000 + "}}",
        "[f(a='\\N{NO SUCH NAME}')]",
        "   \n",
    ],
)
def test_malformed_calls_are_text(small: Tokenizer, text: str) -> None:
    for stop in ([small.eot_id], []):
        assert read(small, text, *stop) == Message("assistant", text)


@pytest.mark.parametrize("text", ['{"type": "function", "name": "f", "para', "<function=f>{'a': 1}", '{"name": 5}'])
def test_malformed_calls_after_a_tag_are_text(small: Tokenizer, text: str) -> None:
    assert read(small, "a ", small.python_tag_id, text, small.eot_id) == Message("assistant", "a " + text)


def test_a_failed_tag_does_not_hide_the_next(small: Tokenizer) -> None:
    message = read(small, '<<function=<function=f>x<function=f>{"a": 1}</function>', small.eot_id)
    assert message == Message("assistant", "<<function=<function=f>x", (F1,))


def test_code_that_was_cut_off_does_not_run_and_a_whole_call_does(small: Tokenizer) -> None:
    assert read(small, small.python_tag_id, "rm(all") == Message("assistant", "rm(all")
    assert read(small, small.python_tag_id, "[f(a=1)]") == Message("assistant", "", (F1,))
    assert read(small, "[f(a=1)]") == Message("assistant", "", (F1,))


def test_text_before_a_tag_is_text_whatever_it_looks_like(small: Tokenizer) -> None:
    message = read(small, "[f(a=1)]", small.python_tag_id, "[f(a=1)]", small.eom_id)
    assert message == Message("assistant", "[f(a=1)]", (F1,), end_of_turn=False)


def test_special_tokens_without_meaning_are_left_out(small: Tokenizer) -> None:
    noise = [small.bos_id, small.pad_id, small.start_header_id, small.vocab_size - 1, small.vocab_size + 5, -1]
    assert read(small, "a", *noise, "b", small.eot_id) == Message("assistant", "ab")


def test_names_of_special_tokens_are_text(small: Tokenizer) -> None:
    text = "<|python_tag|>[f(a=1)]<|eom_id|>"
    assert read(small, text, small.eot_id) == Message("assistant", text)


@given(data=st.data(), tools=st.sampled_from([(), TOOLS]))
@settings(max_examples=200)
def test_no_stream_raises_and_events_tell_the_message(
    small: Tokenizer, data: st.DataObject, tools: tuple[ToolSpec, ...]
) -> None:
    special = [small.python_tag_id, small.eot_id, small.eom_id, small.bos_id, small.vocab_size]
    parts = st.lists(PIECES.map(small.encode) | st.sampled_from([[id] for id in special]), max_size=5)
    noise = st.lists(st.integers(0, small.vocab_size), max_size=10)
    ids = [id for part in data.draw(parts) for id in part] + data.draw(noise)
    parser = TurnParser(small, tools)
    events = one_by_one(parser, ids) + parser.close()
    message = parser.finish()
    assert text_of(events) == message.content
    assert tuple(calls_of(events)) == message.tool_calls
    together = TurnParser(small, tools)
    together.feed(ids)
    assert together.finish() == message
    if not tools and small.python_tag_id not in ids:
        assert message.tool_calls == ()
