from __future__ import annotations

from typing import Any

import pytest

from puna.stack.errors import ApiError
from puna.stack.responses.items import read_items
from puna.stack.responses.plan import Tools, read_tools
from puna.stack.wire.items import CHOICE, CONVERSATION, FORMAT, INPUT, ITEM, TOOL

jsonschema = pytest.importorskip("jsonschema")

GOOD: list[dict[str, Any]] = [
    {"type": "message", "role": "user", "content": "x"},
    {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "x"}], "id": "msg_1"},
    {"type": "message", "role": "user", "content": [{"type": "input_image"}, {"type": "input_file", "file_id": "f"}]},
    {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}", "status": "completed"},
    {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "x"}]},
    {"type": "reasoning", "summary": [{"type": "summary_text", "text": "x"}]},
    {"type": "compaction", "encrypted_content": "x"},
    {"type": "file_search_call", "queries": ["x"]},
    {"type": "item_reference", "id": "msg_1"},
    {"type": "mcp_list_tools", "server_label": "s", "tools": [{"name": "a", "input_schema": {}}], "error": None},
    {"type": "mcp_call", "server_label": "s", "name": "a", "arguments": "{}", "output": "x"},
    {"type": "mcp_approval_request", "server_label": "s", "name": "a", "arguments": "{}", "id": "mcpr_1"},
    {"type": "mcp_approval_response", "approval_request_id": "mcpr_1", "approve": False, "reason": "no"},
]
BAD: list[Any] = [
    5,
    {"type": "message", "role": "oracle", "content": "x"},
    {"type": "message", "role": "user"},
    {"type": "message", "role": "user", "content": [{"type": "smell"}]},
    {"type": "function_call", "call_id": "c", "name": "f"},
    {"type": "file_search_call", "queries": "x"},
    {"type": "mcp_call", "server_label": "s", "name": "a", "arguments": "{}", "output": 5},
    {"type": "mcp_list_tools", "server_label": "s", "tools": "a"},
    {"type": "mcp_approval_response", "approval_request_id": "mcpr_1", "approve": "yes"},
    {"type": "spell"},
]


def fits(value: Any, schema: dict[str, Any]) -> bool:
    return jsonschema.Draft202012Validator(schema).is_valid(value)


@pytest.mark.parametrize("item", GOOD)
def test_what_is_described_is_read(item: dict[str, Any]) -> None:
    assert fits(item, ITEM)
    assert fits([item], INPUT)
    assert read_items([item])[0]["type"] == item["type"]


@pytest.mark.parametrize("item", BAD)
def test_what_is_not_described_is_refused(item: Any) -> None:
    assert not fits(item, ITEM)
    with pytest.raises(ApiError):
        read_items([item])


def test_tools_and_choices_are_described() -> None:
    tool = {"type": "function", "name": "f", "strict": True}
    search = {"type": "file_search", "vector_store_ids": ["vs"], "ranking_options": {"score_threshold": 0.5}}
    allowed = {"type": "allowed_tools", "tools": [{"type": "function", "name": "f"}, {"type": "file_search"}]}
    for choice in (None, "auto", "required", {"type": "file_search"}, allowed):
        assert fits(choice, CHOICE)
        assert isinstance(read_tools([tool, search], choice, True), Tools)
    assert fits(tool, TOOL)
    assert fits(search, TOOL)
    mcp = {"type": "mcp", "server_label": "s", "server_url": "https://a/mcp", "headers": {"x": "y"}}
    mcp |= {"allowed_tools": {"read_only": True}, "require_approval": {"never": {"tool_names": ["a"]}}}
    choice = {"type": "mcp", "server_label": "s"}
    assert fits(choice, CHOICE)
    assert isinstance(read_tools([mcp], choice, True), Tools)
    for one in (mcp, {"type": "mcp", "server_label": "s", "connector_id": "c"}):
        assert fits(one, TOOL)
    assert not fits({"type": "mcp", "server_label": "s"}, TOOL)
    assert not fits({**mcp, "require_approval": "maybe"}, TOOL)
    assert not fits("maybe", CHOICE)


def test_forms_and_conversations_are_described() -> None:
    assert fits({"type": "json_schema", "name": "a", "schema": {}}, FORMAT)
    assert not fits({"type": "poem"}, FORMAT)
    assert fits("conv_1", CONVERSATION)
    assert fits({"id": "conv_1"}, CONVERSATION)
