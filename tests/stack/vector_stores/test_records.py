"""Records of vector stores: counts agree with the files after any sequence of changes, in both databases."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from puna.stack.errors import ApiError
from puna.stack.state.files import FileStore
from puna.stack.state.sqlite import SqliteStore
from puna.stack.state.uploads import Uploads
from puna.stack.state.work import Work, WorkQueue
from puna.stack.vector_stores.objects import STATES
from puna.stack.vector_stores.records import FILE, INDEX, STORE, SWEEP, Entry, Records

SETTINGS = {"name": "", "description": None, "metadata": {}, "expires_after": None, "embedding_model": ""}


@pytest.fixture
def records(tmp_path: Path) -> Iterator[Records]:
    store = SqliteStore(tmp_path / "stack.db")
    queue = WorkQueue(store)
    yield Records(store, Uploads(store, FileStore(tmp_path / "files"), queue), queue)
    store.close()


async def some_bytes() -> AsyncIterator[bytes]:
    yield b"text"


def upload(records: Records, owner: str = "ada") -> str:
    return asyncio.run(records.files.create(owner, "a.txt", "assistants", some_bytes())).id


def entry(id: str) -> Entry:
    return Entry(id, {}, (800, 0))


def assert_counts(records: Records, store_id: str) -> None:
    data = records.get("ada", store_id).data
    files = records.store.list(FILE, "ada", parent=store_id, limit=1000).records
    states = [file.data["status"] for file in files]
    assert data["counts"] == {**{state: states.count(state) for state in STATES}, "total": len(states)}
    assert data["usage_bytes"] == sum(file.data["usage_bytes"] for file in files)


def test_a_file_that_is_not_there_is_refused_alone_and_fails_among_others(records: Records) -> None:
    store = records.create("ada", SETTINGS, [entry(upload(records)), entry("file-none")])
    assert records.file("ada", store.id, "file-none").data["status"] == "failed"
    with pytest.raises(ApiError):
        records.attach("ada", store.id, entry("file-other"))
    assert not records.has_file("ada", store.id, "file-other")
    assert len(records.queue.claim(INDEX, 9)) == 1
    assert_counts(records, store.id)


def test_a_file_attached_again_while_it_is_indexed_is_indexed_again(records: Records) -> None:
    id = upload(records)
    store = records.create("ada", SETTINGS, [entry(id)])
    (work,) = records.queue.claim(INDEX, 1)
    records.attach("ada", store.id, Entry(id, {"new": True}, (800, 0)))
    assert not records.finish(work, "completed", size=4)
    records.queue.done(work)
    (again,) = records.queue.claim(INDEX, 1)
    assert records.finish(again, "completed", size=4)
    file = records.file("ada", store.id, id)
    assert (file.data["status"], file.data["attributes"]) == ("completed", {"new": True})
    assert_counts(records, store.id)


def test_a_file_knows_the_stores_that_it_lies_in(records: Records) -> None:
    id = upload(records)
    stores = [records.create("ada", SETTINGS, [entry(id)]).id for _ in range(3)]
    assert records.files.get("ada", id).data["stores"] == stores
    records.detach("ada", stores[0], id)
    records.delete("ada", stores[1])
    assert records.files.get("ada", id).data["stores"] == stores[2:]


def test_another_owner_changes_nothing(records: Records) -> None:
    id = upload(records)
    store = records.create("ada", SETTINGS, [entry(id)])
    assert not records.detach("eve", store.id, id)
    for call in (
        lambda: records.get("eve", store.id),
        lambda: records.attach("eve", store.id, entry(id)),
        lambda: records.delete("eve", store.id),
        lambda: records.update("eve", store.id, {"name": "x"}),
        lambda: records.set_attributes("eve", store.id, id, {}),
        lambda: records.create_batch("eve", store.id, [entry(id)]),
    ):
        with pytest.raises(ApiError) as caught:
            call()
        assert caught.value.status == 404
    assert_counts(records, store.id)


def test_an_expired_store_is_swept_and_another_is_looked_at_again(records: Records) -> None:
    after = {**SETTINGS, "expires_after": {"anchor": "last_active_at", "days": 1}}
    store = records.create("ada", after, [])
    work = Work(SWEEP, store.id, "ada", 1, 0)
    assert not records.sweep(work)
    assert records.queue.claim(SWEEP, 1) == []  # not before it is due
    data = records.get("ada", store.id).data
    records.store.put(STORE, store.id, {**data, "last_active_at": data["last_active_at"] - 100_000}, owner="ada")
    assert records.sweep(work)
    assert records.get("ada", store.id).data["expired"]
    with pytest.raises(ApiError) as caught:
        records.attach("ada", store.id, entry(upload(records)))
    assert caught.value.code == "vector_store_expired"


def test_counts_agree_with_the_files_after_any_sequence(records: Records) -> None:
    chance = random.Random(7)
    files = [upload(records) for _ in range(5)]
    store = records.create("ada", SETTINGS, [entry(files[0])])
    batches: list[str] = []
    held: list[Work] = []
    for _ in range(300):
        file, what = chance.choice(files), chance.randrange(7)
        if what == 0:
            records.attach("ada", store.id, entry(file))
        elif what == 1:
            records.detach("ada", store.id, file)
        elif what == 2:
            some = [entry(id) for id in chance.sample(files, 2)]
            batches.append(records.create_batch("ada", store.id, [*some, entry("file-none")]).id)
        elif what == 3 and batches:
            records.cancel_batch("ada", store.id, chance.choice(batches))
        elif what == 4:
            held += records.queue.claim(INDEX, 2)
        elif held:
            work = held.pop(chance.randrange(len(held)))
            status = "completed" if what == 5 else "failed"
            records.finish(work, status, None, chance.randrange(100))
            records.queue.done(work)
        assert_counts(records, store.id)
        for id in batches:
            counts = records.batch("ada", store.id, id).data["counts"]
            assert min(counts.values()) >= 0
            assert counts["total"] == 3
