"""Public fakes for tests of the server: a provider that says what it is told to, a stack that keeps all in a folder,
and the server itself with its clients, in process (`running`, `talk`) or on a socket of this machine (`live`).
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TypeVar

import httpx
import uvicorn
from fastapi import APIRouter, FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from puna.core.chat import Message, ToolSpec
from puna.core.completion import Completion, Done, StreamEvent, TextDelta, ToolCallDelta, Usage
from puna.stack.app import make_app
from puna.stack.context import Caller, Stack
from puna.stack.providers.provider import Ask, Health, ModelInfo, Provider
from puna.stack.state.files import FileStore
from puna.stack.state.sqlite import SqliteStore

T = TypeVar("T")
MODELS = (ModelInfo("tiny", context_length=4096), ModelInfo("letters", "embedding", dimensions=26))


class ScriptedProvider:
    """Answers from a list, in turn; when the list is at its end it says the last user's words again.

    Args:
        id: of the provider.
        answers: texts, whole completions, or errors to raise.
        models: that it offers.
        pause: seconds between two words.

    Attributes:
        asked: all requests, in order.
        closed: how many streams were closed before their end.
    """

    type = "inline::scripted"

    def __init__(
        self,
        id: str = "scripted",
        answers: Iterable[str | Completion | Exception] = (),
        models: Sequence[ModelInfo] = (
            ModelInfo("tiny", context_length=4096),
            ModelInfo("letters", "embedding", dimensions=26),
        ),
        pause: float = 0.0,
    ) -> None:
        self.id, self.pause = id, pause
        self._answers, self._models = list(answers), tuple(models)
        self.asked: list[Ask] = []
        self.closed = 0

    async def start(self) -> None:
        return

    async def stop(self) -> None:
        return

    async def models(self) -> Sequence[ModelInfo]:
        return self._models

    async def health(self) -> Health:
        return Health(True)

    async def stream(self, ask: Ask) -> AsyncIterator[StreamEvent]:
        self.asked.append(ask)
        answer = self._answers.pop(0) if self._answers else _last_words(ask)
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, str):
            prompt = sum(len(message.content.split()) for message in ask.messages) or len(ask.prompt)
            answer = Completion(Message("assistant", answer), Usage(prompt, len(answer.split())))
        try:
            for word in _words(answer.message.content):
                await asyncio.sleep(self.pause)
                yield TextDelta(word)
            for call in answer.message.tool_calls:
                yield ToolCallDelta(call)
            yield Done(answer)
        except (GeneratorExit, asyncio.CancelledError):
            self.closed += 1
            raise

    async def embed(self, model: str, texts: Sequence[str]) -> list[list[float]]:
        """How often each letter stands in a text, as a vector of length 1."""
        del model
        counts = [[float(text.lower().count(letter)) for letter in "abcdefghijklmnopqrstuvwxyz"] for text in texts]
        return [[n / (sum(m * m for m in row) ** 0.5 or 1.0) for n in row] for row in counts]

    async def count_tokens(self, model: str, messages: Sequence[Message], tools: Sequence[ToolSpec] = ()) -> int | None:
        del model, tools
        return sum(len(message.content.split()) for message in messages)


def _last_words(ask: Ask) -> str:
    if not ask.messages:
        return ask.prompt if isinstance(ask.prompt, str) else " ".join(map(str, ask.prompt))
    return next((message.content for message in reversed(ask.messages) if message.role == "user"), "")


def _words(text: str) -> list[str]:
    words = text.split(" ")
    return [word if i == 0 else f" {word}" for i, word in enumerate(words)] if text else []


def make_stack(folder: Path, *providers: Provider) -> Stack:
    """A stack that keeps its records and files in a folder."""
    found: Mapping[str, Provider] = {provider.id: provider for provider in providers or (ScriptedProvider(),)}
    return Stack(SqliteStore(folder / "stack.db"), FileStore(folder / "files"), found)


# Servers --------------------------------------------------------------------------------------------------------------


class RunningServer:
    """An application that runs in this process, and its clients."""

    def __init__(self, app: FastAPI, stack: Stack) -> None:
        self.app, self.stack = app, stack

    def client(self, caller: Caller | None = None, path: str = "", raises: bool = False) -> httpx.AsyncClient:
        """A client without a socket.

        Args:
            caller: who it is; by default nobody, as on a server without keys.
            path: before all paths, such as "/v1".
            raises: whether what nobody foresaw is raised here too, and not only answered with 500.
        """

        async def called(scope: Scope, receive: Receive, send: Send) -> None:
            await self.app(scope if caller is None else {**scope, "state": {"caller": caller}}, receive, send)

        transport = httpx.ASGITransport(called, raise_app_exceptions=raises)
        return httpx.AsyncClient(transport=transport, base_url=f"http://test{path}")


@asynccontextmanager
async def running(stack: Stack, *routers: APIRouter) -> AsyncIterator[RunningServer]:
    """The server of a stack within the block, with further routes."""
    app = make_app(stack)
    for router in routers:
        app.include_router(router)
    async with app.router.lifespan_context(app):
        yield RunningServer(app, stack)


def talk(stack: Stack, work: Callable[[httpx.AsyncClient], Awaitable[T]], *routers: APIRouter) -> T:
    """Runs a server for as long as `work` talks to it; gives what that returns."""

    async def go() -> T:
        async with running(stack, *routers) as server, server.client() as client:
            return await work(client)

    return asyncio.run(go())


@contextmanager
def live(stack: Stack, path: str = "") -> Iterator[str]:
    """The address of a server on a free port of the loopback, within the block; `path` is added to it."""
    with listening(make_app(stack)) as address:
        yield f"{address}{path}"


@contextmanager
def listening(app: ASGIApp) -> Iterator[str]:
    """The address of any application on a free port of the loopback, within the block."""
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, lifespan="on")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            if not thread.is_alive():
                raise RuntimeError("The server has ended before it was ready.")
            time.sleep(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
