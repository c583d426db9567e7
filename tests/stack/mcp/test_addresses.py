"""Whom requests may reach."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import httpx
import pytest

from puna.base.errors import InputError, RemoteError
from puna.stack.mcp.addresses import Addresses, GuardedTransport


def resolve(host: str, allow: Sequence[str] = ()) -> list[str]:
    return asyncio.run(Addresses(allow).resolved(host, 80))


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "::1", "10.0.0.7", "169.254.169.254", "0.0.0.0", "2130706433", "::ffff:127.0.0.1"],
)
def test_this_machine_and_its_neighbours_are_out_of_reach(host: str) -> None:
    with pytest.raises(InputError, match="is not on the open internet") as caught:
        resolve(host)
    assert "stack.toml" in caught.value.hint


@pytest.mark.parametrize(
    ("host", "allow"),
    [("127.0.0.1", "127.0.0.1"), ("10.0.0.7", "10.0.0.0/8"), ("LocalHost", "localhost"), ("8.8.8.8", "x")],
)
def test_what_the_owner_allows_is_not(host: str, allow: str) -> None:
    assert resolve(host, [allow])


def test_what_is_allowed_is_not_a_beginning() -> None:
    for host in ("127.0.0.2", "192.168.0.1"):
        with pytest.raises(InputError):
            resolve(host, ["127.0.0.1", "10.0.0.0/8"])


def test_a_name_without_a_number_is_a_server_that_is_away() -> None:
    with pytest.raises(RemoteError, match="is not known"):
        resolve("no-such-host.invalid")


def test_the_connection_goes_to_the_number_and_the_name_stays() -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200)

    async def go() -> None:
        transport = GuardedTransport(Addresses(["localhost"]), httpx.MockTransport(answer))
        async with httpx.AsyncClient(transport=transport) as client:
            await client.post("https://localhost:8443/mcp", json={"a": 1})
            with pytest.raises(InputError):
                await client.get("http://127.0.0.1/")

    asyncio.run(go())
    (request,) = seen
    assert request.url.host in ("127.0.0.1", "::1")
    assert (request.url.port, request.headers["host"]) == (8443, "localhost:8443")
    assert request.extensions["sni_hostname"] == "localhost"
