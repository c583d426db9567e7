"""Bodies in the form of HTML's forms, which the Open Responses schema allows beside JSON: read as JSON.

A value that is JSON (a number, a list, an object, true) is taken as such, any other as a text. It is for routes whose
body is an object.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import parse_qsl

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive

_FORM = "application/x-www-form-urlencoded"
_TEXTS = frozenset({"input", "instructions", "model", "user", "previous_response_id"})


class FormsToo(APIRoute):
    """A route that reads a form as it reads JSON."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        original = super().get_route_handler()

        async def handler(request: Request) -> Response:
            if request.headers.get("content-type", "").split(";")[0].strip().lower() == _FORM:
                request = _as_json(request, await request.body())
            return await original(request)

        return handler


def _as_json(request: Request, body: bytes) -> Request:
    fields = {name: _value(name, text) for name, text in parse_qsl(body.decode(errors="replace"), True)}
    content = json.dumps(fields).encode()
    replaced = {b"content-type": b"application/json", b"content-length": str(len(content)).encode()}
    headers = [(name, replaced.get(name, value)) for name, value in request.scope["headers"]]
    return Request({**request.scope, "headers": headers}, replayed(content, request.receive))


def replayed(content: bytes, receive: Receive) -> Receive:
    """The body, then what the server says next."""
    given = False

    async def read() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": content, "more_body": False}

    return read


def _value(name: str, text: str) -> Any:
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        return text
    # A user who says 42, or null, says a text; an id that is null is none.
    if name in _TEXTS and not isinstance(value, (list, dict)):
        return None if value is None and name != "input" else text
    return value
