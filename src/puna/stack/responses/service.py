"""`Responses`: the runs of one server, in the foreground and in the background.

A run in the foreground lives as long as its client waits. One in the background is a task of its own, whose events are
kept in memory while it runs and a while after, for clients that come to watch it. A response is on disk before the
client learns its id from a stream or from the answer to a request for the background; one that is answered whole is
written once, before the answer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial
from typing import Any

from puna.stack import sse
from puna.stack.context import Stack
from puna.stack.errors import ApiError, invalid
from puna.stack.responses.events import Event, frame, view
from puna.stack.responses.marks import LEASE_SECONDS, STOPPED, UNDER_WAY, Marks
from puna.stack.responses.plan import Plan
from puna.stack.responses.records import Kept
from puna.stack.responses.run import Run
from puna.stack.state.store import run

_log = logging.getLogger(__name__)
_PART = "responses"
_WATCH_SECONDS = 1.0  # between looks for cancellations that other processes ask for
_FEEDS = 64  # ended runs whose events are still at hand


class Feed:
    """The events of a run in the background, for any number of watchers, from any point on."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.over = False
        self._more = asyncio.Event()

    def add(self, event: Event) -> None:
        self.frames.append(frame(event))
        self._wake()

    def end(self) -> None:
        self.over = True
        self._wake()

    def _wake(self) -> None:
        self._more.set()
        self._more = asyncio.Event()

    async def read(self, start: int = 0) -> AsyncGenerator[bytes, None]:
        """The events from a number on, to the end."""
        at = start
        while True:
            while at < len(self.frames):
                yield self.frames[at]
                at += 1
            if self.over:
                yield sse.DONE
                return
            more = self._more
            await more.wait()


class Responses:
    """Args:
    stack: of the server.
    """

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.marks = Marks(stack.store)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._feeds: dict[str, Feed] = {}
        self._watcher: asyncio.Task[Any] | None = None
        self._stopping = False

    async def start(self) -> None:
        """Ends what an earlier process left under way."""
        for id in await run(self.marks.recover):
            _log.warning("%s was under way when its process ended; it has failed", id)

    async def stop(self) -> None:
        """Ends all runs; those in the background have failed, for nobody cancelled them."""
        self._stopping = True
        tasks = [task for task in (*self._tasks.values(), self._watcher) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.marks.close()

    # The foreground ---------------------------------------------------------------------------------------------------

    async def answer(self, plan: Plan) -> dict[str, Any]:
        """The whole response.

        Raises:
            ApiError: it failed; nothing is kept of it.
        """
        made = Run(self.stack, plan, partial(self._end_if_whole, plan))
        async with aclosing(made.events()) as events:
            async for _ in events:
                continue
        if made.error is not None:
            raise made.error
        return view(plan.response, plan.include)

    async def stream(self, plan: Plan) -> AsyncGenerator[bytes, None]:
        """The response as events."""
        kept = plan.response["store"]
        if kept:
            await self._begin(plan)
        try:
            async with aclosing(Run(self.stack, plan, partial(self._end, plan)).events()) as events:
                async for event in events:
                    yield frame(event)
            yield sse.DONE
        finally:
            self.marks.running.pop(plan.id, None)

    async def _begin(self, plan: Plan) -> None:
        self.marks.running[plan.id] = plan.owner
        await run(self.marks.begin, plan.owner, plan.kept())
        if self._watcher is None or self._watcher.done():
            self._watcher = self.stack.background(self._watch())

    async def _end(self, plan: Plan) -> None:
        if plan.response["status"] in UNDER_WAY:
            await run(self.marks.begin, plan.owner, plan.kept())
            return
        if self._stopping and plan.response["status"] == "cancelled":
            plan.response.update(status="failed", error=STOPPED)
        whole = plan.response["status"] in ("completed", "incomplete")
        if plan.response["store"] or (whole and plan.conversation):
            await run(self.marks.end, plan.owner, plan.kept(), whole)

    async def _end_if_whole(self, plan: Plan) -> None:
        if plan.response["status"] in ("completed", "incomplete"):
            await self._end(plan)

    # The background ---------------------------------------------------------------------------------------------------

    async def launch(self, plan: Plan) -> Feed:
        """Begins a response that goes on without its client; it is on disk when this returns."""
        await self._begin(plan)
        feed = self._feeds[plan.id] = Feed()
        task = self._tasks[plan.id] = self.stack.background(self._run(plan, feed))
        # A task that is cancelled before its first step runs nothing of itself, not even its `finally`.
        task.add_done_callback(lambda _: self._forget(plan.id, feed))
        return feed

    async def _run(self, plan: Plan, feed: Feed) -> None:
        made = Run(self.stack, plan, partial(self._end, plan))
        try:
            async with aclosing(made.events()) as events:
                async for event in events:
                    feed.add(event)
        except asyncio.CancelledError:
            if plan.response["status"] == "cancelled":
                feed.add(made.script.lifecycle("response.incomplete"))
            raise

    def _forget(self, id: str, feed: Feed) -> None:
        feed.end()
        self.marks.running.pop(id, None)
        self._tasks.pop(id, None)
        ended = [other for other, kept in self._feeds.items() if kept.over]
        for other in ended[:-_FEEDS]:
            del self._feeds[other]

    def watch(self, id: str, after: int | None) -> AsyncGenerator[bytes, None]:
        """The events of a run in the background.

        Raises:
            ApiError: 400 where they are not at hand (any more).
        """
        feed = self._feeds.get(id)
        if feed is None:
            raise invalid(f"The events of {id!r} are not at hand; ask for it without stream.", "stream")
        return feed.read(0 if after is None else after + 1)

    async def load(self, owner: str, id: str) -> Kept:
        return await run(self.marks.load, owner, id)

    async def cancel(self, owner: str, id: str) -> Kept:
        """Ends a response in the background; one that was cancelled stays as it is.

        Raises:
            ApiError: 404; 409 for one that has ended; 400 for one that is not in the background.
        """
        kept = await self.load(owner, id)
        status = kept.response["status"]
        if status == "cancelled":
            return kept
        if status not in UNDER_WAY:
            raise ApiError(409, f"{id!r} cannot be cancelled: it is {status}.", param="response_id", code="ended")
        if not kept.response["background"]:
            raise invalid(f"{id!r} is not in the background; it ends when its client leaves.", "response_id")
        task = self._tasks.get(id)
        if task is not None:
            task.cancel()
            await asyncio.wait({task})
            kept = await self.load(owner, id)
            if kept.response["status"] in UNDER_WAY:  # cancelled before its first step
                kept.response["status"] = "cancelled"
                await run(self.marks.end, owner, kept, False)
            return kept
        await run(self.marks.ask_to_cancel, id)
        for _ in range(50):
            await asyncio.sleep(_WATCH_SECONDS / 5)
            kept = await self.load(owner, id)
            if kept.response["status"] not in UNDER_WAY:
                return kept
        raise ApiError(503, f"The process that works on {id!r} does not answer.", code="cancel_timeout")

    async def _watch(self) -> None:
        """Renews this worker's marks, and hears cancellations, while anything runs."""
        looks = 0
        while self.marks.running:
            await asyncio.sleep(_WATCH_SECONDS)
            looks += 1
            renew = looks % int(LEASE_SECONDS / _WATCH_SECONDS / 3) == 0
            look = self.marks.renew if renew else self.marks.cancelled
            try:
                found = await run(look)
            except Exception:
                _log.exception("the marks of running responses could not be renewed")
                continue
            for id in found:
                if id in self._tasks:
                    self._tasks[id].cancel()


def responses_of(stack: Stack) -> Responses:
    """The stack's; made when first asked for."""
    return stack.part(_PART, Responses)
