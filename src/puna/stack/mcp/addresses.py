"""Whom a request may make this server talk to: public addresses, and those that the owner allows.

A name is resolved here and the connection goes to the number that was found good, so that a name which points elsewhere
a moment later (DNS rebinding) gains nothing. One number of a name that is not good is enough to refuse the name.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Sequence

import httpx

from puna.base.errors import InputError, RemoteError
from puna.base.web import is_public

_SECONDS = 10.0  # to resolve a name


class Addresses:
    """Args:
    allow: hosts by name or number, and networks, that are good though they are not public.
    """

    def __init__(self, allow: Sequence[str] = ()) -> None:
        self._hosts = frozenset(entry.lower() for entry in allow if "/" not in entry)
        self._networks = tuple(ipaddress.ip_network(entry) for entry in allow if "/" in entry)

    async def resolved(self, host: str, port: int) -> list[str]:
        """The numbers of a host, each of which may be asked.

        Raises:
            InputError: it leads to where requests may not.
            RemoteError: it has no number.
        """
        try:
            async with asyncio.timeout(_SECONDS):
                found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise RemoteError(f"The host {host!r} is not known.") from error
        numbers = list(dict.fromkeys(str(row[4][0]) for row in found))
        if host.lower() not in self._hosts and not all(self._is_good(number) for number in numbers):
            raise InputError(
                f"The host {host!r} is not on the open internet.",
                hint="The owner of this server can allow it under [mcp] in stack.toml.",
            )
        return numbers

    def _is_good(self, number: str) -> bool:
        if is_public(number) or number in self._hosts:
            return True
        ip = ipaddress.ip_address(number.partition("%")[0])
        return any(ip in network for network in self._networks)


class GuardedTransport(httpx.AsyncBaseTransport):
    """A transport that connects to good addresses alone; certificates are checked for the name all the same."""

    def __init__(self, addresses: Addresses, inner: httpx.AsyncBaseTransport | None = None) -> None:
        self._addresses, self._inner = addresses, inner or httpx.AsyncHTTPTransport()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        url = request.url
        numbers = await self._addresses.resolved(url.host, url.port or (443 if url.scheme == "https" else 80))
        for number in numbers:
            sent = httpx.Request(
                request.method,
                url.copy_with(host=number),
                headers=request.headers,
                stream=request.stream,
                extensions={**request.extensions, "sni_hostname": url.host},
            )
            try:
                return await self._inner.handle_async_request(sent)
            except httpx.ConnectError:
                if number == numbers[-1]:
                    raise
        raise httpx.ConnectError(f"The host {url.host!r} has no address.")

    async def aclose(self) -> None:
        await self._inner.aclose()
