"""Spans of a trace, for a server that is told to trace; elsewhere nothing is made and nothing runs.

A request's span is the current one of its context, and what is done for the request hangs its own below it. Who makes
spans does not know by what they are recorded: `operation.otel` is by OpenTelemetry. A span has names, counts and times,
never a text of a user, a path with ids in it, or a key.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal, Protocol

from puna.core.completion import Done, StreamEvent

Value = str | bool | int | float | Sequence[str]
Kind = Literal["server", "client", "internal"]


class Span(Protocol):
    """Something that takes time.

    Attributes:
        trace_id: of its trace, 32 hexadecimal digits.
        headers: what another server is sent, that its own spans hang below this one (W3C Trace Context).
    """

    @property
    def trace_id(self) -> str: ...

    @property
    def headers(self) -> Mapping[str, str]: ...

    def child(self, name: str, attributes: Mapping[str, Value], kind: Kind = "internal") -> Span: ...

    def set(self, attributes: Mapping[str, Value], name: str = "") -> None: ...

    def end(self, error: str = "") -> None:
        """It is over; `error` names the kind of failure, if it was one."""
        ...


class Tracer(Protocol):
    """Where spans go."""

    def server(self, name: str, headers: Mapping[str, str], attributes: Mapping[str, Value]) -> Span:
        """A request's span, below the one that its headers name, if they do."""
        ...

    def close(self) -> None:
        """Sends what has not been sent. It blocks."""
        ...


_current: ContextVar[Span | None] = ContextVar("puna_span", default=None)


def current() -> Span | None:
    return _current.get()


def headers() -> Mapping[str, str]:
    """What a request to another server bears; nothing where nobody traces."""
    span = _current.get()
    return span.headers if span is not None else {}


def leave() -> None:
    """For a task that outlives the request that began it: what it does is not that request's."""
    _current.set(None)


def begin(name: str, attributes: Mapping[str, Value], kind: Kind = "internal") -> Span | None:
    """A span below the current one, which whoever began it ends; None where nobody traces."""
    span = _current.get()
    return span.child(name, attributes, kind) if span is not None else None


@contextmanager
def inside(span: Span | None) -> Iterator[None]:
    """The span is the current one within the block, and of the tasks that begin in it."""
    token = _current.set(span)
    try:
        yield
    finally:
        _current.reset(token)


@contextmanager
def carried(span: Span | None) -> Iterator[Span | None]:
    """What the block does is the span's, which ends with it."""
    if span is None:
        yield None
        return
    error = ""
    try:
        with inside(span):
            yield span
    except BaseException as failure:
        error = type(failure).__name__
        raise
    finally:
        span.end(error)


def along(span: Span | None, events: AsyncIterator[StreamEvent]) -> AsyncIterator[StreamEvent]:
    """An answer that is produced inside a span, which ends with it."""
    return events if span is None else _along(span, events)


async def _along(span: Span, events: Any) -> AsyncIterator[StreamEvent]:
    # A generator runs in the context of whoever asks for its next event, so that the span is entered for each.
    whole, error = False, ""
    try:
        while True:
            with inside(span):
                try:
                    event = await anext(events)
                except StopAsyncIteration:
                    break
            whole = whole or isinstance(event, Done)
            yield event
    except Exception as failure:
        error = type(failure).__name__
        raise
    finally:
        if not whole and not error:
            span.set({"puna.cancelled": True})
        with inside(span):
            await events.aclose()
        span.end(error)
