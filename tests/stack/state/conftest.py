"""Stores to test: one in SQLite and one in PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from puna.stack.state.sqlite import SqliteStore
from puna.stack.state.store import Store


@pytest.fixture(params=["sqlite", "postgres"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A place for a store: a path or a URL."""
    if request.param == "sqlite":
        return str(tmp_path / "stack.db")
    return request.getfixturevalue("postgres_url")


@pytest.fixture
def opened(where: str) -> Iterator[Callable[[], Store]]:
    """Opens the store of `where`, as often as it is called; closes them all."""
    stores: list[Store] = []

    def open_one() -> Store:
        if "://" in where:
            from puna.stack.state.postgres import PostgresStore

            stores.append(PostgresStore(where))
        else:
            stores.append(SqliteStore(where))
        return stores[-1]

    yield open_one
    for store in stores:
        store.close()


@pytest.fixture
def store(opened: Callable[[], Store]) -> Store:
    return opened()
