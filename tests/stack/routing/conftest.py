"""Scripted servers with OpenAI's API on loopback: they delay, refuse, break off and hang on demand."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from puna.stack.providers.openai import OpenAIConfig, OpenAIProvider
from puna.stack.providers.provider import ModelInfo


@dataclass
class Step:
    """What a server does with one request.

    Attributes:
        text: of the answer.
        delay: seconds before its first piece.
        status: of HTTP.
        retry_after: header, in seconds.
        cut: pieces after which the connection breaks; None for none.
        hang: says nothing for ever.
        usage: tokens of prompt and answer.
    """

    text: str = "An answer of five words"
    delay: float = 0.0
    status: int = 200
    retry_after: str = ""
    cut: int | None = None
    hang: bool = False
    usage: tuple[int, int] = (100, 10)


@dataclass
class Server:
    """A server on a port of its own.

    Attributes:
        script: what it does with its requests, in turn; then the last step again and again.
        asked: bodies of the chat requests.
        left: how many clients left before the end.
    """

    script: list[Step] = field(default_factory=lambda: [Step()])
    asked: list[dict[str, Any]] = field(default_factory=list)
    left: int = 0
    url: str = ""

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            length = next(
                (int(line.split(":")[1]) for line in head.split("\r\n") if line.lower().startswith("content-length")), 0
            )
            body = await reader.readexactly(length)
            if "/chat/completions" not in head.split("\r\n")[0]:
                self._send(writer, 200, b'{"data": [{"id": "llama"}]}')
            else:
                self.asked.append(json.loads(body))
                step = self.script.pop(0) if len(self.script) > 1 else self.script[0]
                await self._answer(step, reader, writer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            self.left += 1
        finally:
            writer.close()

    @staticmethod
    def _send(writer: asyncio.StreamWriter, status: int, body: bytes, extra: str = "") -> None:
        head = f"HTTP/1.1 {status} Said\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n{extra}"
        writer.write(head.encode() + b"Connection: close\r\n\r\n" + body)

    async def _answer(self, step: Step, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if step.hang or step.delay:
            try:  # a client that leaves is noticed at once
                gone = await asyncio.wait_for(reader.read(), None if step.hang else step.delay)
                self.left += not gone
                return
            except TimeoutError:
                pass
        if step.status != 200:
            rest = f"Retry-After: {step.retry_after}\r\n" if step.retry_after else ""
            self._send(writer, step.status, json.dumps({"error": {"message": "scripted"}}).encode(), rest)
            return
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        )
        words = [word if i == 0 else f" {word}" for i, word in enumerate(step.text.split(" "))]
        for i, word in enumerate(words):
            if step.cut == i:
                writer.transport.abort()
                return
            self._chunk(writer, {"choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}]})
            await writer.drain()
        self._chunk(writer, {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        prompt, answer = step.usage
        self._chunk(writer, {"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": answer}})
        done = b"data: [DONE]\n\n"
        writer.write(f"{len(done):x}\r\n".encode() + done + b"\r\n0\r\n\r\n")

    @staticmethod
    def _chunk(writer: asyncio.StreamWriter, data: dict[str, Any]) -> None:
        event = f"data: {json.dumps(data)}\n\n".encode()
        writer.write(f"{len(event):x}\r\n".encode() + event + b"\r\n")


@asynccontextmanager
async def served(*servers: Server) -> AsyncIterator[list[OpenAIProvider]]:
    """Runs servers; gives a provider for each, "a", "b", ..., with the model "llama" and no retries of its own."""
    running, providers = [], []
    for i, server in enumerate(servers):
        socket = await asyncio.start_server(server.handle, "127.0.0.1", 0)
        running.append(socket)
        server.url = f"http://127.0.0.1:{socket.sockets[0].getsockname()[1]}/v1"
        models = [ModelInfo("llama", context_length=8192, features=frozenset({"tools"}))]
        providers.append(OpenAIProvider("abcdef"[i], OpenAIConfig(server.url, retries=0), models))
    try:
        yield providers
    finally:
        for provider in providers:
            await provider.stop()
        for socket in running:
            socket.close()


@pytest.fixture
def step() -> type[Step]:
    return Step


@pytest.fixture
def server() -> Callable[..., Server]:
    """Makes a server from its steps."""

    def make(*steps: Step) -> Server:
        return Server(list(steps) or [Step()])

    return make


@pytest.fixture
def serve() -> Callable[..., Any]:
    return served


def prices(*each: tuple[float, float]) -> Sequence[dict[str, Any]]:
    """Endpoints of a route for the providers "a", "b", ... with these prices."""
    return [{"provider": "abcdef"[i], "input": pair[0], "output": pair[1]} for i, pair in enumerate(each)]


@pytest.fixture
def priced() -> Callable[..., Sequence[dict[str, Any]]]:
    return prices
