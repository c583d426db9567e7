"""Streamable HTTP: each message is a POST, and its answer comes as JSON or as a stream of events.

A stream that breaks before its answer is resumed where the server gave it ids. Redirects are followed on the same host
alone. Left out: the listening stream (GET) for what a server says unasked, since nothing here waits for it, and the
older transport of 2024-11-05 with two addresses.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any

import httpx

from puna.base.errors import PunaError
from puna.base.events import ServerEvent, ServerEvents
from puna.stack.mcp.protocol import McpError, Message, SessionGoneError, is_answer, reply, result_of

_SESSION = "mcp-session-id"
_ACCEPT = {"Accept": "application/json, text/event-stream"}
_REDIRECTS, _RESUMPTIONS = 3, 5
_RETRY_SECONDS = 1.0
_LEAVE_SECONDS = 2.0


class HttpTransport:
    """Args:
    client: that sends, and is closed with this.
    url: of the server.
    headers: of every request.
    max_bytes: of one answer.
    """

    ends_with_stream = True

    def __init__(self, client: httpx.AsyncClient, url: str, headers: Mapping[str, str], max_bytes: int) -> None:
        self._client, self._url, self._max_bytes = client, httpx.URL(url), max_bytes
        self._headers = dict(headers)
        self._session = ""
        self._version: dict[str, str] = {}

    async def request(self, message: Message, headers: Mapping[str, str]) -> Message:
        if message["method"] == "initialize":
            self._session = ""
        resume, wait = "", _RETRY_SECONDS
        for attempt in range(_RESUMPTIONS):
            if attempt:
                await asyncio.sleep(wait)
            again = {**headers, "Last-Event-ID": resume}
            opened = self._open("GET", None, again) if attempt else self._open("POST", message, headers)
            async with opened as response:
                if message["method"] == "initialize":
                    self._session = response.headers.get(_SESSION, "")
                if response.headers.get("content-type", "").partition(";")[0].strip() != "text/event-stream":
                    return _answer(await self._read(response), message["id"])
                async with aclosing(self._events(response)) as events:
                    async for event in events:
                        resume, wait = event.id or resume, wait if event.retry is None else event.retry
                        if event.data and (answer := await self._heard(event.data, message["id"], headers)):
                            return answer
            if not resume:
                break
        raise McpError("The server's stream ended without an answer.")

    async def _events(self, response: httpx.Response) -> AsyncGenerator[ServerEvent, None]:
        events = ServerEvents()
        async for chunk in response.aiter_bytes():
            for event in events.feed(chunk):
                yield event
            if events.held > self._max_bytes:
                raise self._too_long()

    def _too_long(self) -> McpError:
        return McpError(f"The server's answer is longer than {self._max_bytes:,} bytes.")

    async def _heard(self, data: bytes, id: Any, headers: Mapping[str, str]) -> Message | None:
        """One message of a stream: the answer, or something that the server wants to know."""
        try:
            message = json.loads(data)
        except ValueError as error:
            raise McpError("The server's stream has an event that is not JSON.") from error
        if isinstance(message, Mapping) and not is_answer(message) and (answer := reply(message)):
            await self.notify(answer, {name: headers[name] for name in headers if name == "MCP-Protocol-Version"})
        return message if is_answer(message) and message["id"] == id else None

    async def notify(self, message: Message, headers: Mapping[str, str]) -> None:
        async with self._open("POST", message, headers):
            return

    @asynccontextmanager
    async def _open(
        self, method: str, message: Message | None, headers: Mapping[str, str]
    ) -> AsyncIterator[httpx.Response]:
        """An answer whose status is good.

        Raises:
            McpError: it is not, or there is no answer.
        """
        sent = {**self._headers, **_ACCEPT, **headers, **({_SESSION: self._session} if self._session else {})}
        self._version = {name: headers[name] for name in headers if name == "MCP-Protocol-Version"} or self._version
        try:
            for _ in range(_REDIRECTS):
                async with self._client.stream(method, self._url, json=message, headers=sent) as response:
                    if not response.has_redirect_location:
                        await self._refuse(response)
                        yield response
                        return
                    self._url = self._redirected(response)
            raise McpError("The server sends from one address to the next.")
        except httpx.HTTPError as error:
            raise McpError(f"The server cannot be reached: {type(error).__name__}.") from error
        except McpError:
            raise
        except PunaError as error:
            raise McpError(error.message) from error

    def _redirected(self, response: httpx.Response) -> httpx.URL:
        there = self._url.join(response.headers["location"])
        same = (there.scheme, there.host, there.port) == (self._url.scheme, self._url.host, self._url.port)
        if response.status_code not in (307, 308) or not same:
            raise McpError(f"The server sends to {there.scheme}://{there.host}; give that address.")
        return there

    async def _refuse(self, response: httpx.Response) -> None:
        status = response.status_code
        if status < 300:
            return
        if status == 404 and self._session:
            raise SessionGoneError("The server has forgotten the session.", status, http=True)
        if status in (401, 403):
            raise McpError(f"The server answers with status {status}: it asks for an authorization.", status, http=True)
        body: Any = None
        with suppress(ValueError):
            body = json.loads(await self._read(response))
        # The stateless age puts a JSON-RPC error beside the status.
        if isinstance(body, Mapping) and isinstance(body.get("error"), Mapping) and "jsonrpc" in body:
            result_of(body)
        raise McpError(f"The server answers with status {status}.", status, http=True)

    async def _read(self, response: httpx.Response) -> bytes:
        read = bytearray()
        async for chunk in response.aiter_bytes():
            read += chunk
            if len(read) > self._max_bytes:
                raise self._too_long()
        return bytes(read)

    async def forget(self) -> None:
        self._session = ""

    async def close(self) -> None:
        """Ends the session there, if the server is quick to hear of it."""
        with suppress(McpError, TimeoutError):
            if self._session:
                async with asyncio.timeout(_LEAVE_SECONDS), self._open("DELETE", None, self._version):
                    self._session = ""
        await self._client.aclose()


def _answer(body: bytes, id: Any) -> Message:
    """The answer to a request in a body; the version of 2025-03-26 may put several messages in one."""
    try:
        found = json.loads(body)
    except ValueError as error:
        raise McpError("The server's answer is not JSON.") from error
    messages: Sequence[Any] = found if isinstance(found, list) else [found]
    for message in messages:
        # A refusal of what could not be read has the id null.
        if is_answer(message) and message["id"] in (id, None):
            return message
    raise McpError("The server's answer is not to what it was asked.")
