"""A talk with real servers of tools, and with made-up ones where a real one would not misbehave."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

import httpx
import pytest

from puna.stack.mcp.http import HttpTransport
from puna.stack.mcp.protocol import McpError, Message, SessionGoneError
from puna.stack.mcp.session import Session


def talk(url: str, work: Callable[[Session], Awaitable[Any]], seconds: float = 20.0, limit: int = 1 << 20) -> Any:
    async def go() -> Any:
        session = Session(HttpTransport(httpx.AsyncClient(), url, {"x-secret": "sesame"}, limit), seconds)
        try:
            return await work(session)
        finally:
            await session.close()

    return asyncio.run(go())


class Script:
    """A server that answers from a list and notes what it hears."""

    ends_with_stream = False

    def __init__(self, *answers: Mapping[str, Any] | Exception) -> None:
        self.answers, self.heard, self.forgotten = list(answers), list[Message](), 0

    async def request(self, message: Message, headers: Mapping[str, str]) -> Message:
        del headers
        self.heard.append(message)
        await asyncio.sleep(0)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return {"jsonrpc": "2.0", "id": message["id"], **answer}

    async def notify(self, message: Message, headers: Mapping[str, str]) -> None:
        del headers
        self.heard.append(message)

    async def forget(self) -> None:
        self.forgotten += 1

    async def close(self) -> None:
        return

    @property
    def methods(self) -> list[str]:
        return [message["method"] for message in self.heard]


def greeting(version: str = "2025-11-25", capabilities: Mapping[str, Any] | None = None) -> dict[str, Any]:
    able = {"tools": {}} if capabilities is None else capabilities
    return {"result": {"protocolVersion": version, "capabilities": able, "serverInfo": {"name": "s", "version": "1"}}}


@pytest.mark.parametrize("options", [{}, {"json_response": True}, {"stateless_http": True}])
def test_a_real_server(farms: Any, options: dict[str, Any]) -> None:
    async def work(session: Session) -> None:
        tools = {tool.name: tool for tool in await session.list_tools()}
        assert {"count", "shear", "fail"} <= set(tools)
        assert tools["count"].description == "Counts the llamas of a herd."
        assert tools["count"].schema["required"] == ["herd"]
        assert tools["count"].read_only
        assert not tools["shear"].read_only
        assert (session.server["name"], session.version) == ("Llama farm", "2025-11-25")
        result = await session.call("count", {"herd": "abc"})
        assert (result.text, result.structured, result.failed) == ("3", {"result": 3}, False)
        failed = await session.call("fail", {})
        assert (failed.text, failed.failed) == ("The llama spat.", True)
        assert "image/png" in (await session.call("look", {})).text
        unknown = await session.call("count", {"flock": "abc"})
        assert unknown.failed
        await session.ping()

    with farms(**options) as farm:
        talk(farm.url, work)
        assert farm.methods()[:3] == ["initialize", "notifications/initialized", "tools/list"]
        assert all(headers["x-secret"] == "sesame" for _, headers in farm.asked)
        versions = [headers.get("mcp-protocol-version") for _, headers in farm.asked]
        assert versions == [None, *["2025-11-25"] * (len(versions) - 1)]
        sessions = {headers.get("mcp-session-id") for _, headers in farm.asked[1:]}
        assert len(sessions) == 1
        assert (farm.methods()[-1] == "DELETE") is ("stateless_http" not in options)


def test_a_server_that_gives_no_answer_is_given_up_and_told_so(farm: Any) -> None:
    async def work(session: Session) -> None:
        await session.start()
        session.seconds = 0.3
        with pytest.raises(McpError, match=r"did not answer within 0\.3 s"):
            await session.call("wait", {})
        session.seconds = 20
        task = asyncio.ensure_future(session.call("wait", {}))
        while farm.ran.count("wait") < 2:
            await asyncio.sleep(0.01)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        while not farm.cancelled:
            await asyncio.sleep(0.01)

    talk(farm.url, work)
    assert farm.methods().count("notifications/cancelled") == 2


def test_a_session_that_was_lost_is_made_anew(farm: Any) -> None:
    async def work(session: Session) -> None:
        await session.call("count", {"herd": "a"})
        id = farm.asked[-1][1]["mcp-session-id"]
        async with httpx.AsyncClient() as other:
            gone = await other.delete(farm.url, headers={"mcp-session-id": id})
            assert gone.status_code == 200
        assert (await session.call("count", {"herd": "ab"})).text == "2"

    talk(farm.url, work)
    assert farm.methods().count("initialize") == 2
    assert farm.ran == ["count", "count"]


def test_two_requests_that_lose_a_session_make_one_new_one() -> None:
    answer = {"result": {"content": [], "isError": False}}
    gone = SessionGoneError("gone", 404, http=True)
    server = Script(greeting(), gone, gone, greeting(), answer, answer)

    async def go() -> None:
        session = Session(server)
        await session.start()
        await asyncio.gather(session.call("a", {}), session.call("b", {}))

    asyncio.run(go())
    assert (server.forgotten, server.methods.count("initialize")) == (1, 2)


def test_pages_are_read_to_their_end() -> None:
    def page(*names: str, cursor: str | None = None) -> dict[str, Any]:
        return {"result": {"tools": [{"name": name} for name in names], **({"nextCursor": cursor} if cursor else {})}}

    server = Script(greeting(), page("a", "b", cursor="1"), page("c", cursor="2"), page("d", cursor="1"))
    tools = asyncio.run(Session(server).list_tools())
    assert [tool.name for tool in tools] == ["a", "b", "c", "d"]
    assert [message.get("params") for message in server.heard[2:]] == [None, {"cursor": "1"}, {"cursor": "2"}]
    many = Script(greeting(), page("a", "b", "c"))
    with pytest.raises(McpError, match="more than 2 tools"):
        asyncio.run(Session(many, max_tools=2).list_tools())


def test_a_server_without_tools_is_not_asked_for_any() -> None:
    server = Script(greeting(capabilities={"prompts": {}}))
    assert asyncio.run(Session(server).list_tools()) == ()
    assert server.methods == ["initialize", "notifications/initialized"]


@pytest.mark.parametrize("version", ["2024-11-05", "2025-03-26", "2025-06-18"])
def test_older_versions_are_spoken(version: str) -> None:
    async def go() -> str:
        session = Session(Script(greeting(version)))
        await session.start()
        return session.version

    assert asyncio.run(go()) == version


def test_unknown_versions_are_refused() -> None:
    for answer in (greeting("1999-01-01"), {"result": {}}):
        with pytest.raises(McpError, match="known here are 2025-11-25"):
            asyncio.run(Session(Script(answer)).start())


def test_a_server_of_the_stateless_age_is_spoken_to_in_its_way() -> None:
    refused = {"error": {"code": -32022, "message": "no", "data": {"supported": ["2026-07-28"], "requested": "x"}}}
    found = {"result": {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}}}
    server = Script(
        McpError("no", -32022, data=refused["error"]["data"]), found, {"result": {"tools": [{"name": "a"}]}}
    )

    async def go() -> list[str]:
        return [tool.name for tool in await Session(server).list_tools()]

    assert asyncio.run(go()) == ["a"]
    assert server.methods == ["initialize", "server/discover", "tools/list"]
    assert all("_meta" in message["params"] for message in server.heard[1:])


def test_a_real_server_that_knows_no_handshake(farms: Any) -> None:
    async def work(session: Session) -> None:
        assert "count" in {tool.name for tool in await session.list_tools()}
        assert (session.version, session.server["name"]) == ("2026-07-28", "Llama farm")
        assert (await session.call("count", {"herd": "abc"})).text == "3"
        assert (await session.call("graze", {"meadow": " Ülm "})).text == "Grazing on  Ülm ."
        assert (await session.call("fail", {})).failed
        await session.ping()
        session.seconds = 0.3
        with pytest.raises(McpError, match="did not answer"):
            await session.call("wait", {})
        while not farm.cancelled:
            await asyncio.sleep(0.01)

    with farms(handshakes=False) as farm:
        talk(farm.url, work)
        assert farm.methods()[:3] == ["initialize", "server/discover", "tools/list"]
        graze = next(headers for _, headers in farm.asked if headers.get("mcp-name") == "graze")
        assert graze["mcp-param-meadow"] == "=?base64?IMOcbG0g?="
        # Closing the stream says it all, and there is no session to end.
        assert not {"notifications/cancelled", "notifications/initialized", "DELETE"} & set(farm.methods())


def test_what_cannot_be_kept_is_no_answer() -> None:
    deep: Any = "x"
    for _ in range(100):
        deep = [deep]
    server = Script(greeting(), {"result": {"content": [], "structuredContent": deep}})
    with pytest.raises(McpError, match="nested"):
        asyncio.run(Session(server).call("a", {}))
