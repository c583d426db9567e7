"""A `Store` in one SQLite file: in WAL mode, so that readers never wait, and with a busy timeout, so that two workers
on one file take turns.
"""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from typing import Any

from puna.stack.state.migrations import migrate, steps
from puna.stack.state.sql import SqlStore

_BUSY_SECONDS = 30.0
_CONNECTIONS = 16


class SqliteStore(SqlStore):
    """Args:
    path: of the file; ":memory:" keeps nothing, and calls take turns.
    """

    errors = (sqlite3.Error,)

    def __init__(self, path: Path | str) -> None:
        self.path = str(path)
        in_memory = self.path == ":memory:"
        super().__init__(self.path, 1 if in_memory else _CONNECTIONS, "?")
        if not in_memory:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        self._prepare()

    def _migrate(self) -> None:
        ((version,),), _ = self._run("PRAGMA user_version", ())
        newest = migrate(self.path, version, steps("sqlite"), lambda statement: self._run(statement, ()))
        self._run(f"PRAGMA user_version = {newest}", ())

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        _write_ahead(connection)
        connection.execute("PRAGMA synchronous = FULL")  # what is acknowledged survives a loss of power too
        return connection

    def _begin(self, connection: Any) -> None:
        # At once, not at the first write: a read that becomes a write cannot wait for its turn.
        connection.execute("BEGIN IMMEDIATE")

    def _is_usable(self, connection: Any) -> bool:
        return not connection.in_transaction


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Turns WAL mode on. Two processes that do so to a new file at one time are refused without waiting."""
    until = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > until:
                connection.close()
                raise
            time.sleep(0.01)
