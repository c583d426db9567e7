"""Many tasks of an event loop on one engine."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest

from puna.base.errors import InputError, ResourceError
from puna.core.chat import Message, ToolSpec
from puna.core.completion import Completion, Constraint, Done, SamplingParams, TextDelta
from puna.engine.config import EngineConfig
from puna.engine.local import LocalModel
from puna.engine.serving import AsyncModel
from puna.model.transformer import Transformer
from puna.testing import tiny_model, tiny_tokenizer

TOKENIZER = tiny_tokenizer()
GREEDY = SamplingParams(temperature=0, max_tokens=12)
# Nothing but one letter, so that it never ends by itself.
ENDLESS = SamplingParams(temperature=0, max_tokens=1800, logit_bias={97: 1000.0})


def local(model: Transformer | None = None, **config: Any) -> LocalModel:
    return LocalModel(model or tiny_model(2, num_hidden_layers=1), TOKENIZER, EngineConfig(page_tokens=8, **config))


def asked(text: str) -> list[Message]:
    return [Message("user", text)]


def serve(model: LocalModel, body: Callable[[AsyncModel], Awaitable[Any]], drain_seconds: float = 30.0) -> Any:
    """What `body` gives; afterwards nothing runs, no page is held, and no task is left over."""

    async def main() -> Any:
        async with AsyncModel(model, drain_seconds) as served:
            result = await asyncio.wait_for(body(served), 120)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.sleep(0)
        assert not {task for task in others if not task.done()}
        return result

    result = asyncio.run(main())
    assert not any(thread.name == "puna-engine" for thread in threading.enumerate())
    assert model.engine.pool.free == model.engine.pool.count
    return result


async def first_event(stream: Any) -> Any:
    return await anext(aiter(stream))


def test_many_streams_at_once_get_what_each_gets_alone():
    questions = [f"question {i} " * (i % 4) for i in range(24)]
    params = [GREEDY if i % 2 else replace(GREEDY, temperature=0.9, seed=i) for i in range(24)]
    alone = local()
    expected = [alone.chat(asked(q), p).message for q, p in zip(questions, params, strict=True)]

    async def body(model: AsyncModel) -> list[Completion]:
        return await asyncio.gather(*(model.chat(asked(q), p) for q, p in zip(questions, params, strict=True)))

    assert [completion.message for completion in serve(local(), body)] == expected


def test_a_streams_pieces_make_its_message_and_come_one_by_one():
    async def body(model: AsyncModel) -> list[Any]:
        return [event async for event in model.stream(asked("hello"), replace(ENDLESS, max_tokens=30))]

    *pieces, done = serve(local(), body)
    assert isinstance(done, Done)
    assert done.completion.message.content == "".join(p.text for p in pieces if isinstance(p, TextDelta)) == "a" * 30
    assert done.completion.stop_reason == "length"


def test_several_answers_come_with_the_end_of_the_first():
    params = replace(GREEDY, temperature=1.0, seed=4, n=3)
    expected = local().chat(asked("x"), params)
    found = serve(local(), lambda model: model.chat(asked("x"), params))
    assert [found.message, *(o.message for o in found.others)] == [
        expected.message,
        *(o.message for o in expected.others),
    ]


def test_tools_are_offered_as_in_the_model_itself():
    tool = ToolSpec("look", "", {"type": "object", "properties": {}, "additionalProperties": False})

    async def body(model: AsyncModel) -> tuple[Completion, Completion]:
        forced = await model.chat(asked("x"), replace(GREEDY, tool_choice="look", max_tokens=200), [tool])
        return forced, await model.chat(asked("x"), replace(GREEDY, tool_choice="none"), [tool])

    forced, plain = serve(local(), body)
    assert [call.name for call in forced.message.tool_calls] == ["look"]
    assert plain.usage.prompt_tokens == len(TOKENIZER.chat.render(asked("x")))


def test_a_request_may_say_its_tenant_and_priority():
    model = local()
    requests = [
        model.request(asked("the same long question"), GREEDY, tenant=tenant, priority=priority)
        for tenant, priority in (("a", 0), ("a", -1), ("b", 0))
    ]

    async def body(served: AsyncModel) -> list[Completion]:
        done = []
        for request in requests:
            async for event in served.follow(request):
                if isinstance(event, Done):
                    done.append(event.completion)
        return done

    first, second, third = serve(model, body)
    assert first.ids == second.ids == third.ids
    assert [c.usage.cached_tokens > 0 for c in (first, second, third)] == [False, True, False]


# Leaving early -----------------------------------------------------------------------------------------------------


def test_a_stream_that_is_closed_is_cancelled_while_others_go_on():
    async def body(model: AsyncModel) -> Completion:
        other = asyncio.create_task(model.chat(asked("go on"), replace(ENDLESS, max_tokens=300)))
        async with aclosing(model.stream(asked("leave"), ENDLESS)) as events:
            await first_event(events)
        sequences = [*model.model.engine.scheduler.running]
        assert all(not s.ended or s.stop_reason == "cancelled" for s in sequences)
        return await other

    assert serve(local(), body).message.content == "a" * 300


@pytest.mark.parametrize("when", ["while it is asked", "while it waits", "while it speaks"])
def test_a_task_that_is_cancelled_leaves_nothing_behind(when: str):
    async def body(model: AsyncModel) -> None:
        tasks = [asyncio.create_task(model.chat(asked(f"{i}"), ENDLESS)) for i in range(8)]
        while when == "while it speaks" and not any(s.ids for s in model.model.engine.scheduler.running):
            await asyncio.sleep(0.001)
        if when != "while it speaks":
            await asyncio.sleep(0 if when == "while it is asked" else 0.01)
        for task in tasks:
            task.cancel()
        assert all(isinstance(r, asyncio.CancelledError) for r in await asyncio.gather(*tasks, return_exceptions=True))
        assert (await model.chat(asked("after"), GREEDY)).usage.completion_tokens > 0

    serve(local(max_running=2), body)


def test_requests_that_come_and_go_at_random_lose_no_wake_up():
    """Each asks when the thread may be falling asleep; a lost wake-up would hang it."""
    model = local(max_running=4)
    expected = model.chat(asked("x"), GREEDY).message

    async def client(served: AsyncModel, draw: random.Random) -> int:
        whole = 0
        for _ in range(25):
            await asyncio.sleep(draw.choice((0, 0, 0.0005, 0.003)))
            if draw.random() < 0.3:
                async with aclosing(served.stream(asked("x"), replace(GREEDY, max_tokens=5))) as events:
                    await first_event(events)
            else:
                tokens = draw.choice((1, 2, 12))
                completion = await served.chat(asked("x"), replace(GREEDY, max_tokens=tokens))
                assert tokens < 12 or completion.message == expected
                whole += 1
        return whole

    async def body(served: AsyncModel) -> list[int]:
        return await asyncio.gather(*(client(served, random.Random(i)) for i in range(6)))

    assert sum(serve(model, body)) > 80


# What goes wrong ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "params"),
    [
        ("b", replace(GREEDY, constraint=Constraint("regex", "(("))),
        ("b", replace(GREEDY, tool_choice="required")),
        ("b" * 5000, GREEDY),
    ],
)
def test_a_bad_request_fails_alone(text: str, params: SamplingParams):
    async def body(model: AsyncModel) -> list[Any]:
        chats = (model.chat(asked("a"), GREEDY), model.chat(asked(text), params), model.chat(asked("c"), GREEDY))
        return await asyncio.gather(*chats, return_exceptions=True)

    first, second, third = serve(local(), body)
    assert isinstance(second, InputError)
    assert isinstance(first, Completion)
    assert isinstance(third, Completion)


class Failing(Transformer):
    """Works so many times, then ends whatever thread runs it."""

    def __init__(self, steps: int) -> None:
        super().__init__(tiny_model(num_hidden_layers=1).config)
        self.load_state_dict(tiny_model(2, num_hidden_layers=1).state_dict())
        self.steps = steps

    def forward(self, *args: Any, **more: Any) -> Any:
        self.steps -= 1
        if self.steps < 0:
            raise SystemExit("the machine is on fire")
        return super().forward(*args, **more)


@pytest.mark.parametrize("steps", [0, 3])
def test_a_failure_of_the_thread_reaches_all_who_wait_and_all_who_come(steps: int, caplog):
    async def main() -> None:
        async with AsyncModel(local(Failing(steps), max_running=2)) as served:
            chats = (served.chat(asked(f"{i}"), ENDLESS) for i in range(6))
            for failure in await asyncio.wait_for(asyncio.gather(*chats, return_exceptions=True), 60):
                assert isinstance(failure, ResourceError)
                assert "engine has stopped" in str(failure)
                assert isinstance(failure.__cause__, SystemExit)
            with pytest.raises(ResourceError, match="engine has stopped"):
                await served.chat(asked("late"), GREEDY)

    asyncio.run(main())
    assert "the machine is on fire" in caplog.text


# The end -----------------------------------------------------------------------------------------------------------


def test_at_the_end_requests_under_way_are_let_finish():
    async def body(model: AsyncModel) -> asyncio.Task[Completion]:
        task = asyncio.create_task(model.chat(asked("x"), replace(ENDLESS, max_tokens=150)))
        while not model.model.engine.busy:
            await asyncio.sleep(0.001)
        return task

    async def main() -> Completion:
        async with AsyncModel(local()) as served:
            task = await body(served)
        return await task

    completion = asyncio.run(main())
    assert (completion.message.content, completion.stop_reason) == ("a" * 150, "length")


def test_who_is_not_done_when_the_time_is_up_is_cancelled_and_told():
    async def main() -> list[Completion]:
        async with AsyncModel(local(max_running=1), drain_seconds=0.05) as served:
            tasks = [asyncio.create_task(served.chat(asked(f"{i}"), ENDLESS)) for i in range(3)]
            while not any(s.ids for s in served.model.engine.scheduler.running):
                await asyncio.sleep(0.001)
        assert served.model.engine.pool.free == served.model.engine.pool.count
        return await asyncio.wait_for(asyncio.gather(*tasks), 60)

    found = asyncio.run(main())
    assert {completion.stop_reason for completion in found} == {"cancelled"}
    assert found[0].message.content.startswith("a")


def test_after_its_end_it_takes_nothing_more():
    async def main() -> None:
        async with AsyncModel(local()) as model:
            await model.chat(asked("a"), GREEDY)
        with pytest.raises(ResourceError, match="stopped"):
            await model.chat(asked("b"), GREEDY)

    asyncio.run(main())


def test_the_loop_does_not_stand_still_while_the_engine_computes():
    """Asking, leaving and reading never wait for a step, so the loop turns many times during a long one."""
    model = local(step_tokens=2048, mixed_step_tokens=2048)
    turns = 0

    async def body(served: AsyncModel) -> int:
        nonlocal turns
        task = asyncio.create_task(served.chat(asked("x" * 1900), replace(GREEDY, max_tokens=40)))
        while not task.done():
            turns += 1
            other = asyncio.create_task(served.chat(asked("y"), ENDLESS))
            await asyncio.sleep(0.0005)
            other.cancel()
        return (await task).usage.completion_tokens

    assert serve(model, body) > 0
    assert turns > 5
