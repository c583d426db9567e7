"""A metered provider gives what the other gives, and counts it."""

from __future__ import annotations

import asyncio

import pytest

from puna.base.errors import RemoteError
from puna.core.chat import Message
from puna.core.completion import Completion, Done, Usage
from puna.stack.operation.limits import Limits
from puna.stack.operation.metering import MeteredProvider
from puna.stack.operation.metrics import Metrics
from puna.stack.providers.provider import Ask
from puna.stack.testing import ScriptedProvider


def test_answers_are_counted_and_failures_too() -> None:
    async def work() -> None:
        answer = Completion(Message("assistant", "a b c"), Usage(10, 3, cached_tokens=4), cost=0.5)
        inner = ScriptedProvider("p", answers=[answer, RemoteError("gone")])
        metrics, limits = Metrics(), Limits(tokens=100)
        metered = MeteredProvider(inner, metrics, limits)
        ask = Ask("tiny", [Message("user", "?")], owner="ana")
        events = [event async for event in metered.stream(ask)]
        assert isinstance(events[-1], Done)
        assert events[-1].completion is answer
        with pytest.raises(RemoteError):
            [event async for event in metered.stream(ask)]
        text = metrics.text().decode()
        for line in (
            'puna_tokens_total{kind="prompt",model="p/tiny"} 10.0',
            'puna_tokens_total{kind="cached",model="p/tiny"} 4.0',
            'puna_tokens_total{kind="completion",model="p/tiny"} 3.0',
            'puna_cost_dollars_total{model="p/tiny"} 0.5',
            'puna_model_failures_total{error="RemoteError",model="p/tiny"} 1.0',
        ):
            assert line in text
        assert limits._bucket("ana", "tokens").level == pytest.approx(87, abs=0.5)
        assert (await metered.models(), (await metered.health()).ok) == (await inner.models(), True)
        assert metered.asked is inner.asked

    asyncio.run(work())


def test_who_leaves_closes_the_providers_stream() -> None:
    async def work() -> None:
        inner = ScriptedProvider("p", answers=["a b c d e"])
        stream = MeteredProvider(inner, Metrics(), Limits()).stream(Ask("tiny"))
        await anext(stream)
        await stream.aclose()
        assert inner.closed == 1

    asyncio.run(work())
