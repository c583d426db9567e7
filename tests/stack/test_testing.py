"""The fakes do what their tests rely on."""

from __future__ import annotations

import asyncio

import pytest

from puna.base.errors import RemoteError
from puna.core.chat import Message
from puna.core.completion import Done, TextDelta
from puna.stack.providers.provider import Ask
from puna.stack.testing import ScriptedProvider


def test_a_scripted_provider_says_its_lines_then_repeats_the_user() -> None:
    async def work() -> None:
        provider = ScriptedProvider(answers=["one two", RemoteError("gone")])
        ask = Ask("tiny", [Message("user", "say it")])
        events = [event async for event in provider.stream(ask)]
        assert [event.text for event in events if isinstance(event, TextDelta)] == ["one", " two"]
        assert isinstance(events[-1], Done)
        assert events[-1].completion.message.content == "one two"
        with pytest.raises(RemoteError):
            [event async for event in provider.stream(ask)]
        events = [event async for event in provider.stream(ask)]
        assert isinstance(events[-1], Done)
        assert events[-1].completion.message.content == "say it"
        assert len(provider.asked) == 3

    asyncio.run(work())


def test_a_stream_that_is_left_is_counted() -> None:
    async def work() -> None:
        provider = ScriptedProvider(answers=["a b c d"])
        stream = provider.stream(Ask("tiny"))
        await anext(stream)
        await stream.aclose()
        assert provider.closed == 1

    asyncio.run(work())


def test_vectors_have_length_one() -> None:
    (row,) = asyncio.run(ScriptedProvider().embed("letters", ["abba"]))
    assert sum(x * x for x in row) == pytest.approx(1)
    assert len(row) == 26
