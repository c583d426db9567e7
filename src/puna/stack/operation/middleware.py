"""What every request passes on its way in and out: its key, its limits, the size of its body, and a line in the log.

Plain ASGI, so that streams are not touched. The log has the route's template, never a path with ids in it, a query, a
body or a key.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from typing import Any

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from puna.stack import spans
from puna.stack.context import Caller
from puna.stack.errors import ApiError
from puna.stack.operation import keys
from puna.stack.operation.limits import Limits
from puna.stack.operation.metrics import Metrics
from puna.stack.state.store import Store, run

ACCESS = logging.getLogger("puna.access")
# Open without a key: whether the server lives, and the page, which brings the key that its user types in.
OPEN = ("/health", "/v1/health", "/version", "/v1/version")
OPEN_FOLDERS = ("/assets/",)
PROVIDER_KEYS = ("x-puna-provider-data", "x-ogx-provider-data", "x-llamastack-provider-data")


class Gate:
    """Lets in who has a key, if keys are asked for, and not more often than the limits say.

    Args:
        app: what lies behind.
        store: where keys are kept.
        limits: of requests.
        required: whether a request without a key is refused.
    """

    def __init__(self, app: ASGIApp, store: Store, limits: Limits, required: bool) -> None:
        self.app, self.store, self.limits, self.required = app, store, limits, required

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        if "caller" in scope.get("state", {}):  # the server's own, such as a batch's; nothing from outside has one
            await self.app(scope, receive, send)
            return
        try:
            caller = await self._caller(Headers(scope=scope), scope["path"])
            headers = {} if is_open(scope["path"]) else self.limits.admit(caller.key_id or caller.owner)
        except ApiError as refusal:
            await JSONResponse(refusal.body(), refusal.status, refusal.headers)(scope, receive, send)
            return
        scope.setdefault("state", {})["caller"] = caller
        await self.app(scope, receive, _adding(send, headers))

    async def _caller(self, headers: Headers, path: str) -> Caller:
        shown = headers.get("authorization", "")
        text = shown[7:].strip() if shown.lower().startswith("bearer ") else headers.get("x-api-key", "")
        own = provider_keys(headers)
        if text.startswith("puna-"):
            caller = await run(keys.verify, self.store, text)
            if not keys.allows(caller, path):
                raise ApiError(403, f"The key is not for {keys.scope_of(path)!r}.", code="insufficient_scope")
            return Caller(caller.owner, caller.key_id, caller.scopes, own)
        if self.required and not is_open(path):
            what = "is not one of this server's" if text else "is missing"
            raise ApiError(
                401, f"The API key {what}; send it as Authorization: Bearer puna-...", code="invalid_api_key"
            )
        return Caller(provider_keys=own)


def is_open(path: str) -> bool:
    return path == "/" or path in OPEN or path.startswith(OPEN_FOLDERS)


def provider_keys(headers: Headers) -> Mapping[str, str]:
    """The caller's own keys for providers, from JSON in a header: {"openrouter": "sk-..."} or "openrouter_api_key"."""
    for name in PROVIDER_KEYS:
        if text := headers.get(name):
            try:
                data: Any = json.loads(text)
                return {str(key).removesuffix("_api_key"): str(value) for key, value in data.items()}
            except (ValueError, AttributeError) as error:
                raise ApiError(400, f"The header {name} is not a JSON object of keys.", param=name) from error
    return {}


class BodyLimit:
    """Refuses bodies above a size before they are read whole; uploads of files have a limit of their own.

    Args:
        app: what lies behind.
        most: bytes.
        uploads: bytes of a multipart body.
    """

    def __init__(self, app: ASGIApp, most: int, uploads: int) -> None:
        self.app, self.most, self.uploads = app, most, uploads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        multipart = headers.get("content-type", "").startswith("multipart/")
        most = self.uploads + (1 << 20) if multipart else self.most
        refusal = ApiError(413, f"The body may have {most:,} bytes.", code="request_too_large")
        length = headers.get("content-length", "")
        if length.isdigit() and int(length) > most:
            await JSONResponse(refusal.body(), refusal.status)(scope, receive, send)
            return
        read = 0

        async def counted() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > most:
                raise refusal
            return message

        await self.app(scope, counted, send)


class Access:
    """Counts and logs every request when its answer has ended."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        self.metrics.active.inc()
        try:
            await self.app(scope, receive, watched)
        finally:
            self.metrics.active.dec()
            seconds, route = time.perf_counter() - started, template(scope)
            self.metrics.requests.labels(scope["method"], route, str(status)).inc()
            self.metrics.seconds.labels(route).observe(seconds)
            state = scope.get("state", {})
            caller = state.get("caller", Caller())
            line = {"id": state.get("request_id", ""), "method": scope["method"], "route": route, "status": status,
                    "ms": round(seconds * 1e3, 1), "key": caller.key_id}  # fmt: skip
            if (span := spans.current()) is not None:
                line["trace"] = span.trace_id
            ACCESS.info(json.dumps(line))


def template(scope: Scope) -> str:
    """The route that answered, as it is declared; one name for all that none answers."""
    route = scope.get("route")
    if path := getattr(route, "path", ""):
        return path
    # A plain route of Starlette leaves no trace but its endpoint; without parameters its path is its template.
    return scope["path"] if "endpoint" in scope and not scope.get("path_params") else "(none)"


def _adding(send: Send, headers: Mapping[str, str]) -> Send:
    if not headers:
        return send
    pairs = [(name.lower().encode(), value.encode()) for name, value in headers.items()]

    async def added(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], *pairs]
        await send(message)

    return added
