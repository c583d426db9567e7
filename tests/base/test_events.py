"""Events as they come in, cut anywhere."""

from __future__ import annotations

import pytest

from puna.base.events import ServerEvent, ServerEvents

STREAM = (
    b': hello\r\n\r\nid: 1\nretry: 250\ndata:\n\nevent: message\ndata: {"a":\ndata: "\xe2\x80\xa8"}\r\r'
    b"id: 2\r\ndata: b\r\n\r\n"
    b"data: unended"
)
EVENTS = [ServerEvent(b"", "1", 0.25), ServerEvent(b'{"a":\n"\xe2\x80\xa8"}'), ServerEvent(b"b", "2")]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_events_are_the_same_however_they_are_cut(size: int) -> None:
    events = ServerEvents()
    found = [event for at in range(0, len(STREAM), size) for event in events.feed(STREAM[at : at + size])]
    assert found == EVENTS
    assert events.end() == ServerEvent(b"unended")
    assert events.end() is None


@pytest.mark.parametrize("stream", [b"data: " + b"x" * 100, (b"data: " + b"x" * 9 + b"\n") * 9])
def test_what_is_held_counts_the_lines_of_the_event_under_way(stream: bytes) -> None:
    events = ServerEvents()
    assert events.feed(stream) == []
    assert events.held >= 100
    events.feed(b"\n\n")
    assert events.held == 0
