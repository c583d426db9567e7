"""A server without a socket: `serve` runs a coroutine with its client and its stack, and stops it. Servers of tools."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from puna.core.chat import Message, ToolCall
from puna.core.completion import Completion, Usage
from puna.stack.app import make_app
from puna.stack.config import StackConfig
from puna.stack.context import Caller, Stack
from puna.stack.mcp.settings import ConnectorConfig, McpConfig
from puna.stack.providers.provider import Provider
from puna.stack.testing import listening, make_stack

Scenario = Callable[[httpx.AsyncClient, Stack], Awaitable[Any]]
OWNER = "x-test-owner"


@pytest.fixture
def serve(tmp_path: Path) -> Callable[..., Any]:
    """Runs `async def scenario(client, stack)` against a server over `tmp_path`; a header names the caller's owner.

    Further arguments are providers, or a function that changes the stack before it starts.
    """

    def run(scenario: Scenario, *providers: Provider, prepare: Callable[[Stack], None] | None = None) -> Any:
        async def go() -> Any:
            stack = make_stack(tmp_path, *providers)
            if prepare is not None:
                prepare(stack)
            app = make_app(stack)

            async def owned(scope: Any, receive: Any, send: Any) -> None:
                owner = dict(scope["headers"]).get(OWNER.encode(), b"").decode()
                scope.setdefault("state", {})["caller"] = Caller(owner=owner)
                await app(scope, receive, send)

            transport = httpx.ASGITransport(app=owned, raise_app_exceptions=False)
            talk = httpx.AsyncClient(transport=transport, base_url="http://test")
            async with app.router.lifespan_context(app), talk as client:
                return await scenario(client, stack)

        return asyncio.run(go())

    return run


FARM = Path(__file__).parent / "mcp" / "farm.py"


@pytest.fixture
def farm() -> Iterator[Any]:
    """A real server of tools on the loopback, which notes what it is asked."""
    with open_farm() as found:
        yield found


@contextmanager
def open_farm(**options: Any) -> Iterator[Any]:
    spec = importlib.util.spec_from_file_location("farm", FARM)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    watched = module.Watched(**options)
    with listening(watched.app) as address:
        watched.url = f"{address}/mcp"
        yield watched


@pytest.fixture
def farms() -> Callable[..., Any]:
    """Opens servers of tools with options of the reference implementation, each for a block."""
    return open_farm


@pytest.fixture
def farm_program() -> tuple[str, ...]:
    """The command of the same server on its standard streams."""
    return sys.executable, "-W", "ignore", str(FARM)


def tool_call(name: str, arguments: Mapping[str, Any], id: str = "call_1") -> Completion:
    """A turn of a model that calls a tool and says nothing."""
    return Completion(Message("assistant", "", (ToolCall(name, arguments, id),)), Usage(3, 3), "end_of_message")


@pytest.fixture
def calls() -> Callable[..., Completion]:
    """Makes an answer that is a call: `calls("count", {"herd": "abc"})`."""
    return tool_call


@pytest.fixture
def near() -> Callable[..., Callable[[Stack], None]]:
    """Lets requests name servers of this machine: `serve(..., prepare=near())`; further arguments are connectors."""

    def make(connectors: Mapping[str, ConnectorConfig] | None = None, **limits: Any) -> Callable[[Stack], None]:
        config = StackConfig(mcp=McpConfig(allow=("127.0.0.1",), **limits), connectors=connectors or {})
        return lambda stack: stack.parts.update(config=config)

    return make
