"""Does the work of a queue in the background of a server, a few pieces at a time, for as long as the server runs."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from puna.stack import spans
from puna.stack.state.store import run
from puna.stack.state.work import Work, WorkQueue

_log = logging.getLogger(__name__)


class Worker:
    """Takes pieces of one kind from a queue.

    Args:
        queue: where they are.
        kind: which.
        handle: does a piece; what it asks for must be harmless to do again.
        give_up: told of a piece that failed `tries` times, before it is dropped.
        parallel: pieces at one time.
        poll: seconds between two looks for work that another process left.
        tries: how often a piece is tried.
    """

    def __init__(
        self,
        queue: WorkQueue,
        kind: str,
        handle: Callable[[Work], Awaitable[None]],
        give_up: Callable[[Work, Exception], Awaitable[None]],
        parallel: int = 2,
        poll: float = 2.0,
        tries: int = 3,
    ) -> None:
        self.queue, self.kind = queue, kind
        self._handle, self._give_up = handle, give_up
        self._parallel, self._poll, self._tries = parallel, poll, tries
        self._running: dict[asyncio.Task[None], Work] = {}
        self._awake = asyncio.Event()

    def wake(self) -> None:
        """Says that there is work; without it a piece waits for the next look."""
        self._awake.set()

    async def run(self) -> None:
        """Works until it is cancelled; then gives back what it holds."""
        spans.leave()
        renewed = time.monotonic()
        try:
            while True:
                self._awake.clear()
                try:
                    for work in await self._claimed():
                        task = asyncio.ensure_future(self._do(work))
                        self._running[task] = work
                        task.add_done_callback(self._ended)
                    if time.monotonic() - renewed > self.queue.lease / 4:
                        renewed = time.monotonic()
                        await self._renew()
                except Exception:  # the database is away for a while
                    _log.exception("cannot look for work of the kind %s", self.kind)
                await self._sleep()
        finally:
            tasks = list(self._running)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _claimed(self) -> list[Work]:
        free = self._parallel - len(self._running)
        if free <= 0:
            return []
        claim = asyncio.ensure_future(run(self.queue.claim, self.kind, free))
        try:
            return await asyncio.shield(claim)
        except asyncio.CancelledError:
            for work in await claim:  # what was taken in the last moment goes back
                await run(self.queue.release, work)
            raise

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._running[task]
        self._awake.set()

    async def _renew(self) -> None:
        lost = await run(self.queue.renew, list(self._running.values()))
        for task, work in list(self._running.items()):
            if work in lost:
                task.cancel()  # this process slept so long that another one has it now

    async def _sleep(self) -> None:
        try:
            async with asyncio.timeout(self._poll):
                await self._awake.wait()
        except TimeoutError:
            return

    async def _do(self, work: Work) -> None:
        try:
            await self._handle(work)
            await run(self.queue.done, work)
        except asyncio.CancelledError:
            await run(self.queue.release, work)
            raise
        except Exception as error:
            await self._failed(work, error)

    async def _failed(self, work: Work, error: Exception) -> None:
        last = work.tries + 1 >= self._tries
        _log.warning("%s %s failed%s", work.kind, work.id, "; given up" if last else "", exc_info=error)
        try:
            if last:
                await self._give_up(work, error)
                await run(self.queue.done, work)
            else:
                await run(self.queue.release, work, due=time.time() + 0.5 * 2**work.tries, failed=True)
        except Exception:  # it stays in the queue, and is free when its lease ends
            _log.exception("cannot put %s %s back", work.kind, work.id)
