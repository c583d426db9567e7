from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

from puna.stack.context import Caller
from puna.stack.errors import ApiError
from puna.stack.responses import records
from puna.stack.responses.marks import CANCEL, MARK
from puna.stack.responses.plan import make_plan
from puna.stack.responses.service import Feed, Responses, responses_of
from puna.stack.testing import ScriptedProvider, make_stack
from puna.stack.wire.responses import CreateResponse

T = TypeVar("T")


@asynccontextmanager
async def serving(folder: Path, *answers: Any, pause: float = 0.0) -> AsyncIterator[Responses]:
    stack = make_stack(folder, ScriptedProvider(answers=answers, pause=pause))
    await stack.start()
    service = responses_of(stack)
    await service.start()
    try:
        yield service
    finally:
        await service.stop()
        await stack.stop()


async def plan(service: Responses, **body: Any) -> Any:
    return await make_plan(service.stack, Caller(), CreateResponse(**{"input": "hello", **body}))


def run(work: Callable[[], Awaitable[T]]) -> T:
    return asyncio.run(work())  # type: ignore[arg-type]


def test_there_is_one_service_of_a_stack(tmp_path: Path) -> None:
    stack = make_stack(tmp_path)
    assert responses_of(stack) is responses_of(stack)


def test_what_is_answered_is_kept(tmp_path: Path) -> None:
    async def work() -> tuple[dict[str, Any], records.Kept]:
        async with serving(tmp_path, "hi") as service:
            made = await service.answer(await plan(service))
            return made, await service.load("", made["id"])

    made, kept = run(work)
    assert kept.response["output"] == made["output"]
    assert kept.input[0]["content"][0]["text"] == "hello"


def test_a_failure_is_raised_and_not_kept(tmp_path: Path) -> None:
    async def work() -> list[Any]:
        async with serving(tmp_path, ApiError(429, "slow down", code="rate_limited")) as service:
            with pytest.raises(ApiError, match="slow down"):
                await service.answer(await plan(service))
            return list(service.stack.store.list(records.RESPONSE).records)

    assert run(work) == []


def test_a_stream_is_on_disk_before_its_first_event(tmp_path: Path) -> None:
    async def work() -> tuple[str, str]:
        async with serving(tmp_path, "hi") as service:
            made = await plan(service)
            stream = service.stream(made)
            await anext(stream)
            during = (await service.load("", made.id)).response["status"]
            assert service.stack.store.get(MARK, made.id)
            async for _ in stream:
                continue
            assert service.stack.store.get(MARK, made.id) is None
            return during, (await service.load("", made.id)).response["status"]

    assert run(work) == ("in_progress", "completed")


def test_a_stream_that_is_left_is_cancelled(tmp_path: Path) -> None:
    async def work() -> str:
        async with serving(tmp_path, "one two three") as service:
            made = await plan(service)
            stream = service.stream(made)
            for _ in range(5):
                await anext(stream)
            await stream.aclose()
            return (await service.load("", made.id)).response["status"]

    assert run(work) == "cancelled"


def test_the_background_goes_on_alone(tmp_path: Path) -> None:
    async def work() -> list[bytes]:
        async with serving(tmp_path, "one two") as service:
            made = await plan(service, background=True)
            feed = await service.launch(made)
            assert service.stack.store.get(records.RESPONSE, made.id)
            frames = [frame async for frame in feed.read()]
            assert [frame async for frame in service.watch(made.id, 2)] == frames[3:]
            assert (await service.load("", made.id)).response["status"] == "completed"
            return frames

    frames = run(work)
    kinds = [frame.split(b"\n")[0].removeprefix(b"event: response.").decode() for frame in frames]
    assert kinds[:3] == ["created", "queued", "in_progress"]
    assert kinds[-2] == "completed"
    statuses = [json.loads(frame.split(b"data: ")[1])["response"]["status"] for frame in frames[:3]]
    assert statuses == ["queued", "queued", "in_progress"]
    assert frames[-1] == b"data: [DONE]\n\n"


@pytest.mark.parametrize("wait", [0.0, 0.05])
def test_a_run_in_the_background_is_cancelled(tmp_path: Path, wait: float) -> None:
    async def work() -> tuple[str, bytes]:
        async with serving(tmp_path, "one two three four five six", pause=0.5) as service:
            made = await plan(service, background=True)
            feed = await service.launch(made)
            if wait:
                await asyncio.sleep(wait)
            kept = await service.cancel("", made.id)
            again = await service.cancel("", made.id)
            assert again.response == kept.response
            assert service.stack.store.get(MARK, made.id) is None
            return kept.response["status"], [frame async for frame in feed.read()][-1]

    assert run(work) == ("cancelled", b"data: [DONE]\n\n")


def test_another_process_can_ask_for_the_cancellation(tmp_path: Path) -> None:
    async def work() -> str:
        async with serving(tmp_path, "one two three", pause=5.0) as service, serving(tmp_path) as other:
            made = await plan(service, background=True)
            await service.launch(made)
            kept = await other.cancel("", made.id)
            assert service.stack.store.get(CANCEL, made.id) is None
            return kept.response["status"]

    assert run(work) == "cancelled"


def test_only_the_background_can_be_cancelled(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(tmp_path, "hi") as service:
            made = await service.answer(await plan(service))
            with pytest.raises(ApiError, match="it is completed") as caught:
                await service.cancel("", made["id"])
            assert caught.value.status == 409
            stream = service.stream(under_way := await plan(service))
            await anext(stream)
            with pytest.raises(ApiError, match="not in the background"):
                await service.cancel("", under_way.id)
            await stream.aclose()
            with pytest.raises(ApiError, match="not at hand"):
                service.watch(made["id"], None)

    run(work)


def test_a_server_that_stops_leaves_nothing_under_way(tmp_path: Path) -> None:
    async def work() -> dict[str, Any]:
        async with serving(tmp_path, "one two three", pause=5.0) as service:
            made = await plan(service, background=True)
            await service.launch(made)
            await asyncio.sleep(0.05)
        async with serving(tmp_path) as service:
            return (await service.load("", made.id)).response

    response = run(work)
    assert response["status"] == "failed"
    assert "stopped" in response["error"]["message"]


def test_a_feed_can_be_watched_by_many() -> None:
    async def work() -> list[list[bytes]]:
        feed = Feed()

        async def watch(start: int) -> list[bytes]:
            return [frame async for frame in feed.read(start)]

        watchers = [asyncio.ensure_future(watch(start)) for start in (0, 1, 5)]
        for number in range(3):
            await asyncio.sleep(0)
            feed.add({"type": "x", "sequence_number": number})
        feed.end()
        return [await watcher for watcher in watchers]

    assert [len(seen) for seen in run(work)] == [4, 3, 1]
