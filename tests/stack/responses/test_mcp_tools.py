"""The tool `mcp` of a request, and the answers to questions for approval."""

from __future__ import annotations

from typing import Any

import pytest

from puna.stack.errors import ApiError
from puna.stack.mcp.protocol import RemoteTool
from puna.stack.mcp.service import Target
from puna.stack.responses.items import read_items
from puna.stack.responses.mcp_tools import McpServer, read_approvals, read_server, shown_server

READ = RemoteTool("read", annotations={"readOnlyHint": True})
WRITE = RemoteTool("write")


def server(**fields: Any) -> McpServer:
    return read_server(
        {"type": "mcp", "server_label": "s", "server_url": "https://a.example/k/mcp", **fields}, "tools.0"
    )


@pytest.mark.parametrize(
    ("allowed", "read", "write"),
    [
        (None, True, True),
        (["read"], True, False),
        ([], False, False),
        ({"tool_names": ["write"]}, False, True),
        ({"read_only": True}, True, False),
        ({"read_only": False}, False, True),
        ({"tool_names": ["write"], "read_only": True}, False, False),
    ],
)
def test_allowed_tools_are_a_limit(allowed: Any, read: bool, write: bool) -> None:
    made = server(allowed_tools=allowed)
    assert (made.allows(READ), made.allows(WRITE)) == (read, write)


@pytest.mark.parametrize(
    ("approval", "read", "write"),
    [
        (None, True, True),
        ("always", True, True),
        ("never", False, False),
        ({"never": {"tool_names": ["read"]}}, False, True),
        ({"never": ["read"]}, False, True),
        ({"never": {"read_only": True}}, False, True),
        ({"always": {"tool_names": ["write"]}, "never": {"tool_names": ["read", "write"]}}, False, True),
        ({"always": ["write"]}, True, True),
    ],
)
def test_a_call_needs_an_approval_unless_it_is_said_that_it_does_not(approval: Any, read: bool, write: bool) -> None:
    made = server(require_approval=approval)
    assert (made.needs_approval(READ), made.needs_approval(WRITE)) == (read, write)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"server_label": None}, "server_label"),
        ({"server_label": "a b"}, "server_label"),
        ({"server_url": None}, "server_url"),
        ({"connector_id": "c"}, "server_url"),
        ({"server_url": "ftp://x"}, "server_url"),
        ({"server_url": 5}, "server_url"),
        ({"allowed_tools": "read"}, "allowed_tools"),
        ({"allowed_tools": {"tool_names": [1]}}, "allowed_tools"),
        ({"allowed_tools": {"read_only": "yes"}}, "allowed_tools.read_only"),
        ({"require_approval": "maybe"}, "require_approval"),
        ({"require_approval": {"sometimes": []}}, "require_approval"),
        ({"require_approval": {"never": 1}}, "require_approval.never"),
        ({"headers": {"host": "x"}}, "headers"),
        ({"authorization": 1}, "authorization"),
    ],
)
def test_what_cannot_be_is_refused(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(ApiError) as caught:
        server(**fields)
    assert (caught.value.status, caught.value.param) == (400, f"tools.0.{param}")


def test_secrets_are_neither_shown_nor_in_a_trace() -> None:
    tool = {"type": "mcp", "server_label": "s", "server_url": "https://u:sesame@a.example/sesame?k=sesame"}
    tool |= {
        "headers": {"x": "sesame"},
        "authorization": "sesame",
        "server_description": "d",
        "allowed_tools": ["read"],
    }
    shown = shown_server(tool)
    assert shown == {
        "type": "mcp",
        "server_label": "s",
        "server_url": "https://a.example/<redacted>",
        "server_description": "d",
        "allowed_tools": ["read"],
        "require_approval": "always",
        "headers": None,
    }
    made = read_server(tool, "tools.0")
    assert made.target.headers == {"x": "sesame", "Authorization": "Bearer sesame"}
    assert "sesame" not in made.fingerprint
    assert made.fingerprint == read_server({**tool, "authorization": "other"}, "tools.0").fingerprint
    assert made.fingerprint != server().fingerprint


def request(id: str, label: str = "s") -> dict[str, Any]:
    return {"type": "mcp_approval_request", "id": id, "server_label": label, "name": "write", "arguments": "{}"}


def response(id: str, approve: bool = True) -> dict[str, Any]:
    return {"type": "mcp_approval_response", "approval_request_id": id, "approve": approve}


def approved(before: list[Any], own: list[Any]) -> list[str]:
    servers = (McpServer("s", Target("https://x")),)
    return [made.request["id"] for made in read_approvals(read_items(before), read_items(own), servers)]


def test_approvals_are_of_calls_that_were_asked_for() -> None:
    assert approved([request("a"), request("b")], [response("b"), response("a", approve=False)]) == ["b"]
    assert approved([], [request("a"), response("a")]) == ["a"]
    made = {"type": "mcp_call", "server_label": "s", "name": "write", "arguments": "{}", "approval_request_id": "a"}
    assert approved([], [request("a"), response("a"), made]) == []


@pytest.mark.parametrize(
    ("before", "own", "param", "code"),
    [
        ([], [response("a")], "input.0.approval_request_id", "unknown_approval_request"),
        (
            [request("a"), response("a", approve=False)],
            [response("a")],
            "input.0.approval_request_id",
            "approval_answered",
        ),
        ([request("a")], [response("a"), response("a")], "input.1.approval_request_id", "approval_answered"),
        ([request("a", "other")], [response("a")], "tools", "invalid_value"),
    ],
)
def test_other_approvals_are_refused(before: list[Any], own: list[Any], param: str, code: str) -> None:
    with pytest.raises(ApiError) as caught:
        approved(before, own)
    assert (caught.value.status, caught.value.param, caught.value.code) == (400, param, code)
