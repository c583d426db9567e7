"""A worker does what is asked for, tries again what fails, gives up in the end, and gives back what it holds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from puna.stack.state.sqlite import SqliteStore
from puna.stack.state.work import Work, WorkQueue
from puna.stack.state.worker import Worker


async def until(holds: Callable[[], object], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come"
        await asyncio.sleep(0.01)


class Log:
    """What was done and given up."""

    def __init__(self, fails: int = 0, pause: float = 0.0) -> None:
        self.did: list[str] = []
        self.gave_up: list[str] = []
        self.now = self.most = 0
        self._fails, self._pause = fails, pause

    async def handle(self, work: Work) -> None:
        self.did.append(work.id)
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await asyncio.sleep(self._pause)
            if len(self.did) <= self._fails:
                raise RuntimeError("it cannot be done")
        finally:
            self.now -= 1

    async def give_up(self, work: Work, error: Exception) -> None:
        self.gave_up.append(f"{work.id}: {error}")


def working(path: Path, log: Log, check: Callable[[Worker, WorkQueue], Awaitable[None]], tries: int = 3) -> SqliteStore:
    store = SqliteStore(path / "stack.db")
    queue = WorkQueue(store)

    async def main() -> None:
        worker = Worker(queue, "index", log.handle, log.give_up, poll=0.05, tries=tries)
        task = asyncio.ensure_future(worker.run())
        try:
            await check(worker, queue)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    asyncio.run(main())
    return store


def test_all_work_is_done_a_few_pieces_at_a_time(tmp_path: Path) -> None:
    log = Log(pause=0.02)

    async def check(worker: Worker, queue: WorkQueue) -> None:
        for n in range(6):
            queue.add("index", str(n))
        worker.wake()
        await until(lambda: not queue.store.list("work").records)

    working(tmp_path, log, check).close()
    assert sorted(log.did) == list("012345")
    assert log.most == 2


def test_work_of_another_process_is_found_without_being_woken(tmp_path: Path) -> None:
    log = Log()

    async def check(worker: Worker, queue: WorkQueue) -> None:
        await asyncio.sleep(0.1)
        WorkQueue(queue.store).add("index", "a")
        await until(lambda: log.did == ["a"])

    working(tmp_path, log, check).close()


def test_what_fails_is_tried_again_after_a_while(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = Log(fails=1)

    async def check(worker: Worker, queue: WorkQueue) -> None:
        queue.add("index", "a")
        worker.wake()
        await until(lambda: len(log.did) == 2)
        await until(lambda: not queue.store.list("work").records)

    working(tmp_path, log, check).close()
    assert log.gave_up == []
    assert "index a failed" in caplog.text


def test_what_fails_too_often_is_given_up(tmp_path: Path) -> None:
    log = Log(fails=100)

    async def check(worker: Worker, queue: WorkQueue) -> None:
        queue.add("index", "a")
        worker.wake()
        await until(lambda: log.gave_up)
        await until(lambda: not queue.store.list("work").records)

    working(tmp_path, log, check, tries=2).close()
    assert log.did == ["a", "a"]
    assert log.gave_up == ["a: it cannot be done"]


def test_a_worker_that_is_stopped_gives_its_work_back(tmp_path: Path) -> None:
    log = Log(pause=60)

    async def check(worker: Worker, queue: WorkQueue) -> None:
        queue.add("index", "a")
        worker.wake()
        await until(lambda: log.did)

    store = working(tmp_path, log, check)
    (work,) = WorkQueue(store).claim("index", 1)
    assert (work.id, work.tries) == ("a", 0)
    store.close()


def test_a_lease_is_renewed_while_the_work_lasts(tmp_path: Path) -> None:
    log = Log(pause=60)
    store = SqliteStore(tmp_path / "stack.db")
    queue = WorkQueue(store, lease=0.4)

    async def main() -> None:
        worker = Worker(queue, "index", log.handle, log.give_up, poll=0.05)
        task = asyncio.ensure_future(worker.run())
        queue.add("index", "a")
        await until(lambda: log.did)
        await asyncio.sleep(1.0)
        assert WorkQueue(store).claim("index", 1) == []
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(main())
    store.close()
