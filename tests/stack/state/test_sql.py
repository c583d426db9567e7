"""Connections that are lent and taken back; what the stores answer is in `test_store`."""

from __future__ import annotations

from pathlib import Path

import pytest

from puna.base.errors import StorageError
from puna.stack.state.sqlite import SqliteStore


def test_a_connection_with_a_half_done_transaction_is_not_lent_again(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "stack.db")
    with store._lent() as first:
        first.execute("BEGIN")
    with store._lent() as second:
        assert second is not first
    with store._lent() as third:
        assert third is second
    store.close()


def test_a_failing_database_is_a_storage_error_that_names_it(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "stack.db")
    store._run("DROP TABLE records", ())
    with pytest.raises(StorageError, match=r"stack\.db: no such table: records"):
        store.get("thing", "a")
    with pytest.raises(StorageError):
        store.put("thing", "a", {})
    store.close()


def test_a_closed_store_says_so(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "stack.db")
    store.close()
    with pytest.raises(StorageError, match="was closed"):
        store.get("thing", "a")
