"""HTTP/1.1 to a model's server, as a transport of httpx: half of what an answer passed on costs is this part.

httpx's own transport looks at every idle connection before every request, by a system call each; here the event loop
tells which of them has ended. Connections are used again in the order of the last that came back, one request at a
time, and one whose answer was not read to its end is closed, by which the server knows to stop.

Left out: HTTP/2, proxies (`transport_for` leaves both to httpx), and a second sending of what a server hung up on;
`puna.stack.providers.openai` decides that.
"""

from __future__ import annotations

import asyncio
import re
import urllib.request
from collections.abc import AsyncIterator
from typing import Any

import httpx

from puna.base.web import is_loopback

_MOST_WAITING = 1 << 20  # bytes that nobody has read yet, beyond which the server has to wait
_LONGEST_HEAD = 1 << 16
_IDLE = 64  # connections that wait for a request
_STATUS = re.compile(rb"HTTP/1\.([01]) (\d{3})(?: ([^\r\n]*))?$")
_SIZE = re.compile(rb"[0-9a-fA-F]{1,15}$")
_ENDS = re.compile(rb"[\r\n\0]")
_BODILESS = (204, 304)


def transport_for(url: httpx.URL) -> httpx.AsyncBaseTransport | None:
    """The transport for a server; None, which is httpx's own, where the environment names a proxy to it."""
    if is_loopback(url.host) or not urllib.request.getproxies() or urllib.request.proxy_bypass(url.host):
        return Transport()
    return None


class Transport(httpx.AsyncBaseTransport):
    """Connections to any servers."""

    def __init__(self) -> None:
        self._idle: dict[tuple[str, str, int], list[_Connection]] = {}
        self._tls: Any = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Sends a request; gives its answer when the headers have come.

        Raises:
            httpx.TransportError: it cannot be connected to, broke off, was silent for too long, or is not HTTP; or a
                header cannot be sent.
        """
        timeouts = request.extensions.get("timeout", {})
        body = await request.aread()
        head = _head(request)
        connection = self._waiting(request.url) or await self._connected(request.url, timeouts.get("connect"))
        try:
            connection.send(head + body)
            status, reason, headers = await connection.head(timeouts.get("read"))
            stream = _Body(self, request, connection, status, headers, timeouts.get("read"))
        except BaseException:
            connection.close()
            raise
        return httpx.Response(status, headers=headers, stream=stream, extensions={"reason_phrase": reason})

    def _waiting(self, url: httpx.URL) -> _Connection | None:
        idle = self._idle.get(_place(url), [])
        while idle:
            connection = idle.pop()
            if connection.is_usable:
                return connection
            connection.close()
        return None

    async def _connected(self, url: httpx.URL, seconds: float | None) -> _Connection:
        scheme, host, port = _place(url)
        if scheme == "https" and self._tls is None:
            self._tls = httpx.create_ssl_context()
        try:
            async with asyncio.timeout(seconds):
                tls = self._tls if scheme == "https" else None
                loop = asyncio.get_running_loop()
                return (await loop.create_connection(_Connection, host, port, ssl=tls))[1]
        except TimeoutError as error:
            raise httpx.ConnectTimeout(f"{host}:{port} does not answer.") from error
        except (OSError, ValueError) as error:  # ValueError: a host that no name can be
            raise httpx.ConnectError(str(error)) from error

    def give_back(self, url: httpx.URL, connection: _Connection) -> None:
        """Takes a connection whose answer was read to its end."""
        idle = self._idle.setdefault(_place(url), [])
        if len(idle) < _IDLE:
            idle.append(connection)
        else:
            connection.close()

    async def aclose(self) -> None:
        for idle in self._idle.values():
            for connection in idle:
                connection.close()
        self._idle.clear()


def _place(url: httpx.URL) -> tuple[str, str, int]:
    return url.scheme, url.raw_host.decode(), url.port or (443 if url.scheme == "https" else 80)


def _head(request: httpx.Request) -> bytes:
    """Raises:
    httpx.LocalProtocolError: a line would end early, and what follows would be a header of its own.
    """
    lines = [b"%b %b HTTP/1.1" % (request.method.encode(), request.url.raw_path)]
    lines += [b"%b: %b" % pair for pair in request.headers.raw]
    if any(_ENDS.search(line) for line in lines):
        raise httpx.LocalProtocolError("A header holds an end of line.")
    return b"\r\n".join(lines) + b"\r\n\r\n"


class _Connection(asyncio.Protocol):
    def __init__(self) -> None:
        self._transport: asyncio.Transport
        self._came = bytearray()
        self._over = False
        self._fault: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self.rest = b""  # of an answer, what was read beyond its head

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self._came += data
        if len(self._came) > _MOST_WAITING:
            self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> None:
        self._over = True
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self._over, self._fault = True, exc
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    @property
    def is_usable(self) -> bool:
        """Whether it waits for a request; a server that speaks unasked says goodbye."""
        return not (self._over or self._came or self._transport.is_closing())

    def send(self, data: bytes) -> None:
        self._transport.write(data)

    async def read(self, seconds: float | None) -> bytes:
        """What has come; b"" at the end."""
        if not self._came and not self._over:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                async with asyncio.timeout(seconds):
                    await self._waiter
            except TimeoutError as error:
                raise httpx.ReadTimeout("The server is silent.") from error
        if not self._came and self._fault is not None:
            raise httpx.ReadError(str(self._fault)) from self._fault
        data = bytes(self._came)
        self._came.clear()
        if len(data) > _MOST_WAITING:
            self._transport.resume_reading()
        return data

    async def head(self, seconds: float | None) -> tuple[int, bytes, list[tuple[bytes, bytes]]]:
        """The status, its reason and the headers, past those that only say that an answer will come."""
        data = b""
        while True:
            while (end := data.find(b"\r\n\r\n")) < 0:
                _bounded(data)
                piece = await self.read(seconds)
                if not piece:
                    raise httpx.RemoteProtocolError("The server hung up without an answer.")
                data += piece
            first, *lines = data[:end].split(b"\r\n")
            data = data[end + 4 :]
            found = _STATUS.match(first)
            if found is None:
                raise httpx.RemoteProtocolError(f"The answer begins with {first[:40]!r}, which is not HTTP/1.1.")
            status = int(found[2])
            if status >= 200:
                break
        self.rest = data
        headers = [(b"connection", b"close")] if found[1] == b"0" else []
        for line in lines:
            name, colon, value = line.partition(b":")
            if not colon or not name or name != name.strip():
                raise httpx.RemoteProtocolError(f"{line[:40]!r} is not a header.")
            headers.append((name, value.strip()))
        return status, found[3] or b"", headers

    def close(self) -> None:
        self._transport.abort()


class _Body(httpx.AsyncByteStream):
    """The body of an answer; its end gives the connection back, and closing it earlier closes that."""

    def __init__(
        self,
        transport: Transport,
        request: httpx.Request,
        connection: _Connection,
        status: int,
        headers: list[tuple[bytes, bytes]],
        seconds: float | None,
    ) -> None:
        self._transport, self._request, self._connection, self._seconds = transport, request, connection, seconds
        self._left = False
        said = {name.lower(): value.lower() for name, value in headers}
        self._last = b"close" in said.get(b"connection", b"")
        self._framing: _Chunks | _Length
        if request.method == "HEAD" or status in _BODILESS:
            self._framing = _Length(0)
        elif b"chunked" in said.get(b"transfer-encoding", b""):
            self._framing = _Chunks()
        else:
            length = said.get(b"content-length")
            if length is not None and not length.isdigit():
                raise httpx.RemoteProtocolError(f"The length is {length[:40]!r}.")
            self._framing = _Length(None if length is None else int(length))

    async def __aiter__(self) -> AsyncIterator[bytes]:
        framing, connection = self._framing, self._connection
        data, connection.rest = connection.rest, b""
        while True:
            if piece := framing.feed(data):
                yield piece
            if framing.over:
                break
            data = await connection.read(self._seconds)
            if not data:
                if framing.until_closed:
                    break
                raise httpx.RemoteProtocolError("The answer broke off.")
        if not (self._last or framing.until_closed or framing.too_much):
            self._transport.give_back(self._request.url, connection)
        else:
            connection.close()
        self._left = True

    async def aclose(self) -> None:
        if not self._left:
            self._connection.close()


class _Length:
    """A body of so many bytes; of None, all up to the end of the connection."""

    def __init__(self, left: int | None) -> None:
        self._left = left
        self.until_closed, self.over, self.too_much = left is None, left == 0, False

    def feed(self, data: bytes) -> bytes:
        if self._left is None:
            return data
        self.too_much = len(data) > self._left
        data = data[: self._left]
        self._left -= len(data)
        self.over = self._left == 0
        return data


class _Chunks:
    """A body in chunks (RFC 9112, section 7.1)."""

    until_closed = False

    def __init__(self) -> None:
        self.over = self.too_much = False
        self._held = b""
        self._left = 0  # bytes of the chunk under way, with the two that end it

    def feed(self, data: bytes) -> bytes:
        """The bytes of the body in what has come.

        Raises:
            httpx.RemoteProtocolError: it is not in chunks.
        """
        held, at, parts = self._held + data, 0, []
        while not self.over:
            if self._left:
                if self._left > 2:
                    parts.append(held[at : at + self._left - 2])
                step = min(self._left, len(held) - at)
                at, self._left = at + step, self._left - step
                if self._left:
                    break
            end = held.find(b"\r\n", at)
            if end < 0:
                _bounded(held[at:])
                break
            size = held[at:end].partition(b";")[0].strip()
            if not _SIZE.match(size):
                raise httpx.RemoteProtocolError(f"A chunk has the size {size[:40]!r}.")
            length = int(size, 16)
            if length == 0:
                self.over = self._ended(held, end)
                break
            at, self._left = end + 2, length + 2
        self._held = held[at:]
        return b"".join(parts)

    def _ended(self, held: bytes, end: int) -> bool:
        """Whether the empty line that ends the trailers has come too."""
        closing = held.find(b"\r\n\r\n", end)
        if closing < 0:
            _bounded(held[end:])
        self.too_much = closing >= 0 and len(held) > closing + 4
        return closing >= 0


def _bounded(data: bytes) -> None:
    if len(data) > _LONGEST_HEAD:
        raise httpx.RemoteProtocolError(f"Headers or sizes have more than {_LONGEST_HEAD:,} bytes.")
