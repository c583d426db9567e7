"""Events out, and a client that leaves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from puna.base.errors import InputError
from puna.stack.errors import ApiError, invalid
from puna.stack.sse import DONE, ClientGoneError, EventStream, connected, ending, event, failure, told


class Line:
    """Both directions of a connection, by hand."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.left = asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)


async def pieces(*parts: bytes | Exception) -> AsyncGenerator[bytes, None]:
    for part in parts:
        if isinstance(part, Exception):
            raise part
        yield part


def test_events_are_lines_with_a_blank_one_after() -> None:
    assert event({"a": "ñ\n"}) == 'data: {"a":"ñ\\n"}\n\n'.encode()
    assert event({}, "response.created") == b"event: response.created\ndata: {}\n\n"
    shown = failure(invalid("No.", "n"))
    assert failure(invalid("No.", "n")) == told(invalid("No.", "n")) + DONE
    assert json.loads(shown.split(b"\n")[0][6:])["error"]["param"] == "n"


def test_a_stream_is_sent_piece_by_piece() -> None:
    async def go() -> Line:
        line = Line()
        await EventStream(pieces(b"a", b"b"), done=b"end", headers={"x-a": "1"})({}, line.receive, line.send)
        return line

    start, *bodies = asyncio.run(go()).sent
    headers = dict(start["headers"])
    assert start["status"] == 200
    assert headers[b"content-type"].startswith(b"text/event-stream")
    assert b"content-length" not in headers
    assert headers[b"x-a"] == b"1"
    assert [(part["body"], part["more_body"]) for part in bodies] == [(b"a", True), (b"b", True), (b"end", False)]


def test_where_a_stream_says_that_it_is_done() -> None:
    assert ending("/v1/chat/completions") == DONE
    assert ending("/v1/openai/v1/chat/completions") == b""


def test_a_failure_before_the_first_piece_is_the_callers() -> None:
    async def go() -> None:
        line = Line()
        with pytest.raises(InputError):
            await EventStream(pieces(InputError("no")))({}, line.receive, line.send)
        assert line.sent == []

    asyncio.run(go())


@pytest.mark.parametrize(("error", "code"), [(InputError("no"), "invalid_value"), (KeyError("x"), "internal_error")])
def test_a_failure_after_it_is_told_and_ends_the_stream(error: Exception, code: str) -> None:
    async def go() -> Line:
        line = Line()
        await EventStream(pieces(b"a", error))({}, line.receive, line.send)
        return line

    line = asyncio.run(go())
    assert line.body.startswith(b"a")
    assert json.loads(line.body[1:].split(b"\n")[0][6:])["error"]["code"] == code
    assert line.body.endswith(DONE)
    assert line.sent[-1]["more_body"] is False


def test_a_client_that_leaves_closes_the_stream_at_once() -> None:
    async def go() -> tuple[Line, bool]:
        line, closed = Line(), False

        async def endless() -> AsyncGenerator[bytes, None]:
            nonlocal closed
            try:
                yield b"a"
                await asyncio.sleep(60)
            finally:
                closed = True

        asyncio.get_running_loop().call_later(0.02, line.left.set)
        await asyncio.wait_for(EventStream(endless())({}, line.receive, line.send), 1)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return line, closed

    line, closed = asyncio.run(go())
    assert closed
    assert line.body == b"a"


def test_a_block_ends_when_the_client_leaves_and_not_else() -> None:
    async def go() -> None:
        line = Line()
        async with connected(line.receive):
            await asyncio.sleep(0.01)
        line.left.set()
        with pytest.raises(ClientGoneError):
            async with connected(line.receive):
                await asyncio.sleep(60)
        await asyncio.sleep(0)  # this task is not cancelled for what a client did

    asyncio.run(asyncio.wait_for(go(), 5))


def test_another_cancellation_stays_one() -> None:
    async def go() -> None:
        async def work() -> None:
            async with connected(Line().receive):
                await asyncio.sleep(60)

        task = asyncio.ensure_future(work())
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(go())


def test_nobody_waits_is_a_status_of_its_own() -> None:
    assert (ClientGoneError().status, isinstance(ClientGoneError(), ApiError)) == (499, True)
