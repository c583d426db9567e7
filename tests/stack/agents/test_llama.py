"""The Llama Stack's forms."""

from __future__ import annotations

import pytest

from puna.core.chat import Message, ToolCall
from puna.core.completion import Constraint
from puna.stack.agents.llama import (
    call_from,
    call_to,
    completion_message,
    in_dialect,
    message_from,
    params_from,
    text_of,
    tool_from,
    tool_to,
)
from puna.stack.errors import ApiError


def test_contents_of_all_forms() -> None:
    assert text_of("a") == text_of({"type": "text", "text": "a"}) == text_of([{"type": "text", "text": "a"}]) == "a"
    assert text_of(None) == ""
    for content in ({"type": "image", "image": {}}, 3):
        with pytest.raises(ApiError):
            text_of(content)


def test_messages_of_all_ages() -> None:
    old = message_from({"role": "tool", "call_id": "c", "content": "4"})
    new = message_from({"role": "tool", "tool_call_id": "c", "content": [{"type": "text", "text": "4"}]})
    assert old == new == Message("tool", "4", tool_call_id="c")
    assert message_from({"role": "user", "content": "a", "context": "b"}).content == "a\nb"
    called = message_from(
        {"role": "assistant", "content": "", "tool_calls": [{"call_id": "c", "tool_name": "f", "arguments": "{}"}]}
    )
    assert called.tool_calls == (ToolCall("f", {}, "c"),)
    with pytest.raises(ApiError, match="role 'robot'"):
        message_from({"role": "robot"})


def test_calls_are_written_for_old_and_new_clients() -> None:
    call = ToolCall("f", {"a": "ü"}, "c")
    written = call_to(call)
    assert written["arguments"] == {"a": "ü"}
    assert call_from(written) == call
    newer = in_dialect({"steps": [{"tool_calls": [written]}]}, "v1alpha")["steps"][0]["tool_calls"][0]
    assert newer == {"call_id": "c", "tool_name": "f", "arguments": '{"a": "ü"}'}
    assert call_from(newer) == call
    assert call_from(call.to_json()) == call
    for broken in ({"tool_name": "f", "arguments": "{"}, {"tool_name": "f", "arguments": []}, {"arguments": {}}):
        with pytest.raises(ApiError):
            call_from(broken)


def test_sampling_parameters() -> None:
    assert params_from({"strategy": {"type": "greedy"}, "max_tokens": 9}).temperature == 0
    top_p = params_from({"strategy": {"type": "top_p", "temperature": 0.3, "top_p": 0.8}, "stop": ["x"]})
    assert (top_p.temperature, top_p.top_p, top_p.stop) == (0.3, 0.8, ("x",))
    assert params_from({"strategy": {"type": "top_k", "top_k": 5}}).top_k == 5
    assert params_from({"temperature": 0.1, "repetition_penalty": 0}).temperature == 0.1
    assert params_from(None, None, "required").tool_choice == "required"
    schema = {"type": "object"}
    assert params_from({}, {"type": "json_schema", "json_schema": schema}).constraint == Constraint(
        "json_schema", schema
    )
    with pytest.raises(ApiError, match="no sampling strategy"):
        params_from({"strategy": {"type": "beam"}})
    with pytest.raises(ApiError) as refused:
        params_from({}, {"type": "grammar", "bnf": {}})
    assert refused.value.status == 501


def test_tools_of_all_ages_are_the_same_tool() -> None:
    old = {
        "name": "add",
        "description": "Adds.",
        "parameters": [{"name": "a", "parameter_type": "int", "description": "one", "required": True}],
    }
    schema = {"type": "object", "properties": {"a": {"type": "integer", "description": "one"}}, "required": ["a"]}
    new = {"name": "add", "description": "Adds.", "input_schema": schema}
    assert (
        tool_from(old) == tool_from(new) == tool_from({"type": "function", "function": {**new, "parameters": schema}})
    )
    listed = tool_to(tool_from(old), "g")
    assert (listed["input_schema"], listed["toolgroup_id"]) == (schema, "g")
    assert listed["parameters"] == [{"name": "a", "parameter_type": "integer", "description": "one", "required": True}]
    with pytest.raises(ApiError):
        tool_from({"description": "nameless"})


def test_an_answer_as_a_completion_message() -> None:
    shown = completion_message(Message("assistant", "Hi"), "end_of_turn")
    assert shown == {"role": "assistant", "content": "Hi", "stop_reason": "end_of_turn", "tool_calls": []}
