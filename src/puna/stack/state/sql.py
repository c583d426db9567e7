"""What the stores in SQL share: the statements, the connections that take turns, and transactions.

Connections are lent to a thread for one call or one transaction and then go back, so that there are never more than
calls at one time, whatever threads come and go. What a database does in its own way, a subclass says: how to connect,
how a transaction begins, and which of its errors mean that the disk or the server failed.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Literal

from puna.base.errors import StorageError
from puna.stack.errors import not_found
from puna.stack.state.store import Page, Record, dump, is_text, load

_COLUMNS = "kind, id, owner, parent, created, seq, data"


class SqlStore(ABC):
    """A `Store` in a table `records`.

    Args:
        where: the database, as messages name it.
        most: connections at one time; further calls wait for one.
        mark: how a value's place is written in a statement.
    """

    errors: tuple[type[Exception], ...]  # what the driver raises

    def __init__(self, where: str, most: int, mark: str) -> None:
        self.where, self._mark = where, mark
        self._turns = threading.BoundedSemaphore(most)
        self._idle: list[Any] = []
        self._lock = threading.Lock()
        self._writing = threading.Lock()  # a database wakes those that wait for it late, and in no order
        self._held = threading.local()
        self._closed = False

    @abstractmethod
    def _connect(self) -> Any: ...

    @abstractmethod
    def _begin(self, connection: Any) -> None: ...

    @abstractmethod
    def _is_usable(self, connection: Any) -> bool: ...

    @abstractmethod
    def _migrate(self) -> None: ...

    def _prepare(self) -> None:
        """Makes the tables what this version expects."""
        try:
            with self.transaction():
                self._migrate()
        except BaseException:
            self.close()
            raise

    @contextmanager
    def _lent(self) -> Iterator[Any]:
        """This thread's connection: that of its transaction, or one for a moment."""
        held = getattr(self._held, "connection", None)
        if held is not None:
            yield held
            return
        with self._turns, self._translated("use"):
            with self._lock:
                if self._closed:
                    raise StorageError(f"{self.where} was closed.", hint="Start the server again.")
                connection = self._idle.pop() if self._idle else None
            connection = connection or self._connect()
            try:
                yield connection
            finally:
                self._take_back(connection)

    def _take_back(self, connection: Any) -> None:
        with self._lock:
            if not self._closed and self._is_usable(connection):
                self._idle.append(connection)
                return
        connection.close()

    @contextmanager
    def _translated(self, what: str) -> Iterator[None]:
        try:
            yield
        except self.errors as error:
            text = " ".join(str(error).split())
            raise StorageError(f"Cannot {what} {self.where}: {text}.", hint="Check its disk and its server.") from error

    @contextmanager
    def transaction(self) -> Iterator[None]:
        if getattr(self._held, "connection", None) is not None:
            yield  # a nested one is a part of the outer one
            return
        with self._writing, self._lent() as connection:
            self._held.connection = connection
            try:
                self._begin(connection)
                yield
                connection.execute("COMMIT")
            except BaseException:
                # Where not even this is possible, the connection is given up, and the database undoes it by itself.
                with suppress(*self.errors):
                    connection.execute("ROLLBACK")
                raise
            finally:
                self._held.connection = None

    def _run(self, statement: str, values: Sequence[Any]) -> tuple[Sequence[tuple[Any, ...]], int]:
        """The rows that a statement gives, and how many it changed."""
        with self._lent() as connection:
            cursor = connection.execute(statement.replace("?", self._mark), values)
            return cursor.fetchall() if cursor.description else [], cursor.rowcount

    def put(
        self, kind: str, id: str, data: Mapping[str, Any], *, owner: str = "", parent: str = "", created: float = 0.0
    ) -> Record:
        with self.transaction():
            _, changed = self._run(
                "UPDATE records SET data = ? WHERE kind = ? AND id = ? AND owner = ?", (dump(data), kind, id, owner)
            )
            if not changed and self.insert(kind, id, data, owner=owner, parent=parent, created=created) is None:
                raise not_found(kind.replace("_", " "), id)
            record = self.get(kind, id, owner)
            assert record is not None
            return record

    def insert(
        self, kind: str, id: str, data: Mapping[str, Any], *, owner: str = "", parent: str = "", created: float = 0.0
    ) -> Record | None:
        with self.transaction():
            _, changed = self._run(
                "INSERT INTO records (kind, id, owner, parent, created, data) VALUES (?, ?, ?, ?, ?, ?) "
                "ON CONFLICT (kind, id) DO NOTHING",
                (kind, id, owner, parent, created or time.time(), dump(data)),
            )
            return self.get(kind, id, owner) if changed else None

    def get(self, kind: str, id: str, owner: str = "") -> Record | None:
        if not is_text(id):
            return None
        rows, _ = self._run(
            f"SELECT {_COLUMNS} FROM records WHERE kind = ? AND id = ? AND owner = ?", (kind, id, owner)
        )
        return _record(rows[0]) if rows else None

    def delete(self, kind: str, id: str, owner: str = "") -> bool:
        if not is_text(id):
            return False
        with self.transaction():
            values = (kind, id, owner)
            return self._run("DELETE FROM records WHERE kind = ? AND id = ? AND owner = ?", values)[1] > 0

    def delete_children(self, kind: str, parent: str, owner: str = "") -> int:
        if not is_text(parent):
            return 0
        with self.transaction():
            values = (kind, parent, owner)
            return self._run("DELETE FROM records WHERE kind = ? AND parent = ? AND owner = ?", values)[1]

    def list(
        self,
        kind: str,
        owner: str = "",
        *,
        parent: str | None = None,
        after: str | None = None,
        before: str | None = None,
        limit: int = 20,
        order: Literal["asc", "desc"] = "desc",
    ) -> Page:
        where, values = ["kind = ?", "owner = ?"], [kind, owner]
        if parent is not None:
            if not is_text(parent):
                return Page([], False)
            where.append("parent = ?")
            values.append(parent)
        for param, id, sign in (("after", after, ">"), ("before", before, "<")):
            if id is not None:
                mark = self.get(kind, id, owner)
                if mark is None or (parent is not None and mark.parent != parent):
                    raise not_found(kind.replace("_", " "), id, param)
                turned_sign = sign if order == "asc" else {"<": ">", ">": "<"}[sign]
                where.append(f"seq {turned_sign} {mark.seq}")
        # Before a record the nearest ones are wanted, which come in the other order.
        turned = before is not None and after is None
        way = "ASC" if (order == "asc") != turned else "DESC"
        rows, _ = self._run(
            f"SELECT {_COLUMNS} FROM records WHERE {' AND '.join(where)} ORDER BY seq {way} LIMIT ?",
            [*values, limit + 1],
        )
        records = [_record(row) for row in rows[:limit]]
        return Page(records[::-1] if turned else records, len(rows) > limit)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            for connection in self._idle:
                connection.close()
            self._idle.clear()


def _record(row: tuple[Any, ...]) -> Record:
    kind, id, owner, parent, created, seq, data = row
    return Record(kind, id, owner, parent, created, seq, load(data))
