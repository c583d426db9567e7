"""What is SQLite's own: WAL mode, a full disk, an older or newer file, many processes that open one new file."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from puna.base.errors import StorageError, VersionError
from puna.stack.state.sqlite import SqliteStore


def test_the_file_is_in_wal_mode_and_every_write_is_flushed(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "new" / "stack.db")
    with store._lent() as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
    store.close()


def test_a_store_in_memory_keeps_what_several_calls_put(tmp_path: Path) -> None:
    store = SqliteStore(":memory:")
    store.put("thing", "a", {"n": 1})
    assert store.get("thing", "a") is not None
    store.close()


def test_many_processes_may_open_one_new_file_at_once(tmp_path: Path) -> None:
    code = (
        "import sys; from puna.stack.state.sqlite import SqliteStore; s = SqliteStore(sys.argv[1])\n"
        "for i in range(20): s.put('thing', f'{sys.argv[2]}-{i}', {})"
    )
    path = tmp_path / "stack.db"
    children = [
        subprocess.Popen([sys.executable, "-c", code, path, str(n)], stderr=subprocess.PIPE, text=True)
        for n in range(4)
    ]
    for child in children:
        _, error = child.communicate()
        assert child.returncode == 0, error
    store = SqliteStore(path)
    assert len(store.list("thing", limit=100).records) == 80
    store.close()


def test_a_file_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "stack.db"
    SqliteStore(path).close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(VersionError, match="schema 99"):
        SqliteStore(path)


def test_a_path_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="unable to open"):
        SqliteStore(tmp_path)


FULL = """
import sys
from pathlib import Path
from puna.base.errors import StorageError
from puna.stack.state.sqlite import SqliteStore
store = SqliteStore(Path(sys.argv[1]) / "stack.db")
kept = 0
try:
    while True:
        with store.transaction():
            store.put("left", str(kept), {"x": "y" * 20000})
            store.put("right", str(kept), {"x": "y" * 20000})
        kept += 1
except StorageError as error:
    assert "full" in str(error), error
assert kept > 2
assert all(store.get(kind, str(i)) for kind in ("left", "right") for i in range(kept))
assert not store.get("left", str(kept))
"""


def test_a_full_disk_is_said_and_loses_nothing(small_filesystem: Callable[..., None]) -> None:
    small_filesystem(FULL)
