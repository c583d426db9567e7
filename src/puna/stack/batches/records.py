"""What is kept of batches: the batch, and one record for each line that was answered, written when it was.

The records of the lines are what a killed server goes by at its next start; they are deleted when the output files are
written. All calls block.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from typing import Any

from puna.stack.context import Caller, new_id
from puna.stack.errors import ApiError, invalid, not_found
from puna.stack.state.store import Record, Store
from puna.stack.state.uploads import Uploads, new_file_id
from puna.stack.state.work import Work, WorkQueue

BATCH, LINE, WORK = "batch", "batch_line", "batch"
UNDER_WAY = ("validating", "in_progress", "finalizing")
ENDED = ("completed", "failed", "expired", "cancelled")
_WINDOW = 24 * 3600
_FIELDS = (
    "endpoint",
    "errors",
    "input_file_id",
    "completion_window",
    "status",
    "output_file_id",
    "error_file_id",
    "in_progress_at",
    "expires_at",
    "finalizing_at",
    "completed_at",
    "failed_at",
    "expired_at",
    "cancelling_at",
    "cancelled_at",
    "request_counts",
    "metadata",
)


class BatchRecords:
    """The records of all owners' batches."""

    def __init__(self, store: Store, files: Uploads, queue: WorkQueue) -> None:
        self.store, self.files, self.queue = store, files, queue

    def create(self, caller: Caller, settings: Mapping[str, Any], key: str = "") -> Record:
        """A new batch, and the work of doing it. A file that is not there fails it later, as it does at OpenAI.

        Args:
            caller: on whose behalf its requests will be made.
            settings: input_file_id, endpoint, completion_window, metadata, output_seconds.
            key: of the caller's; asking again with it gives the batch that is there.

        Raises:
            ApiError: 400 for a file that is not for batches, 409 for a key that came with other settings.
        """
        file = self.files.find(caller.owner, settings["input_file_id"])
        if file and file.data["purpose"] != "batch":
            purpose = file.data["purpose"]
            message = f"The file {file.id!r} has the purpose {purpose!r}; a batch needs one uploaded for 'batch'."
            raise invalid(message, "input_file_id")
        data = {
            **settings,
            "status": "validating",
            "expires_at": int(time.time()) + _WINDOW,
            "request_counts": {"total": 0, "completed": 0, "failed": 0},
            "caller": {"key_id": caller.key_id, "scopes": sorted(caller.scopes)},
        }
        with self.store.transaction():
            id = _id_of(caller.owner, key) if key else new_id("batch")
            record = self.store.insert(BATCH, id, data, owner=caller.owner)
            if record is None:
                there = self.get(caller.owner, id)
                if any(there.data[name] != value for name, value in settings.items()):
                    message = f"The idempotency key is in conflict: the batch {id!r} was made with it and is another."
                    raise ApiError(409, message, param="idempotency_key", code="conflict")
                return there
            self.queue.add(WORK, record.id, caller.owner)
            return record

    def get(self, owner: str, id: str) -> Record:
        record = self.store.get(BATCH, id, owner)
        if record is None:
            raise not_found("batch", id, "batch_id")
        return record

    def change(self, record: Record, **changes: Any) -> Record:
        """Changes a batch as it is now, not as it was read."""
        with self.store.transaction():
            now = self.get(record.owner, record.id)
            return self.store.put(BATCH, record.id, {**now.data, **changes}, owner=record.owner)

    def enter(self, record: Record, status: str, **changes: Any) -> Record:
        """Takes a batch into a state, unless it is being cancelled or has ended."""
        with self.store.transaction():
            now = self.get(record.owner, record.id)
            if now.data["status"] not in UNDER_WAY:
                return now
            return self.change(now, status=status, **{f"{status}_at": int(time.time())}, **changes)

    def cancel(self, owner: str, id: str) -> Record:
        """Asks that a batch ends early; doing so again changes nothing.

        Raises:
            ApiError: 409 for one that has ended, or whose files are being written.
        """
        with self.store.transaction():
            record = self.get(owner, id)
            status = record.data["status"]
            if status in ("cancelling", "cancelled"):
                return record
            if status in (*ENDED, "finalizing"):
                raise ApiError(409, f"Cannot cancel the batch {id!r}: it is {status}.", code="batch_ended")
            return self.change(record, status="cancelling", cancelling_at=int(time.time()))

    def plan(self, record: Record) -> Record:
        """Decides how a batch ends and under which ids its files are written, once: a kill changes neither."""
        with self.store.transaction():
            now = self.get(record.owner, record.id)
            if now.data.get("plan"):
                return now
            counts = now.data["request_counts"]
            missing = counts["total"] - counts["completed"] - counts["failed"]
            cancelled = now.data["status"] == "cancelling"
            status = "cancelled" if cancelled else "expired" if missing else "completed"
            output = new_file_id() if counts["completed"] else None
            error = new_file_id() if counts["failed"] or status == "expired" else None
            now = self.change(now, plan={"status": status, "output": output, "error": error})
            return self.enter(now, "finalizing")

    def end(self, work: Work, record: Record, status: str, **changes: Any) -> None:
        """The last transaction of a batch."""
        with self.store.transaction():
            self.change(record, status=status, **{f"{status}_at": int(time.time())}, **changes)
            self.store.delete_children(LINE, record.id, record.owner)
            self.queue.done(work)

    # Lines ------------------------------------------------------------------------------------------------------------

    def keep_line(self, record: Record, number: int, result: Mapping[str, Any], *, failed: bool) -> None:
        """Keeps what a request was answered, and counts it."""
        with self.store.transaction():
            id, data = f"{record.id}:{number}", {"number": number, "failed": failed, "result": dict(result)}
            now = self.get(record.owner, record.id)
            if now.data.get("plan"):
                return  # too late: the files are being written
            if self.store.insert(LINE, id, data, owner=record.owner, parent=record.id) is None:
                return
            counts = dict(now.data["request_counts"])
            counts["failed" if failed else "completed"] += 1
            self.change(record, request_counts=counts)

    def lines(self, record: Record) -> Iterator[Mapping[str, Any]]:
        """What is kept of each answered line, in the order of the answers."""
        after: str | None = None
        while True:
            page = self.store.list(LINE, record.owner, parent=record.id, after=after, limit=500, order="asc")
            for line in page.records:
                yield line.data
            if not page.has_more:
                return
            after = page.records[-1].id


def _id_of(owner: str, key: str) -> str:
    return f"batch_{hashlib.sha256(json.dumps([owner, key]).encode()).hexdigest()[:24]}"


def batch_object(record: Record) -> dict[str, Any]:
    """A batch as OpenAI shows it."""
    shown = {name: record.data.get(name) for name in _FIELDS}
    return {"id": record.id, "object": "batch", "created_at": int(record.created), **shown}
