"""Events as they come in, cut anywhere."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from puna.stack.mcp.events import ServerEvent, server_events
from puna.stack.mcp.protocol import McpError

STREAM = (
    b': hello\r\n\r\nid: 1\nretry: 250\ndata:\n\nevent: message\ndata: {"a":\ndata: "\xe2\x80\xa8"}\r\r'
    b"id: 2\r\ndata: b\r\n\r\n"
    b"data: unended"
)
EVENTS = [ServerEvent("", "1", 0.25), ServerEvent('{"a":\n"\u2028"}'), ServerEvent("b", "2")]


def read(stream: bytes, size: int, limit: int = 1000) -> list[ServerEvent]:
    async def chunks() -> AsyncIterator[bytes]:
        for at in range(0, len(stream), size):
            yield stream[at : at + size]

    async def go() -> list[ServerEvent]:
        return [event async for event in server_events(chunks(), limit)]

    return asyncio.run(go())


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_events_are_the_same_however_they_are_cut(size: int) -> None:
    assert read(STREAM, size) == EVENTS


@pytest.mark.parametrize("stream", [b"data: " + b"x" * 100, (b"data: " + b"x" * 9 + b"\n") * 9])
def test_an_event_has_a_limit(stream: bytes) -> None:
    with pytest.raises(McpError, match="longer than 50 bytes"):
        read(stream, 10, 50)
    assert len(read(b"data: 123456789\n\n" * 100, 10, 50)) == 100
