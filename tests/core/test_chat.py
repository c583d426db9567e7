from __future__ import annotations

import json
from dataclasses import FrozenInstanceError
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.base.errors import InputError, ToolCallError
from puna.core.chat import ROLES, Conversation, Message, ToolCall, ToolSpec

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
tables = st.dictionaries(st.text(), json_values, max_size=3)
names = st.text(min_size=1, max_size=10)
calls = st.builds(ToolCall, name=names, arguments=tables, id=st.text(max_size=5))
messages = st.builds(
    Message,
    role=st.sampled_from(ROLES),
    content=st.text(),
    tool_calls=st.lists(calls, max_size=2).map(tuple),
    tool_call_id=st.text(max_size=5),
    name=st.text(max_size=5),
    end_of_turn=st.booleans(),
)
specs = st.builds(ToolSpec, name=names, description=st.text(), parameters=tables)
conversations = st.builds(
    Conversation,
    messages=st.lists(messages, max_size=4).map(tuple),
    tools=st.lists(specs, max_size=2).map(tuple),
    meta=tables,
)


@given(conversations)
def test_a_conversation_survives_json(conversation: Conversation) -> None:
    assert Conversation.from_json(json.loads(json.dumps(conversation.to_json()))) == conversation


@given(calls)
def test_arguments_are_a_json_string_on_the_wire(call: ToolCall) -> None:
    wire = call.to_json()
    assert json.loads(wire["function"]["arguments"]) == call.arguments
    assert wire["type"] == "function"


def test_openai_forms_are_read() -> None:
    data = {
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "Add "}, {"type": "text", "text": "1 and 2."}]},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1, "b": 2}'}},
                    {"function": {"name": "now", "arguments": ""}},
                    {"name": "flat", "arguments": {"x": 1}, "id": None},
                ],
            },
            {"role": "tool", "content": "3", "tool_call_id": "c1", "name": "add", "unknown": 1},
        ],
        "tools": [{"type": "function", "function": {"name": "add", "description": None, "parameters": None}}],
    }
    conversation = Conversation.from_json(data)
    user, assistant, tool = conversation.messages
    assert user.content == "Add 1 and 2."
    assert assistant.content == ""
    assert assistant.tool_calls == (
        ToolCall("add", {"a": 1, "b": 2}, "c1"),
        ToolCall("now", {}),
        ToolCall("flat", {"x": 1}),
    )
    assert (tool.content, tool.tool_call_id, tool.name) == ("3", "c1", "add")
    assert conversation.tools == (ToolSpec("add"),)


@pytest.mark.parametrize(
    ("data", "named"),
    [
        ({"role": "robot", "content": "x"}, "robot"),
        ({"content": "x"}, "None"),
        ("hello", "hello"),
        ({"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}, "image_url"),
        ({"role": "user", "content": [{"type": "text"}]}, "text"),
        ({"role": "user", "content": ["x"]}, "'x'"),
        ({"role": "user", "content": 5}, "5"),
    ],
)
def test_a_malformed_message_is_refused_with_its_value(data: Any, named: str) -> None:
    with pytest.raises(InputError, match=named):
        Message.from_json(data)


@pytest.mark.parametrize(
    ("call", "error"),
    [
        ({"function": {"name": "f", "arguments": "{not json"}}, ToolCallError),
        ({"function": {"name": "f", "arguments": "[1]"}}, ToolCallError),
        ({"function": {"name": "f", "arguments": [1]}}, ToolCallError),
        ({"function": {"arguments": "{}"}}, InputError),
        ({"function": {"name": "", "arguments": "{}"}}, InputError),
        ({"function": "f"}, InputError),
        ("f", InputError),
    ],
)
def test_a_malformed_tool_call_is_refused(call: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        Message.from_json({"role": "assistant", "tool_calls": [call]})


@pytest.mark.parametrize("data", [{}, {"messages": None}, {"messages": "hello"}, {"messages": {"role": "user"}}, []])
def test_a_conversation_without_a_list_of_messages_is_refused(data: Any) -> None:
    with pytest.raises(InputError):
        Conversation.from_json(data)


def test_a_tool_without_a_name_is_refused() -> None:
    with pytest.raises(InputError, match="names no function"):
        ToolSpec.from_json({"type": "function", "function": {"description": "x"}})


@given(json_values)
def test_any_json_value_is_read_or_refused_with_a_puna_error(data: Any) -> None:
    for read in (ToolCall.from_json, Message.from_json, ToolSpec.from_json, Conversation.from_json):
        try:
            read(data)
        except InputError as error:
            assert error.message


def test_messages_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        Message("user", "hello").content = "other"  # type: ignore[misc]
    assert Conversation((Message("user", "a"),)).messages.__class__ is tuple
