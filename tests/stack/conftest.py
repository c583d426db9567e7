"""A server without a socket: `serve` runs a coroutine with its client and its stack, and stops it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from puna.stack.app import make_app
from puna.stack.context import Caller, Stack
from puna.stack.providers.provider import Provider
from puna.stack.testing import make_stack

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
