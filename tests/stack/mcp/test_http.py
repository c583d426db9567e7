"""Streamable HTTP, with servers that do what real ones may."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any

import httpx
import pytest

from puna.base.errors import InputError
from puna.stack.mcp.http import HttpTransport
from puna.stack.mcp.protocol import McpError, SessionGoneError

LIST = {"jsonrpc": "2.0", "id": 7, "method": "tools/list"}
ANSWER = {"jsonrpc": "2.0", "id": 7, "result": {"tools": []}}
Handler = Callable[[httpx.Request], httpx.Response]


def ask(handler: Handler, message: Mapping[str, Any] = LIST, limit: int = 1000) -> Any:
    async def go() -> Any:
        transport = httpx.MockTransport(handler)
        carrier = HttpTransport(httpx.AsyncClient(transport=transport), "https://tools.example/mcp", {}, limit)
        try:
            return await carrier.request(message, {"MCP-Protocol-Version": "2025-06-18"})
        finally:
            await carrier.close()

    return asyncio.run(go())


def events(*messages: Any, end: str = "\n\n") -> httpx.Response:
    text = "".join(f"data: {json.dumps(message)}{end}" for message in messages)
    return httpx.Response(200, headers={"content-type": "text/event-stream; charset=utf-8"}, text=text)


def test_an_answer_is_json_or_the_event_that_is_meant() -> None:
    assert ask(lambda _: httpx.Response(200, json=ANSWER)) == ANSWER
    assert ask(lambda _: httpx.Response(200, json=[{"method": "x"}, ANSWER])) == ANSWER
    other = {**ANSWER, "id": 6}
    assert ask(lambda _: events({"method": "notifications/message"}, other, ANSWER)) == ANSWER


def test_a_server_that_asks_within_a_stream_is_answered() -> None:
    heard: list[Any] = []

    def handler(request: httpx.Request) -> httpx.Response:
        heard.append(json.loads(request.content))
        if len(heard) > 1:
            return httpx.Response(202)
        return events({"jsonrpc": "2.0", "id": "p", "method": "ping"}, ANSWER)

    assert ask(handler) == ANSWER
    assert heard == [LIST, {"jsonrpc": "2.0", "id": "p", "result": {}}]


def test_a_stream_that_broke_is_resumed() -> None:
    heard: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        heard.append(request)
        if len(heard) == 1:
            headers = {"content-type": "text/event-stream"}
            return httpx.Response(200, headers=headers, text="id: e1\nretry: 1\ndata:\n\n")
        return events(ANSWER)

    assert ask(handler) == ANSWER
    assert [request.method for request in heard] == ["POST", "GET"]
    assert heard[1].headers["last-event-id"] == "e1"
    with pytest.raises(McpError, match="ended without an answer"):
        ask(lambda _: events({"method": "x"}))


@pytest.mark.parametrize(
    ("answer", "words", "code", "http"),
    [
        (httpx.Response(500), "status 500", 500, True),
        (httpx.Response(401, json={"jsonrpc": "2.0", "error": {"code": 1}}), "asks for an authorization", 401, True),
        (httpx.Response(404), "status 404", 404, True),
        (httpx.Response(400, json={"jsonrpc": "2.0", "id": None, "error": {"code": -32022, "message": "old"}}),
         "old", -32022, False),
        (httpx.Response(200, text="<html>"), "not JSON", 0, False),
        (httpx.Response(200, json={"id": 8, "result": {}}), "not to what", 0, False),
        (httpx.Response(200, text="x" * 1001), "longer than 1,000 bytes", 0, False),
        (httpx.Response(200, headers={"content-type": "text/event-stream"}, text="data: {\n\n"), "not JSON", 0, False),
        (httpx.Response(200, headers={"content-type": "text/event-stream"}, text="data: " + "x" * 1001),
         "longer than 1,000 bytes", 0, False),
        (httpx.Response(200, headers={"content-type": "text/event-stream"}, text="data: xxxxxxxxx\n" * 90),
         "longer than 1,000 bytes", 0, False),
        (httpx.Response(302, headers={"location": "/x"}), "give that address", 0, False),
        (httpx.Response(307, headers={"location": "https://evil.example/x"}), "https://evil.example;", 0, False),
        (httpx.Response(307, headers={"location": "/mcp"}), "one address to the next", 0, False),
    ],
)  # fmt: skip
def test_what_is_no_answer(answer: httpx.Response, words: str, code: int, http: bool) -> None:
    with pytest.raises(McpError, match=words) as caught:
        ask(lambda _: httpx.Response(answer.status_code, headers=answer.headers, content=answer.content))
    assert (caught.value.code, caught.value.http) == (code, http)


def test_a_redirect_on_the_same_host_is_followed_and_remembered() -> None:
    paths: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        paths.append(request.url.path)
        if request.url.path == "/mcp":
            return httpx.Response(307, headers={"location": "/mcp/"})
        return httpx.Response(200, json=ANSWER)

    assert ask(handler) == ANSWER
    assert paths == ["/mcp", "/mcp/"]


def test_a_server_that_is_away_or_out_of_reach() -> None:
    def away(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused by https://tools.example/mcp?key=sesame")

    with pytest.raises(McpError, match="cannot be reached: ConnectError") as caught:
        ask(away)
    assert "sesame" not in str(caught.value)

    def guarded(_: httpx.Request) -> httpx.Response:
        raise InputError("The host is not on the open internet.")

    with pytest.raises(McpError, match="open internet"):
        ask(guarded)


def test_a_session_lasts_from_the_handshake_to_the_leave() -> None:
    heard: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        heard.append(request)
        if request.method == "DELETE":
            return httpx.Response(405)
        if len(heard) == 1:
            return httpx.Response(200, json={**ANSWER, "id": 1}, headers={"mcp-session-id": "s1"})
        return httpx.Response(404)

    async def go() -> None:
        client = httpx.AsyncClient(transport=httpx.MockTransport(handler))
        carrier = HttpTransport(client, "https://tools.example/mcp", {"Authorization": "Bearer x"}, 1000)
        await carrier.request({"id": 1, "method": "initialize"}, {})
        with pytest.raises(SessionGoneError):
            await carrier.request(LIST, {"MCP-Protocol-Version": "2025-06-18"})
        await carrier.close()
        assert client.is_closed

    asyncio.run(go())
    assert [request.method for request in heard] == ["POST", "POST", "DELETE"]
    assert [request.headers.get("mcp-session-id") for request in heard] == [None, "s1", "s1"]
    assert all(request.headers["authorization"] == "Bearer x" for request in heard)
    assert heard[2].headers["mcp-protocol-version"] == "2025-06-18"
