"""A `Store` in PostgreSQL, for several servers over one database.

Writers take turns by an advisory lock, as they do in SQLite. So what a transaction has read is still so when it writes,
and records become visible in the order of their `seq`: a list that is read page by page misses none. That costs
throughput, of which a server of models needs little: it writes a few records for every answer.
"""

from __future__ import annotations

from typing import Any

from puna.base.postgres import connect, driver
from puna.stack.state.migrations import migrate, steps
from puna.stack.state.sql import SqlStore

_CONNECTIONS = 8  # of one process; PostgreSQL allows 100 in all unless told otherwise
_LOCK = 0x70756E61  # the number of the advisory lock, the same in every server


class PostgresStore(SqlStore):
    """Args:
    url: "postgresql://user:password@host:port/database"; the password is never shown.
    """

    def __init__(self, url: str) -> None:
        psycopg = driver("Keeping records in PostgreSQL")
        self._psycopg, self._url = psycopg, url
        self.errors = (psycopg.Error,)
        super().__init__(_shown(psycopg, url), _CONNECTIONS, "%s")
        self._prepare()

    def _migrate(self) -> None:
        self._run("CREATE TABLE IF NOT EXISTS records_schema (version INTEGER NOT NULL)", ())
        rows, _ = self._run("SELECT max(version) FROM records_schema", ())
        version = rows[0][0] or 0
        newest = migrate(self.where, version, steps("postgres"), lambda statement: self._run(statement, ()))
        if newest > version:
            self._run("INSERT INTO records_schema (version) VALUES (?)", (newest,))

    def _connect(self) -> Any:
        return connect(self._psycopg, self._url)

    def _begin(self, connection: Any) -> None:
        connection.execute("BEGIN")
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))

    def _is_usable(self, connection: Any) -> bool:
        if connection.closed or connection.broken:
            self._forget_idle()  # the server went away: so did the others
            return False
        return connection.info.transaction_status == self._psycopg.pq.TransactionStatus.IDLE

    def _forget_idle(self) -> None:
        """Closes the connections that wait; `_lock` is held."""
        for other in self._idle:
            other.close()
        self._idle.clear()


def _shown(psycopg: Any, url: str) -> str:
    """The database without what is secret."""
    try:
        parts = psycopg.conninfo.conninfo_to_dict(url)
    except psycopg.Error:
        return "the PostgreSQL database"  # `_connect` will say what is wrong
    return f"PostgreSQL database {parts.get('dbname', '')!r} on {parts.get('host', 'this machine')}"
