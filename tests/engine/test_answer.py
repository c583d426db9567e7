from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.core.chat import Message, ToolCall, ToolSpec
from puna.core.completion import TextDelta, ToolCallDelta
from puna.engine.answer import Answer, Continuation, Event
from puna.testing import tiny_tokenizer

TOKENIZER = tiny_tokenizer()
FIRST, SECOND = ToolCall("first", {"a": 1}), ToolCall("second")


class Scripted:
    """A reader whose `n`-th id means the `n`-th of the given lists of events."""

    def __init__(self, *events: list[Event], closing: list[Event] | None = None) -> None:
        self.events, self.closing = events, closing or []

    def feed(self, ids: int) -> Sequence[Event]:
        return self.events[ids]

    def close(self) -> Sequence[Event]:
        return self.closing

    def finish(self) -> Message:
        shown = [event for events in (*self.events, self.closing) for event in events]
        return Message(
            "assistant",
            "".join(event.text for event in shown if isinstance(event, TextDelta)),
            tuple(event.call for event in shown if isinstance(event, ToolCallDelta)),
        )


def text_of(events: Sequence[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def read(answer: Answer, ids: Sequence[int]) -> list[Event]:
    return [event for token in ids for event in answer.take(token)] + answer.close()


@given(st.text(max_size=20))
def test_no_character_comes_out_in_halves(text: str):
    """The tokens are single bytes."""
    answer, whole, shown = Answer(Continuation(TOKENIZER), ()), text.encode(), ""
    for count, byte in enumerate(whole, 1):
        shown += text_of(answer.take(byte))
        assert shown == whole[:count].decode(errors="ignore")
    assert answer.close() == []
    assert answer.message() == Message("assistant", text)


def test_a_character_that_is_cut_off_is_replaced_at_the_end():
    answer = Answer(Continuation(TOKENIZER), ())
    assert [answer.take(byte) for byte in "é€".encode()[:-1]] == [[], [TextDelta("é")], [], []]
    assert answer.close() == [TextDelta("\ufffd")]
    assert answer.message().content == "é\ufffd"


@given(st.text("ab€<|", max_size=20), st.lists(st.text("ab€<|", min_size=1, max_size=3), max_size=2))
def test_the_message_is_the_text_up_to_a_stop_string_and_its_deltas_joined(text: str, stops: list[str]):
    answer = Answer(Continuation(TOKENIZER), stops)
    events = read(answer, list(text.encode()))
    assert text_of(events) == answer.message().content
    assert text.startswith(answer.message().content)
    assert answer.stopped == any(stop in text for stop in stops)
    if not answer.stopped:
        assert answer.message().content == text


def test_a_continuation_leaves_special_tokens_out():
    answer = Answer(Continuation(TOKENIZER), ())
    events = read(answer, [*b"ab", TOKENIZER.start_header_id, *b"c", TOKENIZER.eot_id])
    assert text_of(events) == answer.message().content == "abc"


def test_tool_calls_pass_where_they_stand():
    reader = Scripted([TextDelta("So ")], [ToolCallDelta(FIRST), TextDelta("and")], [ToolCallDelta(SECOND)])
    answer = Answer(reader, ["never"])
    assert read(answer, [0, 1, 2]) == [
        TextDelta("So "), ToolCallDelta(FIRST), TextDelta("and"), ToolCallDelta(SECOND)
    ]  # fmt: skip
    assert answer.message() == Message("assistant", "So and", (FIRST, SECOND))


def test_a_call_before_a_stop_string_is_kept_and_one_after_it_is_not():
    reader = Scripted([TextDelta("a"), ToolCallDelta(FIRST)], [TextDelta("b\n\nc"), ToolCallDelta(SECOND)])
    answer = Answer(reader, ["\n\n"])
    assert read(answer, [0, 1]) == [TextDelta("a"), ToolCallDelta(FIRST), TextDelta("b")]
    assert answer.message() == Message("assistant", "ab", (FIRST,))


def test_a_stop_string_that_comes_to_light_at_the_end_counts():
    answer = Answer(Scripted([TextDelta("a")], closing=[TextDelta("b STOP c")]), ["STOP"])
    assert read(answer, [0]) == [TextDelta("a"), TextDelta("b ")]
    assert answer.stopped
    assert answer.message().content == "ab "


@pytest.mark.parametrize(("stop", "content"), [((), "A  B"), (("B",), "A  "), (("function",), "A  B")])
def test_calls_of_the_chat_format_are_no_text_that_a_stop_string_acts_on(stop: tuple[str, ...], content: str):
    written = 'A <function=look>{"at": "B"}</function> B'
    tools = [ToolSpec("look")]
    answer = Answer(TOKENIZER.chat.parser(tools), stop)
    events = read(answer, [*written.encode(), TOKENIZER.eot_id])
    call = ToolCall("look", {"at": "B"})
    assert [event.call for event in events if isinstance(event, ToolCallDelta)] == [call]
    assert answer.message() == Message("assistant", content, (call,))
    assert text_of(events) == content


def test_a_message_that_waits_for_a_tool_says_so():
    answer = Answer(TOKENIZER.chat.parser([ToolSpec("look")]), ())
    read(answer, [TOKENIZER.python_tag_id, *b'{"name": "look", "parameters": {}}', TOKENIZER.eom_id])
    assert answer.message() == Message("assistant", "", (ToolCall("look"),), end_of_turn=False)
