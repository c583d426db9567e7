"""Spans without OpenTelemetry: what hangs below what, and that nothing is made where nobody traces."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any, cast

import pytest

from puna.core.chat import Message
from puna.core.completion import Completion, Done, StreamEvent, TextDelta
from puna.stack import spans
from puna.stack.spans import Kind, Value


class Kept:
    """A span that keeps what it is told."""

    def __init__(self, name: str = "root") -> None:
        self.name, self.children, self.attributes, self.ended = name, list["Kept"](), dict[str, Value](), list[str]()

    @property
    def trace_id(self) -> str:
        return "a" * 32

    @property
    def headers(self) -> Mapping[str, str]:
        return {"traceparent": self.name}

    def child(self, name: str, attributes: Mapping[str, Value], kind: Kind = "internal") -> Kept:
        found = Kept(name)
        found.set({**attributes, "kind": kind})
        self.children.append(found)
        return found

    def set(self, attributes: Mapping[str, Value], name: str = "") -> None:
        self.attributes |= attributes
        self.name = name or self.name

    def end(self, error: str = "") -> None:
        self.ended.append(error)


def test_where_nobody_traces_there_is_nothing() -> None:
    async def events() -> AsyncIterator[StreamEvent]:
        yield TextDelta("a")

    stream = events()
    assert spans.current() is None
    assert spans.begin("x", {}) is None
    assert spans.headers() == {}
    assert spans.along(None, stream) is stream
    with spans.carried(None) as found:
        assert found is None


def test_a_block_is_its_spans_and_ends_it() -> None:
    root = Kept()
    with spans.inside(root):
        with spans.carried(spans.begin("outer", {"n": 1}, "client")) as outer:
            assert spans.headers() == {"traceparent": "outer"}
            with pytest.raises(KeyError), spans.carried(spans.begin("inner", {})):
                raise KeyError("words of a user")
            assert spans.current() is outer
        assert spans.current() is root
    assert spans.current() is None
    (child,) = root.children
    assert (child.attributes, child.ended, child.children[0].ended) == ({"n": 1, "kind": "client"}, [""], ["KeyError"])
    assert not root.ended


def test_a_task_that_leaves_is_no_longer_the_requests() -> None:
    async def worker() -> spans.Span | None:
        spans.leave()
        return spans.current()

    async def work() -> None:
        with spans.inside(Kept()):
            assert await asyncio.ensure_future(worker()) is None
            assert spans.current() is not None

    asyncio.run(work())


# Answers --------------------------------------------------------------------------------------------------------------


class Source:
    """A stream that says which span it ran in for each event."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.seen: list[str] = []
        self.failure = failure

    async def events(self) -> AsyncIterator[StreamEvent]:
        try:
            for word in ("a", "b"):
                self.seen.append(cast(Any, spans.current()).name)
                await asyncio.sleep(0)
                yield TextDelta(word)
            if self.failure:
                raise self.failure
            yield Done(Completion(Message("assistant", "ab")))
        finally:
            self.seen.append(f"closed in {cast(Any, spans.current()).name}")


def test_each_event_of_an_answer_is_made_inside_its_span_whoever_asks_for_it() -> None:
    async def work() -> None:
        span, source = Kept("answer"), Source()
        with spans.inside(Kept("caller")):
            async with aclosing(cast(Any, spans.along(span, source.events()))) as events:
                first = await asyncio.ensure_future(anext(events))  # by a task, as a router does
                assert cast(Any, spans.current()).name == "caller"
                rest = [event async for event in events]
        assert [type(event) for event in (first, *rest)] == [TextDelta, TextDelta, Done]
        assert source.seen == ["answer", "answer", "closed in answer"]
        assert (span.ended, span.attributes) == ([""], {})

    asyncio.run(work())


@pytest.mark.parametrize("events_read", [1, 3])
def test_an_answer_that_is_left_says_so_and_one_that_is_whole_does_not(events_read: int) -> None:
    async def work() -> None:
        span, source = Kept("answer"), Source()
        async with aclosing(cast(Any, spans.along(span, source.events()))) as events:
            for _ in range(events_read):
                await anext(events)
        assert source.seen[-1] == "closed in answer"
        assert span.ended == [""]
        assert span.attributes == ({"puna.cancelled": True} if events_read == 1 else {})

    asyncio.run(work())


def test_a_failure_names_its_kind_and_not_its_words() -> None:
    async def work() -> None:
        span = Kept("answer")
        with pytest.raises(ValueError, match="words of a user"):
            [event async for event in spans.along(span, Source(ValueError("words of a user")).events())]
        assert (span.ended, span.attributes) == (["ValueError"], {})

    asyncio.run(work())
