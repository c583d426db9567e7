"""OpenAI's bodies as Puna's nouns, and every refusal with the field's name."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.core.chat import Message, ToolCall, ToolSpec
from puna.core.completion import Completion, Constraint, Done, SamplingParams, StreamEvent, TextDelta, ToolCallDelta
from puna.stack.conversion import (
    OPEN_END,
    choice_of,
    constraint_of,
    content_of,
    messages_of,
    params_of,
    plain_json,
    settled,
    structured_of,
    tools_of,
    whole,
)
from puna.stack.errors import ApiError

TOOLS = (ToolSpec("look"), ToolSpec("read"))
CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at": 1}'}}


def refused(function: Any, *arguments: Any) -> ApiError:
    with pytest.raises(ApiError) as caught:
        function(*arguments)
    assert caught.value.status == 400
    return caught.value


def test_a_whole_conversation_is_read() -> None:
    parts = [{"type": "text", "text": "What "}, {"type": "text", "text": "now?"}]
    found = messages_of(
        [
            {"role": "developer", "content": "Be short."},
            {"role": "user", "content": parts, "name": "ana"},
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "c1", "content": "a tree"},
            {"role": "assistant", "refusal": "I will not."},
        ]
    )
    assert found == (
        Message("system", "Be short."),
        Message("user", "What now?"),
        Message("assistant", "", (ToolCall("look", {"at": 1}, "c1"),), end_of_turn=False),
        Message("tool", "a tree", tool_call_id="c1", name="look"),
        Message("assistant", "I will not."),
    )


@pytest.mark.parametrize(
    ("items", "param", "words"),
    [
        ([], "messages", "at least one"),
        (["hi"], "messages.0", "must be an object"),
        ([{"role": ["user"]}], "messages.0.role", "['user']"),
        ([{"role": "assistant", "tool_calls": 7}], "messages.0.tool_calls", "must be a list"),
        ([{"role": "robot", "content": "x"}], "messages.0.role", "'robot'"),
        ([{"role": "user"}], "messages.0.content", "no content"),
        ([{"role": "user", "content": 7}], "messages.0.content", "text or a list"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "messages.0.content.0.type", "read text"),
        ([{"role": "user", "content": ["x"]}], "messages.0.content.0.type", "None"),
        ([{"role": "user", "content": [{"type": "text"}]}], "messages.0.content.0.text", "no text"),
        ([{"role": "assistant"}], "messages.0.content", "neither content nor tool calls"),
        ([{"role": "tool", "content": "x", "tool_call_id": "c9"}], "messages.0.tool_call_id", "'c9'"),
        ([{"role": "tool", "content": "x", "tool_call_id": ["c1"]}], "messages.0.tool_call_id", "['c1']"),
        (
            [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}],
            "messages.0.tool_calls.0",
            "not JSON",
        ),
    ],
)
def test_a_message_that_cannot_be_read_is_named_with_its_place(items: list[Any], param: str, words: str) -> None:
    error = refused(messages_of, items)
    assert error.param == param
    assert words in error.message


def test_half_a_surrogate_pair_goes_no_further() -> None:
    assert content_of("a\ud800b", "x") == "a?b"
    assert content_of([{"type": "input_text", "text": "ñ\udfff"}], "x") == "ñ?"


def test_tools_are_read_in_both_spellings() -> None:
    schema = {"type": "object", "properties": {"at": {"type": "integer"}}}
    nested = {"type": "function", "function": {"name": "look", "description": "Looks.", "parameters": schema}}
    flat = {"type": "function", "name": "look", "description": "Looks.", "parameters": schema}
    assert tools_of([nested]) == tools_of([flat]) == (ToolSpec("look", "Looks.", schema),)
    assert tools_of(None) == ()
    assert refused(tools_of, [{"type": "web_search"}]).param == "tools.0.type"
    assert "names no function" in refused(tools_of, [{"type": "function", "function": {}}]).message
    assert "Two tools" in refused(tools_of, [nested, flat]).message
    assert refused(tools_of, ["look"]).param == "tools.0"
    assert "no JSON schema" in refused(tools_of, [{"name": "a", "parameters": [1]}]).message


@pytest.mark.parametrize(
    ("choice", "expected", "left"),
    [
        (None, "auto", ["look", "read"]),
        ("none", "none", ["look", "read"]),
        ("required", "required", ["look", "read"]),
        ({"type": "function", "function": {"name": "read"}}, "read", ["look", "read"]),
        ({"type": "function", "name": "read"}, "read", ["look", "read"]),
        ({"type": "allowed_tools", "mode": "required", "tools": [{"name": "read"}]}, "required", ["read"]),
        (
            {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [{"function": {"name": "look"}}]}},
            "auto",
            ["look"],
        ),
    ],
)  # fmt: skip
def test_what_may_be_called(choice: Any, expected: str, left: list[str]) -> None:
    found, tools = choice_of(choice, TOOLS)
    assert (found, [tool.name for tool in tools]) == (expected, left)


def test_a_choice_that_is_not_on_offer_is_refused() -> None:
    assert "'fly'; on offer are: look, read" in refused(choice_of, {"type": "function", "name": "fly"}, TOOLS).message
    assert refused(choice_of, "required", ()).param == "tool_choice"
    assert refused(choice_of, "perhaps", TOOLS).param == "tool_choice"
    assert refused(choice_of, {"type": "custom"}, TOOLS).param == "tool_choice.type"
    allowed = {"type": "allowed_tools", "mode": "auto", "tools": [{"name": "fly"}]}
    assert refused(choice_of, allowed, TOOLS).param == "tool_choice.tools.0"
    assert refused(choice_of, {"type": "allowed_tools", "tools": []}, TOOLS).param == "tool_choice.tools"


def test_a_tool_that_is_named_like_a_choice_cannot_be_forced() -> None:
    error = refused(choice_of, {"type": "function", "name": "none"}, (ToolSpec("none"),))
    assert "another name" in error.message


KEYS = (
    *("type", "role", "content", "text", "tool_calls", "tool_call_id", "function", "name", "arguments"),
    *("parameters", "tools", "mode", "schema", "json_schema", "regex"),
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4)
JSON = st.recursive(
    SCALARS | st.sampled_from(["function", "user", "assistant", "tool", "json_schema", "allowed_tools"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner),
    max_leaves=15,
)


@given(JSON)
def test_whatever_is_sent_is_read_or_refused(value: Any) -> None:
    readers = (
        lambda: messages_of(value if isinstance(value, list) else [value]),
        lambda: tools_of(value if isinstance(value, list) else [value]),
        lambda: choice_of(value, TOOLS),
        lambda: constraint_of(value),
        lambda: structured_of(value),
        lambda: params_of({"logit_bias": value}),
    )
    for read in readers:
        with suppress(ApiError):
            read()


def test_what_is_kept_is_plain() -> None:
    assert plain_json({"a\ud800": [float("nan"), "\ud800ñ", 1.5]}) == {"a?": [None, "?ñ", 1.5]}


def test_the_form_of_an_answer() -> None:
    schema = {"type": "object", "properties": {}}
    assert constraint_of(None) is None
    assert constraint_of({"type": "text"}) is None
    assert constraint_of({"type": "json_object"}) == Constraint("json_schema", {"type": "object"})
    nested = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema, "strict": True}}
    assert constraint_of(nested) == constraint_of({"type": "json_schema", "name": "a", "schema": schema})
    assert constraint_of(nested) == Constraint("json_schema", schema)
    assert refused(constraint_of, {"type": "xml"}, "text.format").param == "text.format.type"
    assert refused(constraint_of, {"type": "json_schema", "schema": "no"}).param == "response_format.schema"
    assert structured_of({"regex": "a+"}) == Constraint("regex", "a+")
    assert structured_of({"choice": ["a", "b"]}) == Constraint("choice", ["a", "b"])
    assert "one of" in refused(structured_of, {"regex": "a", "json": {}}).message
    assert "one of" in refused(structured_of, {}).message


def test_how_to_sample() -> None:
    values = {
        "temperature": 0.2,
        "top_p": 0,
        "seed": 3,
        "n": 2,
        "max_tokens": 5,
        "max_completion_tokens": 9,
        "stop": "END",
        "logit_bias": {"12": -100},
        "logprobs": True,
        "top_logprobs": 4,
        "presence_penalty": None,
    }
    form = Constraint("regex", "a")
    assert params_of(values, form, "look") == SamplingParams(
        temperature=0.2, top_p=1e-6, seed=3, n=2, max_tokens=9, stop=("END",), logit_bias={12: -100.0}, logprobs=4,
        constraint=form, tool_choice="look",
    )  # fmt: skip
    plain = params_of({"stop": ["a", "", "b"], "logprobs": False})
    assert plain == SamplingParams(max_tokens=OPEN_END, stop=("a", "b"))


@pytest.mark.parametrize(
    ("values", "param"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_completion_tokens": -1, "max_tokens": 4}, "max_completion_tokens"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logit_bias": {"a": 1}}, "logit_bias"),
        ({"logit_bias": {"1": 101}}, "logit_bias"),
        ({"logit_bias": {"1": float("nan")}}, "logit_bias"),
        ({"temperature": -1}, "temperature"),
        ({"n": 0}, "n"),
    ],
)
def test_a_setting_out_of_range_is_named(values: dict[str, Any], param: str) -> None:
    error = refused(params_of, values)
    assert error.param == param
    assert "\n" not in error.message


# Answers on their way -------------------------------------------------------------------------------------------------


class Source:
    """A stream that notes whether it was closed before its end."""

    def __init__(self, *events: StreamEvent) -> None:
        self.events, self.closed = events, False

    async def __call__(self) -> AsyncIterator[StreamEvent]:
        try:
            for event in self.events:
                yield event
        except GeneratorExit:
            self.closed = True
            raise


def heard(source: Source, parallel: bool = True) -> list[StreamEvent]:
    async def go() -> list[StreamEvent]:
        return [event async for event in settled(source(), parallel)]

    return asyncio.run(go())


def answer(*calls: ToolCall) -> Completion:
    return Completion(Message("assistant", "x", calls))


def test_calls_get_ids_that_stay() -> None:
    calls = ToolCall("look", {"at": 1}), ToolCall("read", {}, "own")
    source = Source(TextDelta("x"), *(ToolCallDelta(call) for call in calls), Done(answer(*calls)))
    text, first, second, done = heard(source)
    assert text == TextDelta("x")
    assert isinstance(first, ToolCallDelta) and isinstance(second, ToolCallDelta) and isinstance(done, Done)
    assert first.call.id.startswith("call_")
    assert second.call.id == "own"
    assert done.completion.message.tool_calls == (first.call, second.call)


def test_answers_beside_the_first_get_ids_too() -> None:
    other = answer(ToolCall("look"))
    (done,) = heard(Source(Done(Completion(Message("assistant"), others=(other,)))))
    assert isinstance(done, Done)
    assert done.completion.others[0].message.tool_calls[0].id.startswith("call_")


def test_one_call_alone_where_calls_are_not_to_be_parallel() -> None:
    calls = ToolCall("look", {}, "a"), ToolCall("read", {}, "b")
    other = answer(*calls)
    whole_ = Completion(Message("assistant", "", calls), others=(other,))
    call, done = heard(Source(*(ToolCallDelta(c) for c in calls), Done(whole_)), parallel=False)
    assert call == ToolCallDelta(calls[0])
    assert isinstance(done, Done)
    assert done.completion.message.tool_calls == calls[:1]
    assert done.completion.others[0].message.tool_calls == calls[:1]


def test_closing_closes_the_source() -> None:
    source = Source(TextDelta("a"), TextDelta("b"))

    async def go() -> None:
        stream = settled(source())
        assert await anext(stream) == TextDelta("a")
        await stream.aclose()

    asyncio.run(go())
    assert source.closed


def test_an_answer_without_an_end_is_no_answer() -> None:
    assert asyncio.run(whole(Source(TextDelta("a"), Done(answer()))())) == answer()
    with pytest.raises(ApiError, match="broke off"):
        asyncio.run(whole(Source(TextDelta("a"))()))
