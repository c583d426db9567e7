"""`Mcp`: the servers of tools of one Puna server, and the way to each.

A server is named by a request, at an address that is guarded, or is a connector: of the owner's settings, or registered
by a client, which is guarded as an address of a request is. A talk over HTTP lasts as long as what needs it; a program
is started when it is first needed, is shared by all who use its connector, and ends with the server.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from puna.base.web import is_loopback
from puna.stack.config import StackConfig
from puna.stack.context import Stack
from puna.stack.errors import ApiError, as_api_error, invalid
from puna.stack.jobs.resources import Resources
from puna.stack.mcp.addresses import Addresses, GuardedTransport
from puna.stack.mcp.http import HttpTransport
from puna.stack.mcp.protocol import McpError
from puna.stack.mcp.session import Session
from puna.stack.mcp.settings import NAME, ConnectorConfig, check_url
from puna.stack.mcp.stdio import StdioTransport

_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\x20-\x7e\x80-\xff]*")
# What the protocol or HTTP itself says; a client that could set them could speak for this server.
_OURS = frozenset(
    {"host", "accept", "content-type", "content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer"}
)


@dataclass(frozen=True, slots=True)
class Target:
    """A server, and what it is to be told by whom.

    Attributes:
        url: of it; "" for a connector's.
        connector: its id; "" for none.
        headers: of this request alone: they are secrets, and are neither kept nor shown.
    """

    url: str = ""
    connector: str = ""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


class Mcp:
    """Args:
    stack: of the server; its settings say which connectors there are.
    """

    def __init__(self, stack: Stack) -> None:
        config = stack.parts.get("config") or StackConfig()
        self.config, self._configured = config.mcp, dict(config.connectors)
        self.addresses = Addresses(self.config.allow)
        rows = {
            id: _row(id, shown_url(settings.url) if settings.url else f"stdio://{id}", settings.description)
            for id, settings in self._configured.items()
        }
        self.connectors = Resources(stack, "connector", rows)
        self._programs: dict[str, Session] = {}

    @property
    def configured(self) -> Mapping[str, ConnectorConfig]:
        """The owner's connectors."""
        return self._configured

    async def register(self, owner: str, id: str, url: str, label: str = "", description: str = "") -> dict[str, Any]:
        """Keeps a connector of a client's.

        Raises:
            ApiError: 400 for a name or an address that cannot be.
        """
        if not NAME.fullmatch(id):
            raise invalid(
                f"A connector's id is {id[:80]!r}; it must be letters, digits, '_', '-' and '.'.", "connector_id"
            )
        await self.check(owner, Target(url), "url")
        row = _row(id, url, description) | {"server_label": label or id}
        return await self.connectors.register(owner, id, row)

    async def check(self, owner: str, target: Target, param: str) -> None:
        """Refuses what can be known to be wrong before anybody is asked.

        Raises:
            ApiError: 400 for an address that requests may not name, 404 for an unknown connector.
        """
        if target.connector:
            await self.connectors.get(owner, target.connector, param)
            return
        try:
            url = check_url(target.url, ValueError)
        except ValueError as error:
            raise invalid(str(error), param) from error
        try:
            await self.addresses.resolved(url.host, url.port or 443)
        except Exception as error:
            refusal = as_api_error(error)
            if refusal.status == 400:
                raise invalid(refusal.message, param, "address_not_allowed") from error
            # A host that is not known is a server that is away: those who ask it will be told.

    async def open(self, owner: str, target: Target) -> Session:
        """A session with a server, which `leave` ends. Nobody is asked yet.

        Raises:
            ApiError: 404 for an unknown connector.
        """
        if not target.connector:
            return self._http(target.url, target.headers, guarded=True)
        settings = self._configured.get(target.connector)
        if settings is None:
            row = await self.connectors.get(owner, target.connector, "connector_id")
            return self._http(row["url"], target.headers, guarded=True)
        if settings.url:
            return self._http(settings.url, _joined(settings.headers, target.headers), guarded=False)
        if target.connector not in self._programs:
            program = StdioTransport(settings.command, settings.environment, settings.folder, self.config.max_bytes)
            self._programs[target.connector] = Session(program, self.config.seconds, self.config.max_tools)
        return self._programs[target.connector]

    async def leave(self, session: Session) -> None:
        if session not in self._programs.values():
            await session.close()

    @asynccontextmanager
    async def session(self, owner: str, target: Target) -> AsyncIterator[Session]:
        """A session for the block."""
        session = await self.open(owner, target)
        try:
            yield session
        finally:
            await self.leave(session)

    def _http(self, url: str, headers: Mapping[str, str], guarded: bool) -> Session:
        client = httpx.AsyncClient(
            transport=GuardedTransport(self.addresses) if guarded else None,
            timeout=httpx.Timeout(None, connect=min(self.config.seconds, 10.0)),
            # A proxy would go where the guard does not see it, and does not reach this machine.
            trust_env=not guarded and not is_loopback(httpx.URL(url).host),
        )
        transport = HttpTransport(client, url, headers, self.config.max_bytes)
        return Session(transport, self.config.seconds, self.config.max_tools)

    async def stop(self) -> None:
        """Ends the programs."""
        for session in self._programs.values():
            await session.close()
        self._programs.clear()


def _row(id: str, url: str, description: str) -> dict[str, Any]:
    """A connector as clients see it: without its command and its secrets."""
    return {
        "connector_type": "mcp",
        "connector_id": id,
        "url": url,
        "server_label": id,
        "server_name": None,
        "server_description": description or None,
        "server_version": None,
    }


def shown_url(url: str) -> str:
    """The host of an address: a path or a query may hold a key."""
    parsed = httpx.URL(url)
    place = f"{parsed.scheme}://{parsed.netloc.decode()}/"
    return place if parsed.raw_path in (b"", b"/") else f"{place}<redacted>"


def headers_of(headers: Any, authorization: Any, param: str) -> dict[str, str]:
    """The headers of a request for a server.

    Raises:
        ApiError: 400; the message names a header, and never its value.
    """
    found: dict[str, str] = {}
    if headers is not None and not isinstance(headers, Mapping):
        raise invalid("headers must be an object of texts.", f"{param}.headers")
    for name, value in (headers or {}).items():
        if not _HEADER.fullmatch(name) or not isinstance(value, str) or not _VALUE.fullmatch(value):
            raise invalid(f"The header {name[:80]!r} cannot be sent.", f"{param}.headers")
        if name.lower() in _OURS or name.lower().startswith("mcp-"):
            raise invalid(f"The header {name!r} is this server's to set.", f"{param}.headers")
        found[name] = value
    if authorization is not None:
        if not isinstance(authorization, str) or not authorization or not _VALUE.fullmatch(authorization):
            raise invalid("authorization must be a token.", f"{param}.authorization")
        if any(name.lower() == "authorization" for name in found):
            raise invalid("Give either authorization or the header Authorization.", f"{param}.authorization")
        found["Authorization"] = authorization if " " in authorization else f"Bearer {authorization}"
    return found


def _joined(owners: Mapping[str, str], clients: Mapping[str, str]) -> dict[str, str]:
    """Headers of the settings with those of a request, which stand above them."""
    given = {name.lower() for name in clients}
    return {**{name: value for name, value in owners.items() if name.lower() not in given}, **clients}


def refusal_of(error: McpError, what: str) -> ApiError:
    """A server that cannot be asked, as a client is told by a route that is about nothing else."""
    return ApiError(502, f"{what}: {error.message}", code="mcp_error")


def mcp_of(stack: Stack) -> Mcp:
    """The server's, made when it is first asked for."""
    return stack.part("mcp", Mcp)
