"""A library in one SQLite file in WAL mode: documents, chunks, their words (FTS5) and their vectors.

The vectors are kept in memory too, where all of them are compared; only what has changed is read again.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from puna.base.errors import ConfigError, VersionError, storage_errors
from puna.core.document import Document
from puna.knowledge.nearest import Floats, Ids, Nearest
from puna.knowledge.shelf import Row, Scored, Shelf, dump, load
from puna.knowledge.words import TOKENIZER, WEIGHTS, any_of, folded

SCHEMA_VERSION = 1
_BUSY_SECONDS = 30.0
_IDLE = 4  # connections that wait for the next call
_SCHEMA = f"""
CREATE TABLE documents (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, hash TEXT NOT NULL, source TEXT NOT NULL,
    language TEXT NOT NULL, scores TEXT NOT NULL, attributes TEXT NOT NULL, meta TEXT NOT NULL, text TEXT NOT NULL);
CREATE TABLE chunks (
    id INTEGER PRIMARY KEY AUTOINCREMENT, chunk_id TEXT NOT NULL, document INTEGER NOT NULL, content TEXT NOT NULL,
    first INTEGER NOT NULL, last INTEGER NOT NULL, heading TEXT NOT NULL,
    source TEXT NOT NULL, titles TEXT NOT NULL, text TEXT NOT NULL);
CREATE INDEX chunks_by_document ON chunks (document, first);
CREATE INDEX chunks_by_content ON chunks (content, document);
CREATE VIRTUAL TABLE words USING fts5(
    source, titles, text, content = 'chunks', content_rowid = 'id', tokenize = "{TOKENIZER}");
CREATE VIRTUAL TABLE vocabulary USING fts5vocab(words, row);
CREATE TABLE vectors (
    id INTEGER PRIMARY KEY, content TEXT NOT NULL, embedder TEXT NOT NULL, vector BLOB NOT NULL,
    UNIQUE (content, embedder));
CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
INSERT INTO counters VALUES ('changes', 0);
"""
_AT_ONCE = 500  # values in one statement; SQLite allows some thousand


class SqliteShelf(Shelf):
    """Args:
    path: of the file; it is made where there is none.
    exact_below: up to how many vectors are kept in memory as float32; above, as one byte a number.
    """

    begin_reading = "BEGIN"
    # At once, not at the first write: a read that becomes a write cannot wait for its turn.
    begin_writing = "BEGIN IMMEDIATE"
    errors = (sqlite3.Error,)
    hint = "Check the disk, or delete it and build anew."

    def __init__(self, path: Path | str, exact_below: int = 4096) -> None:
        super().__init__(str(path))
        self._path = Path(path)
        self._memory = _Memory(exact_below)
        with storage_errors(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._closing(), self._connection() as connection:
            connection.execute(self.begin_writing)
            try:
                self._make_tables(connection)
                connection.execute("COMMIT")
            finally:
                self._roll_back(connection)

    def _make_tables(self, connection: sqlite3.Connection) -> None:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            raise VersionError(
                f"{self.where} was written by a newer Puna (schema {version}; this one knows {SCHEMA_VERSION}).",
                hint="Update Puna, or name another file.",
            )
        if version == 0:
            for statement in _SCHEMA.split(";\n"):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")  # what is acknowledged survives a loss of power too
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def _usable(self, connection: sqlite3.Connection) -> bool:
        return True

    def _roll_back(self, connection: sqlite3.Connection) -> None:
        if connection.in_transaction:
            connection.execute("ROLLBACK")

    def _hand(self, connection: sqlite3.Connection) -> SqliteHand:
        return SqliteHand(connection, self._memory)

    def check(self) -> None:
        with self._connection() as connection:
            faults = [row[0] for row in connection.execute("PRAGMA integrity_check")]
            if faults != ["ok"]:
                raise sqlite3.DatabaseError("; ".join(faults))
            connection.execute("INSERT INTO words (words, rank) VALUES ('integrity-check', 1)")


class SqliteHand:
    """Reads and writes over one connection; the methods of `shelf.Writing` are explained there."""

    def __init__(self, connection: sqlite3.Connection, memory: _Memory) -> None:
        self.connection = connection
        self._execute = connection.execute
        self._memory = memory

    # Writing ----------------------------------------------------------------------------------------------------------

    def insert(
        self,
        document: Document,
        attributes: Mapping[str, Any] | None,
        hash: str,
        rows: Sequence[Row],
    ) -> None:
        added = self._execute(
            "INSERT INTO documents (id, hash, source, language, scores, attributes, meta, text) "
            "VALUES (?,?,?,?,?,?,?,?)",
            (document.id, hash, document.source, document.language, dump(document.scores), dump(attributes),
             dump(document.meta), document.text),
        )  # fmt: skip
        number = added.lastrowid
        self.connection.executemany(
            "INSERT INTO chunks (chunk_id, document, content, first, last, heading, source, titles, text) "
            "VALUES (?,?,?,?,?,?,?,?,?)",
            [
                (r.chunk_id, number, r.content, r.first, r.last, r.heading, document.source, r.titles, r.text)
                for r in rows
            ],
        )
        self._execute(
            "INSERT INTO words (rowid, source, titles, text) "
            "SELECT id, source, titles, text FROM chunks WHERE document = ? ORDER BY id",
            (number,),
        )
        self._touch()

    def remove(self, document_id: str) -> bool:
        row = self._execute("SELECT number FROM documents WHERE id = ?", (document_id,)).fetchone()
        if row is None:
            return False
        number = row[0]
        # FTS5 keeps no text of its own here: it is told what to forget.
        self._execute(
            "INSERT INTO words (words, rowid, source, titles, text) "
            "SELECT 'delete', id, source, titles, text FROM chunks WHERE document = ? ORDER BY id",
            (number,),
        )
        contents = [
            row[0] for row in self._execute("SELECT DISTINCT content FROM chunks WHERE document = ?", (number,))
        ]
        self._execute("DELETE FROM chunks WHERE document = ?", (number,))
        self.connection.executemany(
            "DELETE FROM vectors WHERE content = ?1 AND NOT EXISTS (SELECT 1 FROM chunks WHERE content = ?1)",
            [(content,) for content in contents],
        )
        self._execute("DELETE FROM documents WHERE number = ?", (number,))
        self._touch()
        return True

    def describe(self, document: Document, attributes: Mapping[str, Any] | None) -> None:
        self._execute(
            "UPDATE documents SET attributes = ?, language = ?, scores = ? WHERE id = ?",
            (dump(attributes), document.language, dump(document.scores), document.id),
        )

    def set_attributes(self, document_id: str, attributes: Mapping[str, Any]) -> bool:
        query = "UPDATE documents SET attributes = ? WHERE id = ?"
        return self._execute(query, (dump(attributes), document_id)).rowcount > 0

    def insert_vectors(self, embedder: str, vectors: Mapping[str, bytes]) -> int:
        added = self.connection.executemany(
            "INSERT OR IGNORE INTO vectors (content, embedder, vector) SELECT ?1, ?2, ?3 "
            "WHERE EXISTS (SELECT 1 FROM chunks WHERE content = ?1)",
            [(content, embedder, vector) for content, vector in vectors.items()],
        )
        self._touch()
        return max(added.rowcount, 0)

    def _touch(self) -> None:
        self._execute("UPDATE counters SET value = value + 1 WHERE name = 'changes'")

    # Reading ----------------------------------------------------------------------------------------------------------

    def changes(self) -> int:
        """Rises with every transaction that changed what a search can find."""
        return int(self._execute("SELECT value FROM counters WHERE name = 'changes'").fetchone()[0])

    def document(self, document_id: str) -> Document | None:
        columns = "text, id, source, language, scores, meta"
        row = self._execute(f"SELECT {columns} FROM documents WHERE id = ?", (document_id,)).fetchone()
        return Document(*row[:4], scores=load(row[4]), meta=load(row[5])) if row else None

    def hash(self, document_id: str) -> str | None:
        row = self._execute("SELECT hash FROM documents WHERE id = ?", (document_id,)).fetchone()
        return row[0] if row else None

    def attributes(self, document_id: str) -> dict[str, Any] | None:
        row = self._execute("SELECT attributes FROM documents WHERE id = ?", (document_id,)).fetchone()
        return load(row[0]) if row else None

    def documents(self) -> list[str]:
        return [row[0] for row in self._execute("SELECT id FROM documents ORDER BY id")]

    def chunks_of(self, document_id: str) -> list[int]:
        query = "SELECT chunks.id FROM chunks JOIN documents ON documents.number = document WHERE documents.id = ?"
        return [row[0] for row in self._execute(f"{query} ORDER BY first", (document_id,))]

    def chunks(self) -> int:
        return int(self._execute("SELECT count(*) FROM chunks").fetchone()[0])

    def known_vectors(self, embedder: str, contents: Sequence[str]) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        for start in range(0, len(contents), _AT_ONCE):
            some = contents[start : start + _AT_ONCE]
            found.update(
                self._execute(
                    f"SELECT content, vector FROM vectors WHERE embedder = ? AND content IN ({_marks(some)})",
                    (embedder, *some),
                )
            )
        return found

    def without_vector(self, embedder: str, limit: int) -> list[tuple[str, str, str, str]]:
        return self._execute(
            "SELECT content, source, titles, text FROM chunks WHERE NOT EXISTS "
            "(SELECT 1 FROM vectors WHERE vectors.content = chunks.content AND embedder = ?) LIMIT ?",
            (embedder, limit),
        ).fetchall()

    def vector_rows(self, embedder: str) -> tuple[Ids, Ids]:
        """(chunk ids, numbers of their documents) of all chunks that have a vector, by id."""
        rows = self._execute(
            "SELECT chunks.id, chunks.document FROM chunks JOIN vectors ON vectors.content = chunks.content "
            "AND vectors.embedder = ? ORDER BY chunks.id",
            (embedder,),
        ).fetchall()
        table = np.array(rows, np.int64).reshape(len(rows), 2)
        return table[:, 0], table[:, 1]

    def vectors(self, embedder: str, dimensions: int, ids: Ids) -> Floats:
        found: dict[int, bytes] = {}
        for start in range(0, len(ids), _AT_ONCE):
            some = ids[start : start + _AT_ONCE].tolist()
            found.update(
                self._execute(
                    "SELECT chunks.id, vectors.vector FROM chunks JOIN vectors ON vectors.content = chunks.content "
                    f"AND vectors.embedder = ? WHERE chunks.id IN ({_marks(some)})",
                    (embedder, *some),
                )
            )
        data = b"".join(found[id] for id in ids.tolist())
        return np.frombuffer(data, "<f4").reshape(len(ids), dimensions)

    def dimensions(self, embedder: str) -> int:
        row = self._execute("SELECT length(vector) FROM vectors WHERE embedder = ? LIMIT 1", (embedder,)).fetchone()
        return int(row[0]) // 4 if row else 0

    def allowed(self, passes: Callable[[Mapping[str, Any]], bool]) -> Ids:
        rows = self._execute("SELECT number, attributes FROM documents")
        return np.array([number for number, attributes in rows if passes(json.loads(attributes))], np.int64)

    def by_words(self, words: Sequence[str], limit: int, allowed: Ids | None, among: Sequence[str] = ()) -> Scored:
        where = ""
        values: list[Any] = [*WEIGHTS, any_of(words)]
        if among:
            where += "AND +rowid IN (SELECT rowid FROM words WHERE words MATCH ?) "
            values.append(any_of(among))
        if allowed is not None:
            where += "AND +rowid IN (SELECT id FROM chunks WHERE document IN (SELECT value FROM json_each(?)))"
            values.append(json.dumps(allowed.tolist()))
        asked = limit + 1
        while True:
            rows = self._execute(
                f"SELECT rowid, -bm25(words, ?, ?, ?) AS score FROM words WHERE words MATCH ? {where} "
                "ORDER BY score DESC LIMIT ?",
                (*values, asked),
            ).fetchall()
            if len(rows) < asked or rows[limit - 1][1] > rows[-1][1]:
                break
            asked *= 4
        last = rows[limit - 1][1] if len(rows) >= limit else -1.0
        return [(id, score) for id, score in rows if score >= last]

    def by_vector(self, embedder: str, query: Floats, limit: int, allowed: Ids | None) -> Scored:
        nearest = self._memory.current(self, embedder, len(query))
        return nearest.search(query, limit, allowed, lambda ids: self.vectors(embedder, len(query), ids))

    def count_of(self, word: str) -> int:
        row = self._execute("SELECT doc FROM vocabulary WHERE term = ?", (folded(word),)).fetchone()
        if row is None:  # the index keeps it in another form
            row = self._execute("SELECT count(*) FROM words WHERE words MATCH ?", (any_of([word]),)).fetchone()
        return int(row[0])

    def chunk_rows(self, ids: Sequence[int]) -> dict[int, tuple[Any, ...]]:
        found: dict[int, tuple[Any, ...]] = {}
        for start in range(0, len(ids), _AT_ONCE):
            some = ids[start : start + _AT_ONCE]
            rows = self._execute(
                "SELECT chunks.id, chunk_id, documents.id, chunks.source, chunks.text, first, last, heading, "
                "attributes, content FROM chunks JOIN documents ON documents.number = chunks.document "
                f"WHERE chunks.id IN ({_marks(some)})",
                list(some),
            )
            found.update((row[0], row[1:]) for row in rows)
        return found


class _Memory:
    """The vectors of one embedder in memory, as they were at some count of changes."""

    def __init__(self, exact_below: int) -> None:
        self._exact_below = exact_below
        self._lock = threading.Lock()
        self._seen: tuple[str, int, Nearest] | None = None

    def current(self, hand: SqliteHand, embedder: str, dimensions: int) -> Nearest:
        """The vectors as a connection sees the library; only what has changed is read."""
        count = hand.changes()
        seen = self._seen if self._seen and self._seen[0] == embedder else None
        if seen and seen[1] == count:
            return seen[2]
        ids, documents = hand.vector_rows(embedder)
        there = hand.dimensions(embedder)
        if there and there != dimensions:
            raise ConfigError(
                f"The embedder gives vectors of length {dimensions}, and those in the library have {there}.",
                hint="Name the new embedder in LibraryConfig.embedder, and call refresh().",
            )
        base = seen[2] if seen else Nearest.empty(dimensions, self._exact_below)
        keep, fresh = np.isin(base.ids, ids), ~np.isin(ids, base.ids)
        if keep.any() and fresh.any() and base.ids[keep][-1] > ids[fresh][0]:  # vectors that were made later
            base = Nearest.empty(dimensions, self._exact_below)
            keep, fresh = np.zeros(0, bool), np.ones(len(ids), bool)
        made = base.changed(keep, ids[fresh], documents[fresh], lambda some: hand.vectors(embedder, dimensions, some))
        with self._lock:
            if self._seen is None or self._seen[0] != embedder or self._seen[1] < count:
                self._seen = (embedder, count, made)
        return made


def _marks(values: Sequence[Any]) -> str:
    return ",".join("?" * len(values))
