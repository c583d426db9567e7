"""What is kept of vector stores: their records, counted and changed in transactions.

Nothing is indexed here; each change that makes indexing necessary notes the work in the same transaction.

A store's file has the id "store:file", so that one file may lie in many stores; the file's own record names them all.
All calls block.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from puna.stack.context import new_id
from puna.stack.errors import invalid, not_found
from puna.stack.state import uploads
from puna.stack.state.store import Page, Record, Store, list_where
from puna.stack.state.uploads import Uploads
from puna.stack.state.work import Work, WorkQueue
from puna.stack.vector_stores.objects import expires_at, is_expired, moved, no_counts

STORE, FILE, BATCH = "vector_store", "vector_store_file", "vector_store_file_batch"
INDEX, SWEEP = "vector_store_index", "vector_store_sweep"
_TOUCH_SECONDS = 60  # a use is noted this often at most


@dataclass(frozen=True, slots=True)
class Entry:
    """A file to be attached.

    Attributes:
        file_id: of the upload.
        attributes: to filter by.
        cut: length and overlap of passages in characters.
    """

    file_id: str
    attributes: Mapping[str, Any]
    cut: tuple[int, int]


class Records:
    """The records of all owners' vector stores."""

    def __init__(self, store: Store, files: Uploads, queue: WorkQueue) -> None:
        self.store, self.files, self.queue = store, files, queue

    # Stores -----------------------------------------------------------------------------------------------------------

    def create(self, owner: str, settings: Mapping[str, Any], entries: Sequence[Entry]) -> Record:
        """A new store with files.

        Args:
            owner: whose it is.
            settings: name, description, metadata, expires_after, embedding_model.
            entries: its files; those that are not there fail by themselves.
        """
        with self.store.transaction():
            fresh = {"last_active_at": int(time.time()), "expired": False, "counts": no_counts(), "usage_bytes": 0}
            record = self.store.put(STORE, new_id("vs"), {**settings, **fresh}, owner=owner)
            self._note_expiry(record)
            for entry in entries:
                self._attach(record, entry, "", must_be=False)
            return self.get(owner, record.id)

    def get(self, owner: str, id: str, *, usable: bool = False) -> Record:
        """A store.

        Raises:
            ApiError: 404; or 400 where it must be usable and has expired.
        """
        record = self.store.get(STORE, id, owner)
        if record is None:
            raise not_found("vector store", id, "vector_store_id")
        if usable and is_expired(record.data):
            raise invalid(f"The vector store {id!r} has expired.", "vector_store_id", "vector_store_expired")
        return record

    def update(self, owner: str, id: str, changes: Mapping[str, Any]) -> Record:
        with self.store.transaction():
            record = self.get(owner, id)
            data = {**record.data, **changes, "last_active_at": int(time.time())}
            data["expired"] = is_expired(record.data)
            record = self.store.put(STORE, id, data, owner=owner)
            self._note_expiry(record)
            return record

    def touch(self, record: Record) -> None:
        """Notes that a store is used, which puts its expiry off."""
        if record.data["last_active_at"] < time.time() - _TOUCH_SECONDS:
            self.update(record.owner, record.id, {})

    def _note_expiry(self, record: Record) -> None:
        if when := expires_at(record.data):
            self.queue.add(SWEEP, record.id, record.owner, due=when)

    def delete(self, owner: str, id: str) -> None:
        """Deletes a store; its index goes by the work that is noted."""
        with self.store.transaction():
            self.get(owner, id)
            for record in self._every_file(owner, id):
                self._forget_store(owner, record.data["file_id"], id)
            self.store.delete_children(FILE, id, owner)
            self.store.delete_children(BATCH, id, owner)
            self.store.delete(STORE, id, owner)
            self.queue.add(SWEEP, id, owner)

    def sweep(self, work: Work) -> bool:
        """Whether a store's index is to go, because the store is gone or has expired."""
        with self.store.transaction():
            record = self.store.get(STORE, work.id, work.owner)
            if record is None:
                return True
            if is_expired(record.data):
                self.store.put(STORE, record.id, {**record.data, "expired": True}, owner=work.owner)
                return True
            self._note_expiry(record)
            return False

    # Files ------------------------------------------------------------------------------------------------------------

    def attach(self, owner: str, store_id: str, entry: Entry) -> Record:
        with self.store.transaction():
            record = self.get(owner, store_id, usable=True)
            self.touch(record)
            return self._attach(record, entry, "", must_be=True)

    def _attach(self, store: Record, entry: Entry, batch_id: str, *, must_be: bool) -> Record:
        """Notes a file and the work of indexing it; one that is not there is refused or fails."""
        owner, id = store.owner, f"{store.id}:{entry.file_id}"
        upload = self.files.find(owner, entry.file_id)
        if upload is None and must_be:
            raise not_found("file", entry.file_id, "file_id")
        missing = {"code": "invalid_file", "message": f"There is no file {entry.file_id!r}."}
        data = {
            "file_id": entry.file_id,
            "filename": upload.data["filename"] if upload else "",
            "attributes": dict(entry.attributes),
            "chunking": list(entry.cut),
            "batch_id": batch_id,
            "usage_bytes": 0,
            "status": "in_progress" if upload else "failed",
            "last_error": None if upload else missing,
        }
        old = self.store.get(FILE, id, owner)
        record = self.store.put(FILE, id, data, owner=owner, parent=store.id)
        self._count(record, old.data if old else None, record.data)
        if old and old.data["batch_id"] and old.data["status"] == "in_progress":
            self._count_batch(owner, old.data["batch_id"], "in_progress", "cancelled")
        if upload:
            self.queue.add(INDEX, id, owner)
            self._know_store(upload, store.id)
        return record

    def file(self, owner: str, store_id: str, file_id: str) -> Record:
        record = self.store.get(FILE, f"{store_id}:{file_id}", owner)
        if record is None:
            self.get(owner, store_id)
            raise not_found("file of this vector store", file_id, "file_id")
        return record

    def has_file(self, owner: str, store_id: str, file_id: str) -> bool:
        return self.store.get(FILE, f"{store_id}:{file_id}", owner) is not None

    def list_files(
        self, owner: str, store_id: str, keep: Callable[[Record], bool], limit: int, paging: Mapping[str, Any]
    ) -> Page:
        """A page of a store's files.

        Args:
            owner: whose store.
            store_id: which.
            keep: whether a file belongs to the list.
            limit: files of the page.
            paging: order, and "after" or "before" as a file's id.
        """
        self.get(owner, store_id)
        marks = {name: f"{store_id}:{paging[name]}" for name in ("after", "before") if paging.get(name)}
        read = self.store.list
        if "before" in marks:
            page = read(FILE, owner, parent=store_id, limit=10_000, order=paging["order"], **marks)
            kept = [record for record in page.records if keep(record)]
            return Page(kept[-limit:], len(kept) > limit)
        return list_where(
            keep,
            lambda **page: read(FILE, owner, parent=store_id, order=paging["order"], **page),
            limit,
            marks.get("after"),
        )

    def set_attributes(self, owner: str, store_id: str, file_id: str, attributes: Mapping[str, Any]) -> Record:
        with self.store.transaction():
            record = self.file(owner, store_id, file_id)
            self.queue.add(INDEX, record.id, owner)
            return self.store.put(FILE, record.id, {**record.data, "attributes": dict(attributes)}, owner=owner)

    def detach(self, owner: str, store_id: str, file_id: str) -> bool:
        """Takes a file out of a store; its passages go by the work that is noted."""
        with self.store.transaction():
            record = self.store.get(FILE, f"{store_id}:{file_id}", owner)
            if record is None:
                return False
            self.store.delete(FILE, record.id, owner)
            self._count(record, record.data, None)
            if record.data["batch_id"] and record.data["status"] == "in_progress":
                self._count_batch(owner, record.data["batch_id"], "in_progress", "cancelled")
            self._forget_store(owner, file_id, store_id)
            self.queue.add(INDEX, record.id, owner)
            return True

    def finish(self, work: Work, status: str, error: Mapping[str, str] | None = None, size: int = 0) -> bool:
        """Keeps how indexing a file ended, unless something else was asked for meanwhile; returns whether it did."""
        with self.store.transaction():
            record = self.store.get(FILE, work.id, work.owner)
            if record is None or record.data["status"] != "in_progress" or not self.queue.is_current(work):
                return False
            data = {**record.data, "status": status, "last_error": error, "usage_bytes": size}
            self.store.put(FILE, record.id, data, owner=work.owner)
            self._count(record, record.data, data)
            if batch_id := data["batch_id"]:
                self._count_batch(work.owner, batch_id, "in_progress", status)
            self.queue.done(work)
            return True

    def _every_file(self, owner: str, store_id: str) -> Sequence[Record]:
        return self.store.list(FILE, owner, parent=store_id, limit=1_000_000, order="asc").records

    def _count(self, file: Record, old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> None:
        record = self.store.get(STORE, file.parent, file.owner)
        if record is None:
            return
        counts = moved(record.data["counts"], old["status"] if old else None, new["status"] if new else None)
        size = record.data["usage_bytes"] - (old["usage_bytes"] if old else 0) + (new["usage_bytes"] if new else 0)
        self.store.put(STORE, record.id, {**record.data, "counts": counts, "usage_bytes": size}, owner=file.owner)

    def _know_store(self, upload: Record, store_id: str) -> None:
        """Has an uploaded file name the stores that it lies in, so that it can leave them all."""
        if store_id not in upload.data["stores"]:
            data = {**upload.data, "stores": [*upload.data["stores"], store_id]}
            self.store.put(uploads.KIND, upload.id, data, owner=upload.owner)

    def _forget_store(self, owner: str, file_id: str, store_id: str) -> None:
        if upload := self.store.get(uploads.KIND, file_id, owner):
            stores = [id for id in upload.data["stores"] if id != store_id]
            self.store.put(uploads.KIND, file_id, {**upload.data, "stores": stores}, owner=owner)

    # Batches of files -------------------------------------------------------------------------------------------------

    def create_batch(self, owner: str, store_id: str, entries: Sequence[Entry]) -> Record:
        """Attaches many files at once; those that are not there fail by themselves."""
        with self.store.transaction():
            store = self.get(owner, store_id, usable=True)
            self.touch(store)
            id = new_id("vsfb")
            states = [self._attach(store, entry, id, must_be=False).data["status"] for entry in entries]
            counts = no_counts()
            for state in states:
                counts = moved(counts, None, state)
            data = {"file_ids": [entry.file_id for entry in entries], "counts": counts, "cancelled": False}
            return self.store.put(BATCH, id, data, owner=owner, parent=store_id)

    def batch(self, owner: str, store_id: str, id: str) -> Record:
        record = self.store.get(BATCH, id, owner)
        if record is None or record.parent != store_id:
            raise not_found("batch of files", id, "batch_id")
        return record

    def cancel_batch(self, owner: str, store_id: str, id: str) -> Record:
        with self.store.transaction():
            batch = self.batch(owner, store_id, id)
            if not batch.data["counts"]["in_progress"]:
                return batch
            for file_id in batch.data["file_ids"]:
                record = self.store.get(FILE, f"{store_id}:{file_id}", owner)
                if record and record.data["batch_id"] == id and record.data["status"] == "in_progress":
                    data = {**record.data, "status": "cancelled"}
                    self.store.put(FILE, record.id, data, owner=owner)
                    self._count(record, record.data, data)
                    self._count_batch(owner, id, "in_progress", "cancelled")
                    self.queue.add(INDEX, record.id, owner)
            batch = self.batch(owner, store_id, id)
            return self.store.put(BATCH, id, {**batch.data, "cancelled": True}, owner=owner)

    def _count_batch(self, owner: str, id: str, old: str, new: str) -> None:
        if record := self.store.get(BATCH, id, owner):
            counts = moved(record.data["counts"], old, new)
            self.store.put(BATCH, id, {**record.data, "counts": counts}, owner=owner)
