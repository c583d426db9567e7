"""Which servers there are, and the way to each."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from puna.stack.context import Stack
from puna.stack.errors import ApiError
from puna.stack.mcp.protocol import McpError
from puna.stack.mcp.service import Mcp, Target, headers_of, mcp_of, shown_url
from puna.stack.mcp.settings import ConnectorConfig
from puna.stack.testing import make_stack


def make(tmp_path: Path, prepare: Any) -> Mcp:
    stack: Stack = make_stack(tmp_path)
    prepare(stack)
    return mcp_of(stack)


def test_a_request_may_not_name_this_machine(tmp_path: Path, farm: Any) -> None:
    mcp = mcp_of(make_stack(tmp_path))

    async def go() -> None:
        with pytest.raises(ApiError, match="open internet") as caught:
            await mcp.check("", Target(farm.url), "tools.0.server_url")
        assert (caught.value.status, caught.value.param) == (400, "tools.0.server_url")
        # Nor does a request that was not checked get there.
        async with mcp.session("", Target(farm.url)) as session:
            with pytest.raises(McpError, match="open internet"):
                await session.start()

    asyncio.run(go())
    assert farm.asked == []


def test_a_host_that_is_not_known_is_away(tmp_path: Path) -> None:
    mcp = mcp_of(make_stack(tmp_path))
    asyncio.run(mcp.check("", Target("https://no-such-host.invalid/mcp"), "x"))
    for url in ("ftp://x", "nonsense"):
        with pytest.raises(ApiError) as caught:
            asyncio.run(mcp.check("", Target(url), "x"))
        assert caught.value.status == 400


def test_the_owners_connectors_may_be_anywhere(tmp_path: Path, farm: Any, near: Any) -> None:
    connectors = {"farm": ConnectorConfig(farm.url, headers={"Authorization": "Bearer owner", "x-a": "1"})}
    mcp = make(tmp_path, near(connectors))

    async def go() -> None:
        async with mcp.session("", Target(connector="farm")) as session:
            assert (await session.call("count", {"herd": "ab"})).text == "2"
        async with mcp.session("", Target(connector="farm", headers={"authorization": "Bearer own"})) as session:
            await session.start()
        (row,) = await mcp.connectors.list("")
        assert row["connector_id"] == "farm"
        assert "/mcp" not in row["url"]
        with pytest.raises(ApiError) as caught:
            await mcp.check("", Target(connector="none"), "x")
        assert caught.value.status == 404

    asyncio.run(go())
    shown = [headers["authorization"] for method, headers in farm.asked if method == "initialize"]
    assert shown == ["Bearer owner", "Bearer own"]
    assert all(headers["x-a"] == "1" for _, headers in farm.asked)


def test_a_program_is_shared_and_ends_with_the_server(tmp_path: Path, farm_program: Any, near: Any) -> None:
    mcp = make(tmp_path, near({"files": ConnectorConfig(command=farm_program)}))

    async def go() -> None:
        async with mcp.session("ana", Target(connector="files")) as session:
            assert (await session.call("count", {"herd": "ab"})).text == "2"
        async with mcp.session("ben", Target(connector="files")) as other:
            assert other is session
            assert other.transport.is_alive  # type: ignore[attr-defined]
        await mcp.stop()
        assert not session.transport.is_alive  # type: ignore[attr-defined]

    asyncio.run(go())


def test_registered_connectors_are_their_owners_and_never_programs(tmp_path: Path, near: Any) -> None:
    mcp = make(tmp_path, near({"files": ConnectorConfig(command=("x",))}))

    async def go() -> None:
        row = await mcp.register("ana", "mine", "http://127.0.0.1:1/mcp", "label", "what it does")
        assert (row["server_label"], row["server_description"]) == ("label", "what it does")
        await mcp.check("ana", Target(connector="mine"), "x")
        with pytest.raises(ApiError):
            await mcp.check("ben", Target(connector="mine"), "x")
        for id, url in (
            ("a b", "http://127.0.0.1"),
            ("x", "stdio://x"),
            ("x", "http://10.1.1.1"),
            ("files", "http://127.0.0.1"),
        ):
            with pytest.raises(ApiError) as caught:
                await mcp.register("ana", id, url)
            assert caught.value.status == 400

    asyncio.run(go())


def test_headers_of_a_request() -> None:
    assert headers_of(None, None, "x") == {}
    assert headers_of({"x-a": "1"}, "token", "x") == {"x-a": "1", "Authorization": "Bearer token"}
    assert headers_of(None, "Basic abc", "x") == {"Authorization": "Basic abc"}


@pytest.mark.parametrize(
    ("headers", "authorization"),
    [
        ([], None),
        ({"x": 3}, None),
        ({"x": "sesame\r\nhost: y"}, None),
        ({"a b": "sesame"}, None),
        ({"Host": "sesame"}, None),
        ({"mcp-session-id": "sesame"}, None),
        ({"authorization": "sesame"}, "sesame"),
        (None, "sesame\n"),
        (None, 5),
        (None, ""),
    ],
)
def test_headers_that_cannot_be_sent_are_refused_without_their_values(headers: Any, authorization: Any) -> None:
    with pytest.raises(ApiError) as caught:
        headers_of(headers, authorization, "tools.0")
    assert caught.value.status == 400
    assert "sesame" not in caught.value.message


def test_an_address_is_shown_without_what_may_be_a_key() -> None:
    assert shown_url("https://a.example") == "https://a.example/"
    assert shown_url("https://user:pass@a.example:8443/k/mcp?key=1") == "https://a.example:8443/<redacted>"


def test_targets_do_not_show_their_secrets() -> None:
    assert "sesame" not in repr(Target("https://a", headers={"x": "sesame"}))
