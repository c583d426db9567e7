from __future__ import annotations

from typing import Any

import pytest

from puna.stack.errors import ApiError
from puna.stack.mcp.protocol import RemoteTool
from puna.stack.responses.tools import Offered, read_tools

F = {"type": "function", "name": "f", "parameters": {"type": "object", "properties": {}}}
G = {"type": "function", "name": "g"}
SEARCH = {"type": "file_search", "vector_store_ids": ["vs_1"], "max_num_results": 3}


def names(tools: Any) -> list[str]:
    return [tool.name for tool in tools]


def test_functions_are_shown_with_every_field() -> None:
    tools = read_tools([G], None, True)
    assert tools.shown == [{"type": "function", "name": "g", "description": None, "parameters": None, "strict": None}]
    assert tools.shown_choice == "auto"
    assert tools.offer(True) == (tools.specs, "auto")


def test_file_search_is_a_tool_of_the_model() -> None:
    tools = read_tools([SEARCH], None, True)
    assert tools.search is not None
    assert tools.search.limit == 3
    assert names(tools.specs) == ["file_search"]


def test_none_offers_nothing() -> None:
    assert read_tools([F], "none", True).offer(True) == ((), "none")


def test_a_forced_call_holds_for_the_first_turn() -> None:
    tools = read_tools([F, SEARCH], {"type": "file_search"}, True)
    offered, choice = tools.offer(True)
    assert (names(offered), choice) == (["file_search"], "file_search")
    offered, choice = tools.offer(False)
    assert (names(offered), choice) == (["f", "file_search"], "auto")


def test_allowed_tools_hold_for_all_turns() -> None:
    choice = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "g"}]}
    tools = read_tools([F, G], choice, True)
    assert [(names(offered), word) for offered, word in (tools.offer(True), tools.offer(False))] == [
        (["g"], "required"),
        (["g"], "auto"),
    ]
    assert tools.shown_choice == choice


def test_a_choice_among_servers_tools_is_made_when_they_are_known() -> None:
    servers = [{"type": "mcp", "server_label": label, "server_url": "https://x"} for label in ("a", "b")]

    def offered(choice: Any, first: bool = True) -> Any:
        tools = read_tools([F, *servers], choice, True)
        assert (names(tools.specs), tools.choice) == (["f"], "none" if choice == "none" else "auto")
        found = [Offered(server, RemoteTool(name)) for server in tools.servers for name in ("f", "go")]
        specs, word = tools.with_servers(found).offer(first)
        return names(specs), word

    every = ["f", "a_f", "go", "b_f", "b_go"]
    assert offered(None) == (every, "auto")
    assert offered("none") == ([], "none")
    assert offered("required") == (every, "required")
    assert offered({"type": "mcp", "server_label": "b"}) == (["b_f", "b_go"], "required")
    assert offered({"type": "mcp", "server_label": "b"}, first=False) == (every, "auto")
    assert offered({"type": "mcp", "server_label": "a", "name": "go"}) == (["go"], "go")
    allowed = {
        "type": "allowed_tools",
        "tools": [{"type": "mcp", "server_label": "a"}, {"type": "function", "name": "f"}],
    }
    assert offered(allowed) == (["f", "a_f", "go"], "auto")
    for wrong in ({"type": "mcp", "server_label": "a", "name": "none"}, {"type": "function", "name": "none"}):
        with pytest.raises(ApiError) as caught:
            offered(wrong)
        assert (caught.value.status, caught.value.param) == (400, "tool_choice")
    with pytest.raises(ApiError, match="'c', which is not among"):
        read_tools(servers, {"type": "mcp", "server_label": "c"}, True)
    with pytest.raises(ApiError, match="labelled 'a'"):
        read_tools([servers[0], servers[0]], None, True)


@pytest.mark.parametrize(
    ("tools", "choice", "status", "param"),
    [
        ([{"type": "web_search_preview"}], None, 501, "tools.0.type"),
        ([{"type": "hammer"}], None, 400, "tools.0.type"),
        ([{"type": "function", "name": "a b"}], None, 400, "tools.0.name"),
        ([F, F], None, 400, "tools.1"),
        ([F, {"type": "function", "name": "file_search"}, SEARCH], None, 400, "tools.2"),
        ([{"type": "function", "name": "f", "parameters": 3}], None, 400, "tools.0.parameters"),
        ([{"type": "file_search"}], None, 400, "tools.0.vector_store_ids"),
        ([{**SEARCH, "max_num_results": 51}], None, 400, "tools.0.max_num_results"),
        ([], "required", 400, "tool_choice"),
        ([F], {"type": "function", "name": "g"}, 400, "tool_choice"),
        ([F], "maybe", 400, "tool_choice"),
    ],
)
def test_what_cannot_be_is_refused(tools: list[Any], choice: Any, status: int, param: str) -> None:
    with pytest.raises(ApiError) as caught:
        read_tools(tools, choice, True)
    assert (caught.value.status, caught.value.param) == (status, param)
