"""Files with records: there whole or not at all, gone when they expire, their owner's alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from puna.stack.errors import ApiError
from puna.stack.state.files import FileStore
from puna.stack.state.store import Store
from puna.stack.state.uploads import KIND, SWEEP, Uploads, file_object
from puna.stack.state.work import WorkQueue


async def pieces(*parts: bytes, error: Exception | None = None) -> AsyncIterator[bytes]:
    for part in parts:
        yield part
    if error:
        raise error


@pytest.fixture
def uploads(store: Store, tmp_path: Path) -> Uploads:
    return Uploads(store, FileStore(tmp_path / "files"), WorkQueue(store))


def upload(uploads: Uploads, owner: str = "", purpose: str = "batch", seconds: int | None = None) -> str:
    return asyncio.run(uploads.create(owner, "a.txt", purpose, pieces(b"abc"), seconds=seconds)).id


def sweep(uploads: Uploads) -> None:
    """Does what the sweeper would do now."""
    for work in uploads.queue.claim(SWEEP, 100):
        asyncio.run(uploads._sweep(work))
        uploads.queue.done(work)


def blobs(uploads: Uploads) -> list[str]:
    folder = uploads.files.folder
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_a_file_has_its_record_and_its_bytes(uploads: Uploads) -> None:
    id = upload(uploads, "ada")
    shown = file_object(uploads.get("ada", id))
    assert shown["bytes"] == 3
    assert (shown["filename"], shown["purpose"], shown["expires_at"]) == ("a.txt", "batch", None)
    assert abs(shown["created_at"] - time.time()) < 5
    assert uploads.files.read(id) == b"abc"
    assert uploads.store.list("work").records == []


def test_another_owners_file_is_not_there(uploads: Uploads) -> None:
    id = upload(uploads, "ada")
    with pytest.raises(ApiError) as caught:
        uploads.get("eve", id)
    assert (caught.value.status, caught.value.code) == (404, "not_found")
    assert not uploads.delete("eve", id)
    assert uploads.list("eve", None, 10, None, "desc").records == []


def test_a_broken_upload_leaves_nothing(uploads: Uploads) -> None:
    with pytest.raises(ConnectionError):
        asyncio.run(uploads.create("", "a.txt", "batch", pieces(b"half", error=ConnectionError())))
    assert blobs(uploads) == []
    assert uploads.store.list("work").records == []


def test_bytes_that_a_killed_server_left_without_a_record_are_swept(uploads: Uploads) -> None:
    uploads.queue.add(SWEEP, "file-orphan", "", due=time.time() - 1)
    asyncio.run(uploads.files.write("file-orphan", pieces(b"abc")))
    kept = upload(uploads)
    sweep(uploads)
    assert blobs(uploads) == [kept]


def test_a_deletion_that_was_cut_off_is_finished(uploads: Uploads) -> None:
    id = upload(uploads)
    with uploads.store.transaction():
        uploads.store.delete(KIND, id)
        uploads.queue.add(SWEEP, id)
    sweep(uploads)
    assert blobs(uploads) == []


def test_deleting_takes_record_and_bytes(uploads: Uploads) -> None:
    id = upload(uploads)
    assert uploads.delete("", id)
    assert not uploads.delete("", id)
    assert uploads.find("", id) is None
    assert blobs(uploads) == []
    assert uploads.store.list("work").records == []


def test_an_expired_file_is_gone_at_once_and_its_bytes_are_swept(uploads: Uploads) -> None:
    lasting, brief = upload(uploads, seconds=3600), upload(uploads, seconds=3600)
    record = uploads.get("", brief)
    assert record.data["expires_at"] == int(record.created) + 3600
    past = int(time.time()) - 1
    uploads.store.put(KIND, brief, {**record.data, "expires_at": past})
    uploads.queue.add(SWEEP, brief, due=past)
    assert uploads.find("", brief) is None
    assert [found.id for found in uploads.list("", None, 10, None, "desc").records] == [lasting]
    sweep(uploads)
    assert blobs(uploads) == [lasting]
    assert uploads.store.get(KIND, brief) is None


def test_lists_are_of_one_purpose(uploads: Uploads) -> None:
    first, second, third = upload(uploads, purpose="batch"), upload(uploads), upload(uploads, purpose="evals")
    page = uploads.list("", "batch", 1, None, "asc")
    assert ([record.id for record in page.records], page.has_more) == ([first], True)
    page = uploads.list("", "batch", 1, first, "asc")
    assert ([record.id for record in page.records], page.has_more) == ([second], False)
    assert [record.id for record in uploads.list("", "evals", 5, None, "asc").records] == [third]


def test_a_file_that_is_written_again_under_its_id_is_one_file(uploads: Uploads) -> None:
    for content in (b"first", b"second"):
        asyncio.run(uploads.create("", "out.jsonl", "batch_output", pieces(content), id="file-out"))
    assert uploads.files.read("file-out") == b"second"
    assert uploads.get("", "file-out").data["bytes"] == 6
    assert len(uploads.list("", None, 10, None, "desc").records) == 1
