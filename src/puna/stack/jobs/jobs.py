"""`Jobs`: work that outlives the request that asked for it, and the server's process.

A job's record is written before the answer that names it. Beside it stands a note that it is under way; a server that
starts looks through these notes and goes on with each job whose process is gone. Work is therefore a function that can
be called again: it saves what it has done and skips it the next time. A job that took its process down three times is
marked failed. Cancelling works from every worker: it leaves a note, which the worker that runs the job finds.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from puna.base.files import hash_json
from puna.stack.context import Stack
from puna.stack.errors import ApiError, as_api_error, not_found
from puna.stack.jobs.resources import key
from puna.stack.state.holder import identity, is_alive
from puna.stack.state.store import every, run

_log = logging.getLogger(__name__)
_UNDER_WAY, _CANCEL = "job_under_way", "job_cancel"
_ENDED = ("completed", "failed", "cancelled")
_MOST_STARTS = 3
_AT_ONCE = 4
_LOOK_SECONDS = 1.0


def iso(seconds: float) -> str:
    """A time as the clients read it."""
    return datetime.fromtimestamp(seconds, UTC).isoformat()


@dataclass(eq=False)
class Running:
    """A job while it works.

    Attributes:
        stack: the server's parts.
        kind: of the job.
        id: as its owner calls it.
        owner: whose it is.
        data: what is kept of it: status, request, times, and what `save` adds.
        folder: for its files.
    """

    stack: Stack
    kind: str
    id: str
    owner: str
    data: dict[str, Any]
    folder: Path
    cancelled: bool = field(default=False)

    @property
    def request(self) -> Mapping[str, Any]:
        return self.data["request"]

    @property
    def uid(self) -> str:
        return f"{self.kind}:{key(self.owner, self.id)}"

    async def save(self, **fields: Any) -> None:
        """Keeps something of what was done; it is in `data` when the job is started again."""
        self.data.update(fields)
        await run(self.stack.store.put, self.kind, key(self.owner, self.id), self.data, owner=self.owner)


Work = Callable[[Running], Awaitable[Mapping[str, Any]]]


class Jobs:
    """Args:
    stack: the server's parts; its store keeps the jobs.
    works: what each kind of job does; it returns the result.
    folder: for the files of jobs.
    at_once: how many jobs of a kind run at a time; the others wait. Kinds that are not named have `_AT_ONCE`.
    """

    def __init__(
        self, stack: Stack, works: Mapping[str, Work], folder: Path, at_once: Mapping[str, int] | None = None
    ) -> None:
        self.stack, self.works, self.folder = stack, dict(works), folder
        self._turns = {kind: asyncio.Semaphore((at_once or {}).get(kind, _AT_ONCE)) for kind in works}
        self._tasks: dict[str, tuple[Running, asyncio.Task[None]]] = {}

    async def submit(
        self, kind: str, owner: str, id: str, request: Mapping[str, Any], parent: str = ""
    ) -> dict[str, Any]:
        """Starts a job.

        Raises:
            ApiError: 409 where the owner has a job of this name.
        """
        now = time.time()
        data: dict[str, Any] = {"status": "scheduled", "request": dict(request), "scheduled_at": iso(now)}
        data |= {"started_at": None, "completed_at": None, "starts": 0, "result": None, "error": None}
        data |= {"process": identity(os.getpid())}
        running = self._running(kind, owner, id, data)

        def write() -> bool:
            store = self.stack.store
            with store.transaction():
                if store.insert(kind, key(owner, id), data | {"id": id}, owner=owner, parent=parent) is None:
                    return False
                store.insert(_UNDER_WAY, running.uid, {"kind": kind, "owner": owner, "id": id})
                return True

        if not await run(write):
            raise ApiError(409, f"There is a job {id!r} already.", param="job_uuid", code="exists")
        data["id"] = id
        self._start(running)
        return dict(data)

    def _running(self, kind: str, owner: str, id: str, data: dict[str, Any]) -> Running:
        return Running(self.stack, kind, id, owner, data, self.folder_of(kind, owner, id))

    def folder_of(self, kind: str, owner: str, id: str) -> Path:
        """Where the files of a job lie."""
        return self.folder / kind / _folder_name(owner, id)

    def _start(self, running: Running) -> None:
        task = self.stack.background(self._run(running))
        self._tasks[running.uid] = running, task
        task.add_done_callback(lambda _: self._tasks.pop(running.uid, None))

    async def _run(self, running: Running) -> None:
        """Waits for its turn, works, and keeps what came of it."""
        work: asyncio.Task[dict[str, Any]] | None = None
        try:
            async with self._turns[running.kind]:
                running.data["starts"] += 1
                times = {"started_at": running.data["started_at"] or iso(time.time())}
                await running.save(status="in_progress", process=identity(os.getpid()), **times)
                work = asyncio.ensure_future(self._work(running))
                outcome = await self._watched(running, work)
        except asyncio.CancelledError:
            if work is not None:
                await _end(work)
                running.data["starts"] -= 1
            if not running.cancelled:  # the server stops: the job goes on when it starts again
                await running.save(process="")
                raise
            outcome = {"status": "cancelled"}
        await self._finish(running, outcome)

    async def _work(self, running: Running) -> dict[str, Any]:
        try:
            return {"status": "completed", "result": dict(await self.works[running.kind](running))}
        except Exception as error:
            refusal = as_api_error(error)
            if refusal.status >= 500 and not isinstance(error, ApiError):
                _log.error("the job %s failed", running.id, exc_info=error)
            return {"status": "failed", "error": refusal.body()["error"]}

    async def _watched(self, running: Running, work: asyncio.Task[dict[str, Any]]) -> dict[str, Any]:
        """The outcome of the work, or "cancelled" where a note of another worker says so."""
        while not (await asyncio.wait([work], timeout=_LOOK_SECONDS))[0]:
            if await run(self.stack.store.get, _CANCEL, running.uid) is not None:
                await _end(work)
                return {"status": "cancelled"}
        return work.result()

    async def _finish(self, running: Running, outcome: Mapping[str, Any]) -> None:
        running.data.update(outcome, completed_at=iso(time.time()), process="")

        def write() -> None:
            store = self.stack.store
            with store.transaction():
                store.put(running.kind, key(running.owner, running.id), running.data, owner=running.owner)
                store.delete(_UNDER_WAY, running.uid)
                store.delete(_CANCEL, running.uid)

        await run(write)

    async def get(self, kind: str, owner: str, id: str) -> dict[str, Any]:
        record = await run(self.stack.store.get, kind, key(owner, id), owner)
        if record is None:
            raise not_found("job", id)
        return dict(record.data)

    async def list(self, kind: str, owner: str, parent: str | None = None) -> list[dict[str, Any]]:
        return await run(lambda: [dict(record.data) for record in every(self.stack.store, kind, owner, parent)])

    async def cancel(self, kind: str, owner: str, id: str) -> dict[str, Any]:
        """Ends a job, and returns what became of it; one that has ended stays as it is."""
        data = await self.get(kind, owner, id)
        if data["status"] in _ENDED:
            return data
        running = self._running(kind, owner, id, data)
        await run(self.stack.store.insert, _CANCEL, running.uid, {})
        if running.uid in self._tasks:
            here, task = self._tasks[running.uid]
            here.cancelled = True
            task.cancel()
            await asyncio.wait([task])
        elif is_alive(data.get("process", "")):
            return data  # another worker runs it, and finds the note
        data = await self.get(kind, owner, id)
        if data["status"] not in _ENDED:  # it had not begun
            running.data = data
            await self._finish(running, {"status": "cancelled"})
        return await self.get(kind, owner, id)

    async def wait(self, kind: str, owner: str, id: str) -> dict[str, Any]:
        """Waits for a job that runs in this process."""
        found = self._tasks.get(self._running(kind, owner, id, {}).uid)
        if found is not None:
            await asyncio.wait([found[1]])
        return await self.get(kind, owner, id)

    async def resume(self) -> int:
        """Goes on with the jobs whose process is gone; returns how many."""
        notes = await run(lambda: [dict(record.data) for record in every(self.stack.store, _UNDER_WAY, "")])
        claimed = [running for note in notes if (running := await run(self._claim, note)) is not None]
        for running in claimed:
            if running.data["starts"] >= _MOST_STARTS:
                message = f"The server stopped {_MOST_STARTS} times while this job was under way."
                error = ApiError(500, message, code="interrupted")
                await self._finish(running, {"status": "failed", "error": error.body()["error"]})
            else:
                self._start(running)
        return len(claimed)

    def _claim(self, note: Mapping[str, Any]) -> Running | None:
        """Takes a job that nobody runs, in one transaction: of two workers that start together one gets it."""
        kind, owner, id = note["kind"], note["owner"], note["id"]
        store = self.stack.store
        with store.transaction():
            record = store.get(kind, key(owner, id), owner)
            if record is None or kind not in self.works or is_alive(record.data.get("process", "")):
                return None
            data = dict(record.data) | {"process": identity(os.getpid())}
            store.put(kind, key(owner, id), data, owner=owner)
        return self._running(kind, owner, id, data)


async def _end(work: asyncio.Task[Any]) -> None:
    work.cancel()
    await asyncio.wait([work])


def _folder_name(owner: str, id: str) -> str:
    """A folder's name for any job: its letters where they are harmless, and a hash that tells all names apart."""
    safe = "".join(c if c.isalnum() and c.isascii() else "-" for c in id)[:40]
    return f"{safe}-{hash_json([owner, id])[:12]}"
