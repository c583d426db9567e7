"""`Session`: a talk with one server of tools, over whatever carries it.

The handshake is made when it is first needed, and once more where the server has forgotten the session. A server that
knows no handshake any more is spoken to in the stateless way. Every request has a time limit; one that is given up, by
the limit or because nobody waits any more, is cancelled on the server too.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Protocol

from puna.stack.mcp.protocol import (
    CLIENT,
    LATEST,
    SERVER_INFO,
    STATELESS,
    UNSUPPORTED_VERSION,
    VERSIONS,
    CallResult,
    McpError,
    Message,
    RemoteTool,
    SessionGoneError,
    call_result,
    headers_of,
    mapping,
    notification,
    request,
    result_of,
    tool_of,
)
from puna.stack.wire.base import clean

_PAGES = 100
_CANCEL_SECONDS = 2.0


class Transport(Protocol):
    """Carries messages to a server and back.

    Attributes:
        ends_with_stream: whether giving up a request of the stateless age needs no word of its own.
    """

    ends_with_stream: bool

    async def request(self, message: Message, headers: Mapping[str, str]) -> Message:
        """The answer to a request.

        Raises:
            McpError: there is none.
        """
        ...

    async def notify(self, message: Message, headers: Mapping[str, str]) -> None: ...

    async def forget(self) -> None:
        """Begins anew: the next message is a handshake."""
        ...

    async def close(self) -> None: ...


class Session:
    """Args:
        transport: to the server.
        seconds: for one answer.
        max_tools: that a server may have.

    Attributes:
        server: what it says of itself, once it has been asked: {"name", "version"}.
    """

    def __init__(self, transport: Transport, seconds: float = 60.0, max_tools: int = 256) -> None:
        self.transport, self.seconds, self._max_tools = transport, seconds, max_tools
        self.server: Mapping[str, Any] = {}
        self._capabilities: Mapping[str, Any] = {}
        self._tools: dict[str, RemoteTool] = {}
        self._ids = itertools.count(1)
        self._era = ""  # the version that both speak; "" before the handshake
        self._life = 0  # how often the server has forgotten the session
        self._greeting = asyncio.Lock()

    @property
    def version(self) -> str:
        return self._era

    async def start(self) -> None:
        """Makes the handshake, unless it has been made.

        Raises:
            McpError: the server is away, or speaks no version that is known here.
        """
        async with self._greeting:
            if not self._era:
                await self._handshake()

    async def _handshake(self) -> None:
        wanted = {"protocolVersion": LATEST, "capabilities": {}, "clientInfo": CLIENT}
        try:
            result = await self._ask("initialize", wanted, "")
        except McpError as error:
            known = mapping(error.data).get("supported")
            if error.code != UNSUPPORTED_VERSION or not isinstance(known, list) or STATELESS not in known:
                raise
            result = await self._ask("server/discover", {}, STATELESS)
            self._learn(result, STATELESS)
            return
        chosen = result.get("protocolVersion")
        if chosen not in VERSIONS:
            raise McpError(
                f"The server speaks version {str(chosen)[:40]!r} of the protocol; known here are {', '.join(VERSIONS)}."
            )
        await self.transport.notify(notification("notifications/initialized"), headers_of("", {}, chosen, None))
        self._learn(result, chosen)

    def _learn(self, result: Mapping[str, Any], era: str) -> None:
        self.server = mapping(result.get("serverInfo") or mapping(result.get("_meta")).get(SERVER_INFO))
        self._capabilities = mapping(result.get("capabilities"))
        self._era = era

    async def list_tools(self) -> tuple[RemoteTool, ...]:
        """All tools of the server, page by page.

        Raises:
            McpError: they cannot be had, or are too many.
        """
        await self.start()
        found: dict[str, RemoteTool] = {}
        cursor, seen = None, set()
        # A server without the capability has no tools, and may not be asked for any.
        for _ in range(_PAGES if "tools" in self._capabilities else 0):
            result = await self.request("tools/list", {"cursor": cursor} if cursor else {})
            rows = result.get("tools")
            tools = filter(None, map(tool_of, rows if isinstance(rows, list) else ()))
            found |= {tool.name: tool for tool in tools}
            if len(found) > self._max_tools:
                raise McpError(f"The server has more than {self._max_tools} tools.")
            cursor = result.get("nextCursor")
            if not isinstance(cursor, str) or not cursor or cursor in seen:
                break
            seen.add(cursor)
        self._tools = found
        return tuple(found.values())

    async def call(self, name: str, arguments: Mapping[str, Any], tool: RemoteTool | None = None) -> CallResult:
        """Runs a tool.

        Args:
            name: of the tool.
            arguments: for it.
            tool: as it was listed, where another session listed it.

        Raises:
            McpError: the server cannot run it. That the tool itself failed is a result.
        """
        params = {"name": name, "arguments": dict(arguments)}
        return call_result(await self.request("tools/call", params, tool or self._tools.get(name)))

    async def ping(self) -> None:
        """Asks whether the server is there; the stateless age has another word for it."""
        await self.start()
        await self.request("server/discover" if self._era == STATELESS else "ping", {})

    async def request(
        self, method: str, params: Mapping[str, Any], tool: RemoteTool | None = None
    ) -> Mapping[str, Any]:
        """Asks anything, after the handshake; a session that was lost is made anew once."""
        await self.start()
        life = self._life
        try:
            return await self._ask(method, params, self._era, tool)
        except SessionGoneError:
            # The server has not looked at the request: nothing is done twice.
            async with self._greeting:
                if life == self._life:  # else another request has seen it first
                    await self.transport.forget()
                    self._era, self._life = "", life + 1
            await self.start()
            return await self._ask(method, params, self._era, tool)

    async def _ask(
        self, method: str, params: Mapping[str, Any], era: str, tool: RemoteTool | None = None
    ) -> Mapping[str, Any]:
        message = request(next(self._ids), method, params, era)
        try:
            async with asyncio.timeout(self.seconds):
                answer = await self.transport.request(message, headers_of(method, params, era, tool))
            return clean(result_of(answer))
        except ValueError as error:
            raise McpError(f"The server's answer cannot be kept: {error}.") from error
        except TimeoutError as error:
            await self._cancel(message, era, f"no answer within {self.seconds:g} s")
            raise McpError(f"The server did not answer within {self.seconds:g} s.") from error
        except asyncio.CancelledError:
            await self._cancel(message, era, "nobody waits for it any more")
            raise

    async def _cancel(self, message: Message, era: str, reason: str) -> None:
        if message["method"] == "initialize" or (era == STATELESS and self.transport.ends_with_stream):
            return
        told = notification("notifications/cancelled", {"requestId": message["id"], "reason": reason})
        with suppress(McpError, TimeoutError):
            async with asyncio.timeout(_CANCEL_SECONDS):
                await self.transport.notify(told, headers_of("", {}, era, None))

    async def close(self) -> None:
        """Takes leave; the session can be used no more."""
        await self.transport.close()
