"""What is kept of a batch: its states follow each other, and a line counts once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from puna.stack.batches.records import LINE, WORK, BatchRecords
from puna.stack.context import Caller
from puna.stack.errors import ApiError
from puna.stack.state.files import FileStore
from puna.stack.state.sqlite import SqliteStore
from puna.stack.state.store import Record
from puna.stack.state.uploads import Uploads
from puna.stack.state.work import WorkQueue


@pytest.fixture
def records(tmp_path: Path) -> Iterator[BatchRecords]:
    store = SqliteStore(tmp_path / "stack.db")
    queue = WorkQueue(store)
    yield BatchRecords(store, Uploads(store, FileStore(tmp_path / "files"), queue), queue)
    store.close()


async def no_bytes() -> AsyncIterator[bytes]:
    for piece in ():
        yield piece


def create(records: BatchRecords, total: int = 3) -> Record:
    file = asyncio.run(records.files.create("ada", "in.jsonl", "batch", no_bytes()))
    settings = {"input_file_id": file.id, "endpoint": "/v1/responses", "output_seconds": None}
    record = records.create(Caller("ada", "k1", frozenset({"batches", "responses"})), settings)
    return records.change(record, request_counts={"total": total, "completed": 0, "failed": 0})


def test_a_batch_and_its_work_are_kept_together(records: BatchRecords) -> None:
    record = create(records)
    (work,) = records.queue.claim(WORK, 5)
    assert (work.id, work.owner) == (record.id, "ada")
    assert record.data["caller"] == {"key_id": "k1", "scopes": ["batches", "responses"]}


def test_a_line_that_is_kept_twice_counts_once(records: BatchRecords) -> None:
    record = create(records)
    for _ in range(2):
        records.keep_line(record, 1, {"a": 1}, failed=False)
    records.keep_line(record, 2, {"a": 2}, failed=True)
    counts = records.get("ada", record.id).data["request_counts"]
    assert counts == {"total": 3, "completed": 1, "failed": 1}
    assert [line["number"] for line in records.lines(record)] == [1, 2]


def test_a_plan_is_made_once_and_no_line_comes_after_it(records: BatchRecords) -> None:
    record = records.enter(create(records), "in_progress")
    records.keep_line(record, 1, {}, failed=False)
    planned = records.plan(record)
    plan = planned.data["plan"]
    assert (plan["status"], planned.data["status"]) == ("expired", "finalizing")
    assert plan["output"]
    assert plan["error"]
    assert records.plan(record).data["plan"] == plan
    records.keep_line(record, 2, {}, failed=False)
    assert records.get("ada", record.id).data["request_counts"]["completed"] == 1


def test_a_batch_that_is_cancelled_goes_no_further(records: BatchRecords) -> None:
    record = create(records)
    cancelled = records.cancel("ada", record.id)
    assert cancelled.data["status"] == "cancelling"
    assert records.cancel("ada", record.id) == cancelled
    assert records.enter(record, "in_progress").data["status"] == "cancelling"
    plan = records.plan(record).data["plan"]
    assert plan == {"status": "cancelled", "output": None, "error": None}


def test_a_batch_whose_files_are_being_written_cannot_be_cancelled(records: BatchRecords) -> None:
    record = records.enter(create(records), "in_progress")
    records.plan(record)
    with pytest.raises(ApiError) as caught:
        records.cancel("ada", record.id)
    assert caught.value.status == 409


def test_the_end_takes_lines_and_work_with_it(records: BatchRecords) -> None:
    record = create(records)
    (work,) = records.queue.claim(WORK, 1)
    records.keep_line(record, 1, {}, failed=False)
    records.end(work, record, "completed", output_file_id="file-1")
    ended = records.get("ada", record.id)
    assert (ended.data["status"], ended.data["output_file_id"]) == ("completed", "file-1")
    assert ended.data["completed_at"]
    assert records.store.list(LINE, "ada").records == []
    assert records.store.list("work").records == []


def test_many_lines_come_in_the_order_of_their_answers(records: BatchRecords) -> None:
    record = create(records, 1200)
    with records.store.transaction():
        for n in range(1200, 0, -1):
            records.keep_line(record, n, {}, failed=False)
    assert [line["number"] for line in records.lines(record)] == list(range(1200, 0, -1))
