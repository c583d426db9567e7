"""Traffic for the server's benchmark: a stand-in for a model's server, and clients that cost little.

The stand-in speaks as much of OpenAI's chat API as both contenders ask of it. What it answers is in the model's name:
`words-16` gives sixteen words at once, `paced-100-50` gives a hundred pieces, one every 50 ms, each of which bears its
number and the moment at which it was sent. Client and stand-in write HTTP/1.1 themselves, with the standard library
alone: two cores carry them and the server between them, and whatever they use the server has not.

    python benchmarks/traffic.py PORT        the stand-in, until it is ended
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from collections.abc import Callable
from typing import Any

MODELS = ("words-16", "words-500", "paced-100-50", "paced-300-5")
_MODEL = re.compile(rb'"model":\s*"([a-z]+)-(\d+)(?:-(\d+))?"')
_STREAM = re.compile(rb'"stream":\s*true')
_LENGTH = re.compile(rb"(?i)\r\ncontent-length:\s*(\d+)")
_CHUNKED = re.compile(rb"(?i)\r\ntransfer-encoding:\s*chunked")
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\n"
_STAMP = re.compile(rb"#(\d+)@(\d+)")
_USAGE = {"prompt_tokens": 8, "completion_tokens": 16, "total_tokens": 24}


# The stand-in ---------------------------------------------------------------------------------------------------------


class StandIn(asyncio.Protocol):
    """One connection of the stand-in."""

    def __init__(self) -> None:
        self.held = b""
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self.held += data
        end = self.held.find(b"\r\n\r\n")
        if end < 0:
            return
        length = _LENGTH.search(self.held, 0, end + 2)
        whole = end + 4 + (int(length[1]) if length else 0)
        if len(self.held) >= whole:
            request, self.held = self.held[:whole], self.held[whole:]
            self._answer(request)

    def _answer(self, request: bytes) -> None:
        found = _MODEL.search(request)
        if found is None:
            rows = [{"id": id, "object": "model", "created": 1, "owned_by": "stand-in"} for id in MODELS]
            self._whole({"object": "list", "data": rows})
        elif not _STREAM.search(request):
            message = {"role": "assistant", "content": "word " * int(found[2])}
            choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
            self._whole({**_named("chat.completion", found[0]), "choices": [choice], "usage": _USAGE})
        else:
            self.transport.write(_HEAD % b"text/event-stream" + b"transfer-encoding: chunked\r\n\r\n")
            if found[1] == b"words":
                self.transport.write(b"".join(_piece(found[0], "word ") for _ in range(int(found[2]))))
                self._end(found[0])
            else:
                self._pace(found, 0)

    def _pace(self, found: re.Match[bytes], number: int) -> None:
        """One piece now and the next after the pace's time, reckoned from the first so that delays do not add up."""
        if self.transport.is_closing():
            return
        if number == int(found[2]):
            self._end(found[0])
            return
        if number == 0:
            self.begun = time.perf_counter()
        self.transport.write(_piece(found[0], f"#{number}@{time.perf_counter_ns()} "))
        due = self.begun + (number + 1) * int(found[3]) / 1000
        asyncio.get_running_loop().call_later(due - time.perf_counter(), self._pace, found, number + 1)

    def _end(self, model: bytes) -> None:
        choice = {"index": 0, "delta": {}, "finish_reason": "stop", "logprobs": None}
        usage = {**_named("chat.completion.chunk", model), "choices": [], "usage": _USAGE}
        last = _event({**_named("chat.completion.chunk", model), "choices": [choice]}) + _event(usage)
        self.transport.write(last + _chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")

    def _whole(self, value: dict[str, Any]) -> None:
        body = json.dumps(value).encode()
        self.transport.write(_HEAD % b"application/json" + b"content-length: %d\r\n\r\n" % len(body) + body)


def _named(kind: str, model: bytes) -> dict[str, Any]:
    return {"id": "chatcmpl-1", "object": kind, "created": 1, "model": model.split(b'"')[3].decode()}


def _piece(model: bytes, text: str) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None, "logprobs": None}
    return _event({**_named("chat.completion.chunk", model), "choices": [choice]})


def _event(value: dict[str, Any]) -> bytes:
    return _chunk(b"data: " + json.dumps(value).encode() + b"\n\n")


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


async def _stand_in(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(StandIn, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


# Clients --------------------------------------------------------------------------------------------------------------


class Client(asyncio.Protocol):
    """A connection that sends one request after another.

    Args:
        arrived: told of what arrives, when it does.
    """

    def __init__(self, arrived: Callable[[bytes], object] | None = None) -> None:
        self.arrived = arrived
        self.transport: asyncio.Transport
        self.held = bytearray()
        self.done: asyncio.Future[bytes] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    async def ask(self, request: bytes) -> bytes:
        """The whole answer, headers and all.

        Raises:
            ConnectionError: it broke off.
        """
        self.held.clear()
        self.done = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return await self.done

    def data_received(self, data: bytes) -> None:
        if self.arrived is not None:
            self.arrived(data)
        self.held += data
        if self.done is not None and not self.done.done() and _is_whole(self.held):
            self.done.set_result(bytes(self.held))

    def connection_lost(self, exc: Exception | None) -> None:
        if self.done is not None and not self.done.done():
            self.done.set_exception(exc or ConnectionError(f"The server hung up after {bytes(self.held[-200:])!r}."))


def _is_whole(held: bytearray) -> bool:
    end = held.find(b"\r\n\r\n")
    if end < 0:
        return False
    if _CHUNKED.search(held, 0, end + 2):
        return held.endswith(b"\r\n0\r\n\r\n")
    length = _LENGTH.search(held, 0, end + 2)
    return len(held) >= end + 4 + (int(length[1]) if length else 0)


def request(path: str, body: dict[str, Any] | None = None) -> bytes:
    data = b"" if body is None else json.dumps(body).encode()
    method = "GET" if body is None else "POST"
    head = f"{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    return head.encode() + b"content-length: %d\r\n\r\n" % len(data) + data


async def connect(port: int, arrived: Callable[[bytes], object] | None = None) -> Client:
    _, client = await asyncio.get_running_loop().create_connection(lambda: Client(arrived), "127.0.0.1", port)
    return client


async def rate(port: int, sent: bytes, concurrency: int, seconds: float) -> float:
    """Answered requests per second, of connections that each have one request under way at any time.

    Raises:
        RuntimeError: an answer was not 200.
    """
    clients = [await connect(port) for _ in range(concurrency)]
    answered, ends = 0, 0.0

    async def go(client: Client) -> None:
        nonlocal answered
        while True:
            whole = await client.ask(sent)
            if not whole.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(f"The server says {whole[:500]!r}.")
            if time.perf_counter() >= ends:
                return
            answered += 1

    ends = time.perf_counter() + 60
    await asyncio.gather(*(client.ask(sent) for client in clients))  # warms what the first answers have not
    begun = time.perf_counter()
    ends = begun + seconds
    await asyncio.gather(*map(go, clients))
    for client in clients:
        client.transport.close()
    return answered / seconds


async def listen(port: int, sent: bytes) -> tuple[list[float], bytes]:
    """The delay of every piece of a paced answer, in milliseconds, and the answer."""
    delays: list[float] = []
    following = 0

    def arrived(data: bytes) -> None:
        nonlocal following
        now = time.perf_counter_ns()
        for number, stamp in _STAMP.findall(data):
            # A responses stream repeats its whole text at the end, when all pieces have come.
            if int(number) >= following:
                following = int(number) + 1
                delays.append((now - int(stamp)) / 1e6)

    client = await connect(port, arrived)
    whole = await client.ask(sent)
    client.transport.close()
    return delays, whole


def deltas(answer: bytes) -> list[int]:
    """The numbers of the pieces that a streamed answer handed out, in order."""
    found: list[int] = []
    for line in _unchunked(answer).split(b"\n"):
        if line.startswith(b"data: {"):
            event = json.loads(line[6:])
            text = event.get("delta") if event.get("type") == "response.output_text.delta" else None
            for choice in event.get("choices", ()):
                text = choice["delta"].get("content")
            if isinstance(text, str):
                found += [int(number) for number, _ in _STAMP.findall(text.encode())]
    return found


def _unchunked(answer: bytes) -> bytes:
    rest = answer[answer.index(b"\r\n\r\n") + 4 :]
    parts = []
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        length = int(size, 16)
        parts.append(rest[:length])
        rest = rest[length + 2 :]
    return b"".join(parts)


if __name__ == "__main__":
    asyncio.run(_stand_in(int(sys.argv[1])))
