"""The web application: every route of `routes`, with one form of error and one id for every request.

`make_app(stack)` is the whole server without a socket; `puna serve` puts it behind uvicorn, and tests talk to it as it
is. FastAPI reads bodies and writes the OpenAPI document; answers are built by the routes themselves.
"""

from __future__ import annotations

import json
import logging
import pkgutil
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from puna.base.card import version
from puna.base.errors import PunaError
from puna.stack import routes
from puna.stack.context import Stack
from puna.stack.errors import ApiError, as_api_error

_log = logging.getLogger(__name__)


def make_app(stack: Stack) -> FastAPI:
    """The application of a stack, which it starts and stops."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await stack.start()
        try:
            yield
        finally:
            await stack.stop()

    app = FastAPI(title="Puna", version=version(), lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.stack = stack
    for found in sorted(pkgutil.iter_modules(routes.__path__), key=lambda module: module.name):
        app.include_router(import_module(f"{routes.__name__}.{found.name}").router)
    app.add_exception_handler(Exception, _refused)
    for kind in (ApiError, PunaError, HTTPException, RequestValidationError):
        app.add_exception_handler(kind, _refused)
    app.add_middleware(RequestIds)
    app.openapi = lambda: _document(app)  # type: ignore[method-assign]
    return app


def _document(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        from puna.stack.document import document  # no server needs it to start

        app.openapi_schema = document(app)
    return app.openapi_schema


async def _refused(request: Request, error: Exception) -> JSONResponse:
    if isinstance(error, RequestValidationError):
        error = _invalid_body(error)
    elif isinstance(error, HTTPException):
        error = ApiError(
            error.status_code,
            f"{error.detail}: {request.method} {request.url.path}.",
            headers=dict(error.headers or {}),
        )
    refusal, headers = as_api_error(error), {}
    if not isinstance(error, ApiError):
        id = getattr(request.state, "request_id", "")
        if not isinstance(error, PunaError):
            headers = {"x-request-id": id}  # what nobody foresaw is answered outside of `RequestIds`
        if refusal.status >= 500:
            _log.error("%s failed", id, exc_info=error)
    return JSONResponse(refusal.body(), refusal.status, {**refusal.headers, **headers})


def _invalid_body(error: RequestValidationError) -> ApiError:
    """The first fault of a body, named by its place in it."""
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"] if part not in ("body", "query", "path"))
    if first["type"] == "json_invalid":
        return ApiError(
            400, f"The body is not JSON: {first.get('ctx', {}).get('error', first['msg'])}.", code="invalid_json"
        )
    given = json.dumps(first.get("input"), default=str, ensure_ascii=False)
    shown = "" if first["type"] == "missing" else f" (given: {given[:80]})"
    return ApiError(400, f"{place or 'The body'}: {first['msg']}{shown}.", param=place or None, code="invalid_value")


class RequestIds:
    """Gives every request an id, which its answer bears as X-Request-Id."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        id = f"req_{secrets.token_hex(12)}"
        scope.setdefault("state", {})["request_id"] = id

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                others = [pair for pair in message["headers"] if pair[0] != b"x-request-id"]
                message["headers"] = [*others, (b"x-request-id", id.encode())]
            await send(message)

        await self.app(scope, receive, named)
