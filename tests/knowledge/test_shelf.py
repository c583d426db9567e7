"""What both shelves have: the pool of connections, and JSON that survives."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from puna.base.errors import StorageError
from puna.knowledge.shelf import dump, load
from puna.knowledge.sqlite_shelf import SqliteShelf


def test_connections_are_used_again_and_no_more_are_kept_than_needed(tmp_path: Path):
    shelf = SqliteShelf(tmp_path / "a.sqlite")
    with shelf.reading() as one:
        first = one.connection
    with shelf.reading() as again, shelf.reading() as other:
        assert again.connection is first
        assert other.connection is not first
    met = threading.Barrier(7)

    def read() -> None:
        with shelf.reading():
            met.wait()

    threads = [threading.Thread(target=read) for _ in range(7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(shelf._free) == 4
    shelf.close()
    assert shelf._free == []


def test_a_closed_shelf_says_so_and_closes_what_is_still_at_work(tmp_path: Path):
    shelf = SqliteShelf(tmp_path / "a.sqlite")
    with shelf.reading() as seen:
        shelf.close()
        assert seen.chunks() == 0
    assert shelf._free == []
    with pytest.raises(StorageError, match="is closed"), shelf.writing():
        raise AssertionError("nobody may write")


def test_json_survives_with_everything_in_it():
    data = {"é": "\ud800", "n": None, "l": [1, {"a": True}]}
    assert load(dump(data)) == data
    assert load(dump(None)) == {}
