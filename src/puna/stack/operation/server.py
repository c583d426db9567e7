"""Start and stop: from a `StackConfig` to a socket that answers.

A bind that others can reach is refused while there is no key. On SIGTERM and SIGINT no new request is taken, those
under way get `drain_seconds`, and then everything is put away; the process ends by the signal that it was sent. On
SIGHUP the certificate is read again, as it must where certificates are renewed every few weeks.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import ssl
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import APIRouter, FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response

from puna.base.errors import ConfigError, StorageError
from puna.base.registry import Registry
from puna.stack.app import make_app
from puna.stack.config import ServerConfig, StackConfig
from puna.stack.context import Stack
from puna.stack.operation import keys, tls
from puna.stack.operation.limits import Limits
from puna.stack.operation.metering import MeteredProvider
from puna.stack.operation.metrics import CONTENT_TYPE_LATEST, Metrics
from puna.stack.operation.middleware import Access, BodyLimit, Gate
from puna.stack.operation.otel import open_tracer
from puna.stack.operation.tracing import Tracing
from puna.stack.providers.provider import Provider
from puna.stack.routing.router import Router, read_routes
from puna.stack.spans import Tracer
from puna.stack.state.files import FileStore
from puna.stack.state.sqlite import SqliteStore
from puna.stack.state.store import Store

# Makes a provider of its name and its settings in stack.toml.
MakeProvider = Callable[[str, Mapping[str, Any]], Provider]
_ROUTER = "auto"
PROVIDERS: Registry[MakeProvider] = Registry("provider type", "puna.providers")
_log = logging.getLogger(__name__)


def open_store(database: str, folder: Path) -> Store:
    """The store of a path or an URL; by default a file in `folder`."""
    if database.startswith(("postgresql://", "postgres://")):
        from puna.stack.state.postgres import PostgresStore

        return PostgresStore(database)
    return SqliteStore(Path(database).expanduser() if database else folder / "stack.db")


def build(
    config: StackConfig, folder: Path, more: Mapping[str, Provider] | None = None, tracer: Tracer | None = None
) -> tuple[Stack, FastAPI]:
    """A stack and its application.

    Args:
        config: of the server.
        folder: where it keeps what the config gives no place.
        more: providers that stand beside the config's, such as the model that `puna serve` was given.
        tracer: where traces go, in place of the config's.
    """
    tracer = tracer or open_tracer(config.telemetry)
    store = open_store(config.storage.database, folder)
    keys.adopt(store, config.server.key)
    files = FileStore(Path(config.storage.files or folder / "files"), config.server.max_file_bytes)
    metrics = Metrics()
    limits = Limits(config.server.requests_per_minute, config.server.tokens_per_minute)
    providers = dict(more or {})
    for name, settings in config.providers.items():
        if name in providers:
            raise ConfigError(f"Two providers are called {name!r}.")
        rest = {key: value for key, value in settings.items() if key != "type"}
        providers[name] = PROVIDERS.get(str(settings["type"]))(name, rest)
    metered: dict[str, Provider] = {name: MeteredProvider(p, metrics, limits) for name, p in providers.items()}
    if config.routes or len(metered) > 1:
        # Behind the meters, or tokens would count twice.
        metered[_ROUTER] = Router(metered, store, read_routes(config.routes))
    stack = Stack(store, files, metered)
    stack.parts |= {"metrics": metrics, "limits": limits, "config": config, "folder": folder}
    app = make_app(stack)
    app.include_router(_metrics_router(metrics))
    _surround(app, stack, config.server, limits, metrics)
    if tracer is not None:
        app.add_middleware(Tracing, tracer=tracer)  # before all others, so that their refusals are traced too
    return stack, app


def _metrics_router(metrics: Metrics) -> APIRouter:
    router = APIRouter()

    @router.get("/metrics", include_in_schema=False)
    async def get_metrics(request: Request) -> Response:
        del request
        return Response(metrics.text(), media_type=CONTENT_TYPE_LATEST)

    return router


def _surround(app: FastAPI, stack: Stack, server: ServerConfig, limits: Limits, metrics: Metrics) -> None:
    """The last that is added is the first that a request meets."""
    app.add_middleware(BodyLimit, most=server.max_body_bytes, uploads=server.max_file_bytes)
    app.add_middleware(Gate, store=stack.store, limits=limits, required=needs_keys(server, stack.store))
    if server.cors_origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=list(server.cors_origins), allow_methods=["*"], allow_headers=["*"]
        )
    app.add_middleware(Access, metrics=metrics)


def needs_keys(server: ServerConfig, store: Store) -> bool:
    """Whether requests need a key.

    Raises:
        ConfigError: others can reach the server, and there is no key that could keep them out.
    """
    there = bool(store.list(keys.KIND, limit=1).records)
    if not server.is_loopback and (not there or server.require_keys is False):
        raise ConfigError(
            f"The server would listen on {server.host}, where others can reach it, without a key.",
            hint="Make one with `puna keys create NAME`, or keep to --host 127.0.0.1.",
        )
    return there if server.require_keys is None else server.require_keys


def listen(server: ServerConfig) -> socket.socket:
    """The socket, bound: a port that is taken is noticed before anything is loaded, and a wrong certificate before.

    Raises:
        ConfigError: the certificate or its key cannot be used.
        StorageError: the address cannot.
    """
    if server.tls_cert:
        tls.check(*_certificate(server))
    family = socket.AF_INET6 if ":" in server.host else socket.AF_INET
    # asyncio sends small pieces at once (TCP_NODELAY) only on sockets that say they are TCP's; else an answer of two
    # pieces waits 40 ms for the client's acknowledgement of the first.
    found = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((server.host, server.port))
    except OSError as error:
        found.close()
        raise StorageError(
            f"Cannot listen on {server.host}:{server.port}: {error.strerror}.", hint="Choose another --port."
        ) from error
    return found


def serve(app: FastAPI, server: ServerConfig, listening: socket.socket, ready: Callable[[str], object]) -> None:
    """Answers until a signal comes.

    Args:
        app: what answers.
        server: its settings.
        listening: a bound socket.
        ready: told the address once requests are taken.
    """
    host, port = listening.getsockname()[:2]
    scheme = "https" if server.tls_cert else "http"
    address = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
    cert, key = _certificate(server)
    config = uvicorn.Config(
        app, log_config=None, access_log=False, lifespan="on", server_header=False,
        timeout_graceful_shutdown=int(server.drain_seconds) or None,
        ssl_certfile=cert or None, ssl_keyfile=key or None,
    )  # fmt: skip
    config.load()

    class Announcing(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                _renew_on_hangup(config.ssl, cert, key)
                ready(address)

    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    with suppress(KeyboardInterrupt):
        Announcing(config).run(sockets=[listening])


def _certificate(server: ServerConfig) -> tuple[str, str]:
    """The files of the certificate and its key; "" where there are none."""
    cert, key = (str(Path(path).expanduser()) if path else "" for path in (server.tls_cert, server.tls_key))
    return cert, key


def _renew_on_hangup(context: ssl.SSLContext | None, cert: str, key: str) -> None:
    def renew() -> None:
        if context is None:
            _log.warning("There is no certificate to read again; other settings are read when the server starts.")
            return
        try:
            tls.renew(context, cert, key)
        except ConfigError as error:
            _log.error("The old certificate stays in use. %s", error.message)
        else:
            _log.warning("The certificate %s was read again.", cert)

    if sys.stdin is None or not sys.stdin.isatty():  # there the signal says that the terminal has gone
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, renew)
