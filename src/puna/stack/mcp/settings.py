"""The settings of `stack.toml` that are about servers of tools.

    [mcp]
    allow = ["127.0.0.1", "10.0.0.0/8", "tools.internal"]

    [connectors.tickets]
    url = "https://tickets.example.org/mcp"
    headers = { Authorization = "Bearer ${TICKETS_TOKEN}" }

    [connectors.files]
    command = ["npx", "-y", "@modelcontextprotocol/server-filesystem", "/srv/docs"]

A connector is trusted as its owner is: it may be anywhere, and may be a program of this machine. An address that comes
with a request may be neither.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import httpx

from puna.base.config import require
from puna.base.errors import ConfigError

NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,63}")


@dataclass(frozen=True, slots=True)
class McpConfig:
    """Attributes:
    allow: hosts and networks that a request may name although they are no public addresses.
    seconds: for one answer of a server, its start included.
    max_bytes: of one answer.
    max_tools: of one server.
    """

    allow: tuple[str, ...] = ()
    seconds: float = 60.0
    max_bytes: int = 4 << 20
    max_tools: int = 256

    def __post_init__(self) -> None:
        for name in ("seconds", "max_bytes", "max_tools"):
            require(getattr(self, name) > 0, f"{name} is {getattr(self, name)}; it must be above 0.")
        for entry in self.allow:
            if "/" in entry:
                try:
                    ipaddress.ip_network(entry)
                except ValueError as error:
                    raise ConfigError(
                        f"allow has {entry!r}, which is no network.",
                        hint="Write a host, or a network such as 10.0.0.0/8.",
                    ) from error


@dataclass(frozen=True, slots=True)
class ConnectorConfig:
    """A server of tools: either at an address or a program.

    Attributes:
        url: of its streamable HTTP endpoint.
        command: a program and its arguments, which speaks on its standard streams.
        environment: that the program gets beside PATH, HOME and the like.
        folder: that the program is started in.
        headers: sent with every request, such as a key.
        description: for those who choose among connectors.
    """

    url: str = ""
    command: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    folder: str = ""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    description: str = ""

    def __post_init__(self) -> None:
        require(bool(self.url) != bool(self.command), "A connector has either a url or a command.")
        if self.url:
            check_url(self.url, ConfigError)


def check_url(url: str, refusal: type[ConfigError] | type[ValueError]) -> httpx.URL:
    """The address of a server.

    Raises:
        refusal: it is none that can be asked.
    """
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, TypeError) as error:
        raise refusal("The server's URL cannot be read.") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise refusal("The server's URL must be http://... or https://...")
    return parsed
