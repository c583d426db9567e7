from __future__ import annotations

import pytest

from puna.stack.errors import ApiError
from puna.stack.responses.items import read_items
from puna.stack.responses.messages import arguments_of, messages_of, pack, passages


def call(id: str, name: str = "f", arguments: str = '{"x": 1}') -> dict[str, str]:
    return {"type": "function_call", "call_id": id, "name": name, "arguments": arguments}


def output(id: str, text: str = "done") -> dict[str, str]:
    return {"type": "function_call_output", "call_id": id, "output": text}


def test_roles_become_those_of_the_model() -> None:
    given = [{"role": role, "content": role} for role in ("developer", "system", "user", "assistant")]
    assert [message.role for message in messages_of(read_items(given))] == ["system", "system", "user", "assistant"]


def test_calls_side_by_side_are_one_turn() -> None:
    given = [{"role": "assistant", "content": "wait"}, call("a"), call("b"), output("a"), output("b")]
    said, first, second = messages_of(read_items(given))
    assert said.content == "wait"
    assert [made.id for made in said.tool_calls] == ["a", "b"]
    assert not said.end_of_turn
    assert (first.tool_call_id, first.name, second.tool_call_id) == ("a", "f", "b")


def test_a_call_after_a_result_is_a_turn_of_its_own() -> None:
    messages = messages_of(read_items([call("a"), output("a"), call("b"), output("b")]))
    assert [message.role for message in messages] == ["assistant", "tool", "assistant", "tool"]


def test_an_output_without_its_call_is_refused() -> None:
    with pytest.raises(ApiError) as caught:
        messages_of(read_items(["x", output("nobody")][1:]))
    assert caught.value.param == "input.0.call_id"
    assert caught.value.code == "unknown_call_id"


def test_arguments_that_are_no_object_are_still_shown() -> None:
    assert arguments_of('{"x": 1}') == {"x": 1}
    assert arguments_of("") == {}
    assert arguments_of("[1") == {"arguments": "[1"}
    assert arguments_of("5") == {"arguments": 5}


def test_a_search_is_read_as_a_call_and_its_passages() -> None:
    item = {"type": "file_search_call", "id": "fs_1", "queries": ["bolts"]}
    item["results"] = [{"filename": "a", "text": "M4"}]
    asked, found = messages_of(read_items([item]))
    assert asked.tool_calls[0].arguments == {"query": "bolts"}
    assert "[1] a\nM4" in found.content
    assert found.tool_call_id == asked.tool_calls[0].id
    assert passages([]) == "Nothing was found."


def test_a_compaction_gives_its_summary_back() -> None:
    item = {"type": "compaction", "encrypted_content": pack("They met.")}
    (message,) = messages_of(read_items([item]))
    assert message.role == "system"
    assert message.content.endswith("They met.")
    with pytest.raises(ApiError, match="not of this server"):
        messages_of(read_items([{"type": "compaction", "encrypted_content": "%%%"}]))


def test_pictures_and_unread_files_are_named_in_their_place() -> None:
    parts = [{"type": "input_image", "image_url": "x"}, {"type": "input_file", "filename": "a.pdf", "file_url": "u"}]
    (message,) = messages_of(read_items([{"role": "user", "content": parts}]))
    assert "picture" in message.content
    assert "a.pdf was not read" in message.content


def test_reasoning_is_not_shown() -> None:
    assert messages_of(read_items([{"type": "reasoning", "summary": []}])) == []


ASKED = {"type": "mcp_approval_request", "id": "mcpr_1", "server_label": "s", "name": "f", "arguments": '{"x": 1}'}


def answered(approve: bool, reason: str | None = None) -> dict[str, object]:
    return {"type": "mcp_approval_response", "approval_request_id": "mcpr_1", "approve": approve, "reason": reason}


def test_a_call_that_waits_or_was_denied_is_shown_with_that() -> None:
    asked, told = messages_of(read_items([ASKED]))
    assert (asked.tool_calls[0].name, dict(asked.tool_calls[0].arguments)) == ("f", {"x": 1})
    assert "waits" in told.content
    _, told = messages_of(read_items([ASKED, answered(False, "Not today.")]))
    assert told.content.endswith("The reason: Not today.")
    assert messages_of(read_items([ASKED, answered(True)])) == []
    # What comes later says what became of it, without being read itself.
    assert messages_of(read_items([ASKED]), later=read_items([answered(True)])) == []


@pytest.mark.parametrize(
    ("error", "text"),
    [
        ("plain", "plain"),
        ({"type": "http_error", "code": 500, "message": "down"}, "down"),
        ({"type": "mcp_tool_execution_error", "content": [{"type": "text", "text": "a"}, {"text": "b"}]}, "a\nb"),
        (None, "the call was not finished"),
    ],
)
def test_a_servers_call_that_failed_is_shown_with_its_error(error: object, text: str) -> None:
    made = {"type": "mcp_call", "server_label": "s", "name": "f", "arguments": "{}", "error": error}
    asked, told = messages_of(read_items([made]))
    assert asked.tool_calls[0].id == told.tool_call_id
    assert told.content == f"Error: {text}"
