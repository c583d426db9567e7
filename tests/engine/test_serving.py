from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from puna.base.errors import InputError, ResourceError
from puna.core.chat import Message
from puna.core.completion import Constraint, Done, SamplingParams, TextDelta
from puna.engine.config import EngineConfig
from puna.engine.local import LocalModel
from puna.engine.serving import AsyncModel
from puna.testing import tiny_model, tiny_tokenizer

GREEDY = SamplingParams(temperature=0, max_tokens=24)
ENDLESS = SamplingParams(temperature=1.0, max_tokens=100_000, seed=1, logit_bias={258: -100.0})


def local() -> LocalModel:
    return LocalModel(tiny_model(2), tiny_tokenizer(), EngineConfig(page_tokens=8))


def asked(text: str) -> list[Message]:
    return [Message("user", text)]


def test_many_tasks_get_the_answers_that_each_gets_alone():
    questions = [f"question {i}" for i in range(12)]
    expected = [local().chat(asked(q), GREEDY).message for q in questions]

    async def main() -> list[Message]:
        async with AsyncModel(local()) as model:
            return [c.message for c in await asyncio.gather(*(model.chat(asked(q), GREEDY) for q in questions))]

    assert asyncio.run(main()) == expected


def test_a_stream_comes_in_pieces_and_ends_with_the_whole():
    async def main() -> list[object]:
        async with AsyncModel(local()) as model:
            return [event async for event in model.stream(asked("hello"), GREEDY)]

    *pieces, done = asyncio.run(main())
    assert isinstance(done, Done)
    assert "".join(piece.text for piece in pieces if isinstance(piece, TextDelta)) == done.completion.message.content


def test_a_stream_that_is_left_is_cancelled_and_holds_nothing():
    async def main() -> None:
        model = local()
        async with AsyncModel(model) as served:
            async with aclosing(served.stream(asked("go on"), ENDLESS)) as events:
                async for _ in events:
                    break
            for _ in range(200):
                if not model.engine.busy:
                    break
                await asyncio.sleep(0.01)
            assert not model.engine.busy
            assert model.engine.pool.free == model.engine.pool.count
            assert (await served.chat(asked("and another"), GREEDY)).usage.completion_tokens > 0

    asyncio.run(main())


def test_a_bad_request_fails_alone():
    bad = SamplingParams(constraint=Constraint("regex", "(("))

    async def main() -> list[object]:
        async with AsyncModel(local()) as model:
            return await asyncio.gather(
                model.chat(asked("a"), GREEDY), model.chat(asked("b"), bad), model.chat(asked("c"), GREEDY),
                return_exceptions=True,
            )  # fmt: skip

    first, second, third = asyncio.run(main())
    assert isinstance(second, InputError)
    assert not isinstance(first, Exception)
    assert not isinstance(third, Exception)


def test_after_its_end_it_takes_nothing_more():
    async def main() -> None:
        async with AsyncModel(local()) as model:
            await model.chat(asked("a"), GREEDY)
        with pytest.raises(ResourceError, match="stopped"):
            await model.chat(asked("b"), GREEDY)

    asyncio.run(main())
