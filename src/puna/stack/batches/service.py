"""`Batches`: does batches in the background, some requests at a time, and writes what came out into two files.

A line is done when its answer is kept. A server that is killed goes on with the lines that have none; those whose
request was under way at that moment are asked again, for nobody can know how far they came.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any

from starlette.types import ASGIApp

from puna.stack.batches.caller import OwnClient, Reply
from puna.stack.batches.lines import Line, check, parse
from puna.stack.batches.records import BATCH, ENDED, UNDER_WAY, WORK, BatchRecords
from puna.stack.context import Caller, Stack, new_id
from puna.stack.errors import as_api_error
from puna.stack.state.parts import queue_of, uploads_of
from puna.stack.state.store import Record, run
from puna.stack.state.work import Work
from puna.stack.state.worker import Worker

_LOOK_SECONDS = 0.5  # between two looks whether a batch is to end early


class Batches:
    """The batches of a server; `stack.parts["batches"]`.

    Args:
        stack: that keeps them.
        app: whose routes answer.
        parallel: requests of one batch at one time.
    """

    def __init__(self, stack: Stack, app: ASGIApp, parallel: int = 4) -> None:
        self._stack, self._parallel = stack, parallel
        self._files = uploads_of(stack)
        self._client = OwnClient(app)
        self.records = BatchRecords(stack.store, self._files, queue_of(stack))
        self._worker = Worker(queue_of(stack), WORK, self._do, self._gave_up, parallel=2)

    def start(self) -> None:
        self._stack.background(self._worker.run())

    def wake(self) -> None:
        self._worker.wake()

    async def _do(self, work: Work) -> None:
        record = await run(self.records.store.get, BATCH, work.id, work.owner)
        if record is None or record.data["status"] in ENDED:
            return
        if record.data["status"] == "validating":
            record = await self._validate(work, record)
        if record.data["status"] == "in_progress":
            await self._answer(record)
        record = await run(self.records.get, work.owner, work.id)
        if record.data["status"] not in ENDED:
            await self._finalize(work, record)

    async def _validate(self, work: Work, record: Record) -> Record:
        data = record.data
        if self._files.find(record.owner, data["input_file_id"]) is None:
            message = f"Cannot find file {data['input_file_id']!r} of this caller."
            total, faults = 0, [{"code": "invalid_request", "message": message, "param": "file_id", "line": None}]
        else:
            rows = self._stack.files.lines(data["input_file_id"])
            total, found = await run(check, rows, data["endpoint"], self._knows)
            faults = [fault.wire() for fault in found]
        if faults:
            await run(self.records.end, work, record, "failed", errors={"object": "list", "data": faults})
            return await run(self.records.get, work.owner, work.id)
        counts = {**data["request_counts"], "total": total}
        return await run(self.records.enter, record, "in_progress", request_counts=counts)

    def _knows(self, model: str) -> bool:
        return any(model in (id, info.id) for id, (_, info) in self._stack.models.items())

    # Requests ---------------------------------------------------------------------------------------------------------

    async def _answer(self, record: Record) -> None:
        """Makes the requests that have no answer yet, until there are none or the batch is to end."""
        done = await run(lambda: {line["number"] for line in self.records.lines(record)})
        rows = parse(self._stack.files.lines(record.data["input_file_id"]), record.data["endpoint"])
        todo = (line for line in rows if isinstance(line, Line) and line.number not in done)
        some = [asyncio.ensure_future(self._some(record, todo)) for _ in range(self._parallel)]
        every = asyncio.ensure_future(_all(some))
        end = asyncio.ensure_future(self._is_to_end(record))
        try:
            await asyncio.wait((every, end), return_when=asyncio.FIRST_COMPLETED)
            if every.done():
                every.result()
        finally:
            for task in (*some, end):
                task.cancel()
            await asyncio.gather(every, *some, end, return_exceptions=True)

    async def _some(self, record: Record, todo: Iterator[Line]) -> None:
        caller = record.data["caller"]
        acting = Caller(record.owner, caller["key_id"], frozenset(caller["scopes"]))
        for line in todo:
            reply = await self._client.post(acting, record.data["endpoint"], line.body)
            failed = reply.status >= 400
            await run(self.records.keep_line, record, line.number, _result(line, reply), failed=failed)

    async def _is_to_end(self, record: Record) -> None:
        """Returns when a batch is cancelled, or its time is over."""
        while True:
            now = await run(self.records.get, record.owner, record.id)
            if now.data["status"] not in UNDER_WAY or now.data["expires_at"] <= time.time():
                return
            await asyncio.sleep(_LOOK_SECONDS)

    # The end ----------------------------------------------------------------------------------------------------------

    async def _finalize(self, work: Work, record: Record) -> None:
        """Writes the files and ends the batch; done again after a kill, it writes the same files."""
        record = await run(self.records.plan, record)
        plan = record.data["plan"]
        names = {"output_file_id": plan["output"], "error_file_id": plan["error"]}
        for id, failed in ((plan["output"], False), (plan["error"], True)):
            if id:
                await self._write(record, id, failed=failed, expired=failed and plan["status"] == "expired")
        await run(self.records.end, work, record, plan["status"], **names)

    async def _write(self, record: Record, id: str, *, failed: bool, expired: bool) -> None:
        rows = _grouped(self._rows(record, failed=failed, expired=expired))

        async def pieces() -> AsyncIterator[bytes]:
            while piece := await run(next, rows, b""):
                yield piece

        name = f"{record.id}_{'error' if failed else 'output'}.jsonl"
        seconds = record.data["output_seconds"]
        await self._files.create(record.owner, name, "batch_output", pieces(), seconds=seconds, id=id)

    def _rows(self, record: Record, *, failed: bool, expired: bool) -> Iterator[bytes]:
        done = set()
        for line in self.records.lines(record):
            done.add(line["number"])
            if line["failed"] == failed:
                yield _json(line["result"])
        if expired:
            rows = self._stack.files.lines(record.data["input_file_id"])
            for line in parse(rows, record.data["endpoint"]):
                if isinstance(line, Line) and line.number not in done:
                    error = {"code": "batch_expired", "message": "The batch's time was over before this request."}
                    yield _json(
                        {"id": new_id("batch_req"), "custom_id": line.custom_id, "response": None, "error": error}
                    )

    async def _gave_up(self, work: Work, error: Exception) -> None:
        record = await run(self.records.get, work.owner, work.id)
        fault = {"code": "server_error", "message": as_api_error(error).message, "param": None, "line": None}
        await run(self.records.end, work, record, "failed", errors={"object": "list", "data": [fault]})


async def _all(tasks: Sequence[asyncio.Task[None]]) -> None:
    await asyncio.gather(*tasks)


def _result(line: Line, reply: Reply) -> dict[str, Any]:
    response = {"status_code": reply.status, "request_id": reply.request_id, "body": reply.body}
    error = None
    if reply.status >= 400:
        told = reply.body.get("error") if isinstance(reply.body, dict) else None
        told = told if isinstance(told, dict) else {}
        error = {"code": told.get("code") or str(reply.status), "message": told.get("message") or "The request failed."}
    return {"id": new_id("batch_req"), "custom_id": line.custom_id, "response": response, "error": error}


def _json(row: Mapping[str, Any]) -> bytes:
    return json.dumps(row, separators=(",", ":")).encode() + b"\n"


def _grouped(rows: Iterator[bytes], size: int = 1 << 18) -> Iterator[bytes]:
    """Rows joined to pieces of some size, for each piece is a call to another thread."""
    held: list[bytes] = []
    length = 0
    for row in rows:
        held.append(row)
        length += len(row)
        if length >= size:
            yield b"".join(held)
            held, length = [], 0
    if held:
        yield b"".join(held)
