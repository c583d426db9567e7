"""The server as its own client: a batch's requests go through the same routes as anybody's, on their owner's behalf.

No socket and no key: the caller stands in the request's scope before any middleware sees it, where nothing from the
network can put it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx
from starlette.types import ASGIApp, Receive, Scope, Send

from puna.stack.context import Caller

_AGAIN = (429, 503)
_TRIES = 4


@dataclass(frozen=True, slots=True)
class Reply:
    """What a request was answered."""

    status: int
    request_id: str
    body: Any


class OwnClient:
    """Asks an application's routes.

    Args:
        app: the application.
        pause: seconds before a request that was refused for now is made again; doubled each time.
    """

    def __init__(self, app: ASGIApp, pause: float = 1.0) -> None:
        self._app, self._pause = app, pause

    async def post(self, caller: Caller, path: str, body: Mapping[str, Any]) -> Reply:
        """One request, made again where the server has too much to do."""
        transport = httpx.ASGITransport(_acting_for(self._app, caller), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://batch", timeout=None) as client:
            answer = await client.post(path, json=body)
            for tried in range(1, _TRIES):
                if answer.status_code not in _AGAIN:
                    break
                await asyncio.sleep(_wait(answer.headers, self._pause * 2 ** (tried - 1)))
                answer = await client.post(path, json=body)
        return Reply(answer.status_code, answer.headers.get("x-request-id", ""), _body(answer))


def _acting_for(app: ASGIApp, caller: Caller) -> ASGIApp:
    async def acting(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "state": {"caller": caller}}, receive, send)

    return acting


def _wait(headers: Mapping[str, str], otherwise: float) -> float:
    try:
        return min(60.0, max(0.0, float(headers.get("retry-after", ""))))
    except ValueError:
        return otherwise


def _body(answer: httpx.Response) -> Any:
    try:
        return answer.json()
    except ValueError:
        return {"text": answer.text}
