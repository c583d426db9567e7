"""Server-sent events out, and the notice that a client has left.

A client that leaves ends the work for it at once: what the server awaits for it is cancelled there, which closes the
provider's stream. A stream answers with a status only when its first piece is ready, so that whatever fails before
then is an ordinary refusal; what fails later is told by an event, after which the stream ends.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from puna.stack.errors import ApiError, as_api_error

_log = logging.getLogger(__name__)
DONE = b"data: [DONE]\n\n"


class ClientGoneError(ApiError):
    """Nobody waits for the answer any more."""

    def __init__(self) -> None:
        super().__init__(499, "The client has left.", code="client_gone")


@asynccontextmanager
async def connected(receive: Receive) -> AsyncIterator[None]:
    """Cancels the block when the client leaves.

    Args:
        receive: of the request, whose body has been read.

    Raises:
        ClientGoneError: it has left.
    """
    task = asyncio.current_task()
    assert task is not None
    gone = False

    async def watch() -> None:
        nonlocal gone
        while (await receive())["type"] != "http.disconnect":
            continue
        gone = True
        task.cancel()

    watcher = asyncio.ensure_future(watch())
    try:
        yield
    except asyncio.CancelledError:
        if not gone:
            raise
        task.uncancel()
        raise ClientGoneError from None
    finally:
        watcher.cancel()


def event(data: Any, name: str = "") -> bytes:
    """An event: JSON, under a name where it has one."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return (f"event: {name}\ndata: {text}\n\n" if name else f"data: {text}\n\n").encode()


def failure(refusal: ApiError) -> bytes:
    """OpenAI's end of a stream that has failed."""
    return event(refusal.body()) + DONE


def told(refusal: ApiError) -> bytes:
    """A failure alone, for streams whose end is sent in any case."""
    return event(refusal.body())


def ending(path: str) -> bytes:
    """The last line of a stream of a path; Llama Stack's clients up to 0.2 know none."""
    return b"" if path.startswith("/v1/openai/") else DONE


class EventStream(Response):
    """An answer of events.

    Args:
        pieces: the events as bytes; closed when the client leaves.
        failed: what is sent where `pieces` raises after its first piece.
        done: what is sent last, also after a failure.
        headers: of the answer.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        pieces: AsyncGenerator[bytes, None],
        failed: Callable[[ApiError], bytes] = failure,
        done: bytes = b"",
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no", **(headers or {})})
        del self.headers["content-length"]
        self._pieces, self._failed, self._done = pieces, failed, done

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del scope
        try:
            async with connected(receive), aclosing(self._pieces) as pieces:
                first = await anext(pieces, b"")
                await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
                await send({"type": "http.response.body", "body": first, "more_body": True})
                try:
                    async for piece in pieces:
                        await send({"type": "http.response.body", "body": piece, "more_body": True})
                except Exception as error:
                    _log.warning("a stream failed", exc_info=None if isinstance(error, ApiError) else error)
                    body = self._failed(as_api_error(error))
                    await send({"type": "http.response.body", "body": body, "more_body": True})
                await send({"type": "http.response.body", "body": self._done, "more_body": False})
        except ClientGoneError:
            return
