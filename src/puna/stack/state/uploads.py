"""Uploaded files, and those that the server writes for its users: a record with a name and a purpose, and bytes.

The record is written last and deleted first, so that a file is there whole or not at all; bytes without a record are
swept away by a piece of work that was noted before they were written. An expired file is gone from the moment on.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any, Literal

from puna.stack.errors import not_found
from puna.stack.state.files import FileStore
from puna.stack.state.store import Page, Record, Store, list_where, run
from puna.stack.state.work import Work, WorkQueue
from puna.stack.state.worker import Worker

KIND = "file"
SWEEP = "file_sweep"
_UPLOAD_SECONDS = 6 * 3600  # after which bytes without a record are no upload under way


class Uploads:
    """The files of all owners.

    Args:
        store: their records.
        files: their bytes.
        queue: where sweeping is noted.
    """

    def __init__(self, store: Store, files: FileStore, queue: WorkQueue) -> None:
        self.store, self.files, self.queue = store, files, queue
        self.sweeper = Worker(queue, SWEEP, self._sweep, _forget, parallel=1, poll=10.0)

    async def create(
        self,
        owner: str,
        filename: str,
        purpose: str,
        chunks: AsyncIterator[bytes],
        *,
        seconds: int | None = None,
        id: str = "",
    ) -> Record:
        """Keeps a file.

        Args:
            owner: whose it is.
            filename: as its owner calls it.
            purpose: what it is for.
            chunks: its bytes.
            seconds: after which it expires.
            id: under which it is kept; "" for a new one. One that is there is written anew.
        """
        id = id or new_file_id()
        await run(self.queue.add, SWEEP, id, owner, due=time.time() + _UPLOAD_SECONDS)
        try:
            size = await self.files.write(id, chunks)
        except BaseException:
            self.queue.cancel(SWEEP, id)
            raise
        now = time.time()
        data = {
            "filename": filename,
            "purpose": purpose,
            "bytes": size,
            "expires_at": int(now) + seconds if seconds else None,
            "stores": [],
        }
        return await run(self._keep, owner, id, data, now)

    def _keep(self, owner: str, id: str, data: Mapping[str, Any], now: float) -> Record:
        with self.store.transaction():
            record = self.store.put(KIND, id, data, owner=owner, created=now)
            if data["expires_at"]:
                self.queue.add(SWEEP, id, owner, due=data["expires_at"])
            else:
                self.queue.cancel(SWEEP, id)
            return record

    def find(self, owner: str, id: str) -> Record | None:
        record = self.store.get(KIND, id, owner)
        return record if record and not is_expired(record) else None

    def get(self, owner: str, id: str, param: str = "file_id") -> Record:
        """A file's record.

        Raises:
            ApiError: 404 for one that is not there, has expired, or is another owner's.
        """
        record = self.find(owner, id)
        if record is None:
            raise not_found("file", id, param)
        return record

    def list(
        self, owner: str, purpose: str | None, limit: int, after: str | None, order: Literal["asc", "desc"]
    ) -> Page:
        def keep(record: Record) -> bool:
            return not is_expired(record) and purpose in (None, record.data["purpose"])

        return list_where(keep, lambda **page: self.store.list(KIND, owner, order=order, **page), limit, after)

    def delete(self, owner: str, id: str) -> bool:
        """Deletes a file. Vector stores that know it are the caller's matter."""
        with self.store.transaction():
            if not self.store.delete(KIND, id, owner):
                return False
            self.queue.add(SWEEP, id, owner)
        self.files.delete(id)
        self.queue.cancel(SWEEP, id)
        return True

    async def _sweep(self, work: Work) -> None:
        await run(self._sweep_now, work)

    def _sweep_now(self, work: Work) -> None:
        record = self.store.get(KIND, work.id, work.owner)
        if record is None:
            self.files.delete(work.id)
        elif is_expired(record):
            # The piece of work stays until the bytes are gone too.
            self.store.delete(KIND, work.id, work.owner)
            self.files.delete(work.id)


async def _forget(work: Work, error: Exception) -> None:
    """Bytes that cannot be deleted stay on the disk; the log says so."""
    del work, error


def is_expired(record: Record) -> bool:
    return bool(record.data.get("expires_at")) and record.data.get("expires_at") <= time.time()


def new_file_id() -> str:
    return f"file-{secrets.token_hex(12)}"


def file_object(record: Record) -> dict[str, Any]:
    """A file as OpenAI shows it."""
    data = record.data
    return {
        "id": record.id,
        "object": "file",
        "bytes": data["bytes"],
        "created_at": int(record.created),
        "expires_at": data["expires_at"],
        "filename": data["filename"],
        "purpose": data["purpose"],
        "status": "processed",
        "status_details": None,
    }
