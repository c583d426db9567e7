"""What is said, as it stands on the wire."""

from __future__ import annotations

from typing import Any

import pytest

from puna.stack.mcp.protocol import (
    STATELESS,
    McpError,
    RemoteTool,
    call_result,
    headers_of,
    offered_name,
    reply,
    request,
    result_of,
    tool_of,
)

SCHEMA = {
    "type": "object",
    "properties": {
        "region": {"type": "string", "x-mcp-header": "Region"},
        "inner": {"type": "object", "properties": {"dry": {"type": "boolean", "x-mcp-header": "Dry"}}},
        "bad": {"type": "string", "x-mcp-header": "a b"},
    },
}


def test_a_request_of_the_stateless_age_says_its_version() -> None:
    assert request(3, "ping", {}, "2025-11-25") == {"jsonrpc": "2.0", "id": 3, "method": "ping"}
    meta = request(3, "tools/list", {"cursor": "x"}, STATELESS)["params"]["_meta"]
    assert meta["io.modelcontextprotocol/protocolVersion"] == STATELESS
    assert meta["io.modelcontextprotocol/clientCapabilities"] == {}


def test_headers_repeat_what_a_request_says() -> None:
    params = {"name": "rück", "arguments": {"region": " eu", "inner": {"dry": True}, "bad": "x"}}
    tool = RemoteTool("rück", schema=SCHEMA)
    assert headers_of("tools/call", params, "2025-06-18", tool) == {"MCP-Protocol-Version": "2025-06-18"}
    assert headers_of("initialize", {}, "", None) == {}
    headers = headers_of("tools/call", params, STATELESS, tool)
    assert headers == {
        "MCP-Protocol-Version": STATELESS,
        "Mcp-Method": "tools/call",
        "Mcp-Name": "=?base64?csO8Y2s=?=",
        "Mcp-Param-Region": "=?base64?IGV1?=",
        "Mcp-Param-Dry": "true",
    }


def test_a_server_that_asks_is_answered() -> None:
    assert reply({"id": 4, "method": "ping"}) == {"jsonrpc": "2.0", "id": 4, "result": {}}
    refused = reply({"id": "a", "method": "sampling/createMessage", "params": {}})
    assert refused is not None
    assert (refused["id"], refused["error"]["code"]) == ("a", -32601)
    assert reply({"method": "notifications/message"}) is None


@pytest.mark.parametrize(
    ("message", "code", "words"),
    [
        ({"error": {"code": -32602, "message": "Unknown tool"}}, -32602, "Unknown tool"),
        ({"error": {}}, 0, "no reason"),
        ({"error": {"code": "x", "message": "y" * 9000}}, 0, "yyy"),
        ({"result": 3}, 0, "no object"),
        ({"result": {"resultType": "input_required"}}, 0, "asks its user"),
    ],
)
def test_refusals_are_errors(message: dict[str, Any], code: int, words: str) -> None:
    with pytest.raises(McpError, match=words) as caught:
        result_of(message)
    assert caught.value.code == code
    assert len(caught.value.message) <= 2000


def test_tools_are_read_however_little_they_say() -> None:
    assert tool_of({"name": ""}) is None
    assert tool_of("x") is None
    bare = tool_of({"name": "a", "inputSchema": None, "annotations": [1]})
    assert bare == RemoteTool("a")
    assert not bare.read_only
    whole = tool_of({"name": "b", "inputSchema": {"required": ["x"]}, "annotations": {"readOnlyHint": True}})
    assert whole is not None
    assert whole.read_only
    assert whole.schema == {"type": "object", "properties": {}, "required": ["x"]}


def test_a_result_is_a_text_for_the_model() -> None:
    blocks = [
        {"type": "text", "text": "a"},
        {"type": "image", "mimeType": "image/png", "data": "x"},
        {"type": "resource", "resource": {"uri": "f://1", "text": "inner"}},
        {"type": "resource_link", "uri": "f://2", "name": "two"},
        "nonsense",
    ]
    result = call_result({"content": blocks, "structuredContent": {"n": 1}})
    assert result.text.splitlines()[0] == "a"
    assert "image/png" in result.text
    assert "inner" in result.text
    assert "f://2" in result.text
    assert (result.failed, result.structured) == (False, {"n": 1})
    assert call_result({"structuredContent": {"n": 1}, "isError": True}) == call_result(
        {"content": None, "structuredContent": {"n": 1}, "isError": True}
    )
    assert call_result({"structuredContent": {"n": 1}}).text == '{"n": 1}'


def test_names_that_a_model_can_say() -> None:
    assert offered_name("get.it", "s", ()) == "get_it"
    assert offered_name("add", "farm", {"add"}) == "farm_add"
    assert offered_name("add", "farm", {"add", "farm_add"}) == "farm_add_2"
    assert len(offered_name("x" * 128, "farm", ())) == 64
