"""How a library lies on the disk: one SQLite file in WAL mode with documents, chunks, their words and their vectors.

A document is written in one transaction with everything that belongs to it, so that a process killed at any moment
leaves it whole, as it was before, or absent. Connections are kept in a small pool: any thread may search, readers do
not wait, and writers of several processes take turns.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from puna.base.errors import StorageError, VersionError, storage_errors
from puna.core.document import Document
from puna.knowledge.nearest import Floats, Ids
from puna.knowledge.words import TOKENIZER

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
Connection = sqlite3.Connection
_AT_ONCE = 500  # values in one statement; SQLite allows some thousand


@dataclass(frozen=True, slots=True)
class Row:
    """A chunk to be written.

    Attributes:
        chunk_id: its name for the world.
        content: hash of what is embedded of it: equal contents share a vector.
        first: first character in the document.
        last: one past the last.
        heading: where it stands.
        titles: its heading and the titles inside it, for the search by words.
        text: of the document, from first to last.
    """

    chunk_id: str
    content: str
    first: int
    last: int
    heading: str
    titles: str
    text: str


class Shelf:
    """Args:
    path: of the file; it is made where there is none.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._free: list[sqlite3.Connection] = []
        self._lock = threading.Lock()
        self._closed = False
        with storage_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.writing() as connection:
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version > SCHEMA_VERSION:
                raise VersionError(
                    f"{path} was written by a newer Puna (schema {version}; this one knows {SCHEMA_VERSION}).",
                    hint="Update Puna, or name another file.",
                )
            if version == 0:
                for statement in _SCHEMA.split(";\n"):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection that sees the library as it is at its first query, whoever writes meanwhile."""
        with self._connection() as connection:
            connection.execute("BEGIN")
            try:
                yield connection
            finally:
                connection.execute("ROLLBACK")

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A connection whose changes are kept together when the block ends, or not at all."""
        with self._connection() as connection:
            # At once, not at the first write: a read that becomes a write cannot wait for its turn.
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        try:
            with self._lock:
                if self._closed:
                    raise StorageError(f"The library {self.path} is closed.")
                connection = self._free.pop() if self._free else None
            connection = connection or self._open()
            try:
                yield connection
            finally:
                with self._lock:
                    keep = not self._closed and len(self._free) < _IDLE
                    if keep:
                        self._free.append(connection)
                if not keep:
                    connection.close()
        except sqlite3.Error as error:
            raise StorageError(
                f"The library {self.path} cannot be used: {error}.", hint="Check the disk, or delete it and build anew."
            ) from error

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")  # what is acknowledged survives a loss of power too
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def check(self) -> None:
        """Reads the whole file through, and compares the words with the chunks."""
        with self._connection() as connection:
            faults = [row[0] for row in connection.execute("PRAGMA integrity_check")]
            if faults != ["ok"]:
                raise sqlite3.DatabaseError("; ".join(faults))
            connection.execute("INSERT INTO words (words, rank) VALUES ('integrity-check', 1)")

    def close(self) -> None:
        """Closes what waits; a connection at work is closed when its work ends."""
        with self._lock:
            self._closed = True
            for connection in self._free:
                connection.close()
            self._free.clear()


# Writing --------------------------------------------------------------------------------------------------------------


def insert(
    connection: sqlite3.Connection,
    document: Document,
    attributes: Mapping[str, Any] | None,
    hash: str,
    rows: Sequence[Row],
) -> None:
    """Adds a document that is not there."""
    added = connection.execute(
        "INSERT INTO documents (id, hash, source, language, scores, attributes, meta, text) VALUES (?,?,?,?,?,?,?,?)",
        (document.id, hash, document.source, document.language, dump(document.scores), dump(attributes),
         dump(document.meta), document.text),
    )  # fmt: skip
    number = added.lastrowid
    connection.executemany(
        "INSERT INTO chunks (chunk_id, document, content, first, last, heading, source, titles, text) "
        "VALUES (?,?,?,?,?,?,?,?,?)",
        [(r.chunk_id, number, r.content, r.first, r.last, r.heading, document.source, r.titles, r.text) for r in rows],
    )
    connection.execute(
        "INSERT INTO words (rowid, source, titles, text) "
        "SELECT id, source, titles, text FROM chunks WHERE document = ? ORDER BY id",
        (number,),
    )
    touch(connection)


def remove(connection: sqlite3.Connection, document_id: str) -> bool:
    """Takes a document away, and the vectors that no other chunk shares; returns whether it was there."""
    row = connection.execute("SELECT number FROM documents WHERE id = ?", (document_id,)).fetchone()
    if row is None:
        return False
    number = row[0]
    # FTS5 keeps no text of its own here: it is told what to forget.
    connection.execute(
        "INSERT INTO words (words, rowid, source, titles, text) "
        "SELECT 'delete', id, source, titles, text FROM chunks WHERE document = ? ORDER BY id",
        (number,),
    )
    contents = [
        row[0] for row in connection.execute("SELECT DISTINCT content FROM chunks WHERE document = ?", (number,))
    ]
    connection.execute("DELETE FROM chunks WHERE document = ?", (number,))
    connection.executemany(
        "DELETE FROM vectors WHERE content = ?1 AND NOT EXISTS (SELECT 1 FROM chunks WHERE content = ?1)",
        [(content,) for content in contents],
    )
    connection.execute("DELETE FROM documents WHERE number = ?", (number,))
    touch(connection)
    return True


def insert_vectors(connection: sqlite3.Connection, embedder: str, vectors: Mapping[str, bytes]) -> int:
    """Adds vectors by content, those that are there or that no chunk has left out; returns how many were added."""
    added = connection.executemany(
        "INSERT OR IGNORE INTO vectors (content, embedder, vector) SELECT ?1, ?2, ?3 "
        "WHERE EXISTS (SELECT 1 FROM chunks WHERE content = ?1)",
        [(content, embedder, vector) for content, vector in vectors.items()],
    )
    touch(connection)
    return max(added.rowcount, 0)


def touch(connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE counters SET value = value + 1 WHERE name = 'changes'")


# Reading --------------------------------------------------------------------------------------------------------------


def changes(connection: sqlite3.Connection) -> int:
    """Rises with every transaction that changed what a search can find."""
    return int(connection.execute("SELECT value FROM counters WHERE name = 'changes'").fetchone()[0])


def known_vectors(connection: sqlite3.Connection, embedder: str, contents: Sequence[str]) -> dict[str, bytes]:
    """The vectors that are there, by content."""
    found: dict[str, bytes] = {}
    for start in range(0, len(contents), _AT_ONCE):
        some = contents[start : start + _AT_ONCE]
        found.update(
            connection.execute(
                f"SELECT content, vector FROM vectors WHERE embedder = ? AND content IN ({_marks(some)})",
                (embedder, *some),
            )
        )
    return found


def without_vector(connection: sqlite3.Connection, embedder: str, limit: int) -> list[tuple[str, str, str, str]]:
    """(content, source, titles, text) of chunks that the embedder has not seen."""
    return connection.execute(
        "SELECT content, source, titles, text FROM chunks WHERE NOT EXISTS "
        "(SELECT 1 FROM vectors WHERE vectors.content = chunks.content AND embedder = ?) LIMIT ?",
        (embedder, limit),
    ).fetchall()


def vector_rows(connection: sqlite3.Connection, embedder: str) -> tuple[Ids, Ids]:
    """(chunk ids, numbers of their documents) of all chunks that have a vector, by id."""
    rows = connection.execute(
        "SELECT chunks.id, chunks.document FROM chunks JOIN vectors ON vectors.content = chunks.content "
        "AND vectors.embedder = ? ORDER BY chunks.id",
        (embedder,),
    ).fetchall()
    table = np.array(rows, np.int64).reshape(len(rows), 2)
    return table[:, 0], table[:, 1]


def fetch_vectors(connection: sqlite3.Connection, embedder: str, dimensions: int, ids: Ids) -> Floats:
    """The vectors of chunks, in the order of `ids`."""
    found: dict[int, bytes] = {}
    for start in range(0, len(ids), _AT_ONCE):
        some = ids[start : start + _AT_ONCE].tolist()
        found.update(
            connection.execute(
                "SELECT chunks.id, vectors.vector FROM chunks JOIN vectors ON vectors.content = chunks.content "
                f"AND vectors.embedder = ? WHERE chunks.id IN ({_marks(some)})",
                (embedder, *some),
            )
        )
    data = b"".join(found[id] for id in ids.tolist())
    return np.frombuffer(data, "<f4").reshape(len(ids), dimensions)


def dimensions(connection: sqlite3.Connection, embedder: str) -> int:
    """The length of the embedder's vectors; 0 where there are none."""
    row = connection.execute("SELECT length(vector) FROM vectors WHERE embedder = ? LIMIT 1", (embedder,)).fetchone()
    return int(row[0]) // 4 if row else 0


def allowed(connection: sqlite3.Connection, passes: Callable[[Mapping[str, Any]], bool]) -> Ids:
    """Numbers of the documents whose attributes pass."""
    rows = connection.execute("SELECT number, attributes FROM documents")
    return np.array([number for number, attributes in rows if passes(json.loads(attributes))], np.int64)


def by_words(
    connection: sqlite3.Connection,
    query: str,
    weights: Sequence[float],
    limit: int,
    allowed: Ids | None,
    among: str = "",
) -> list[tuple[int, float]]:
    """(chunk id, BM25) of the best for an FTS5 query; equals at the end of the list are all given.

    With `among`, another query, only chunks that fit that one too are scored.
    """
    where = ""
    values: list[Any] = [*weights, query]
    if among:
        where += "AND +rowid IN (SELECT rowid FROM words WHERE words MATCH ?) "
        values.append(among)
    if allowed is not None:
        where += "AND +rowid IN (SELECT id FROM chunks WHERE document IN (SELECT value FROM json_each(?)))"
        values.append(json.dumps(allowed.tolist()))
    asked = limit + 1
    while True:
        rows = connection.execute(
            f"SELECT rowid, -bm25(words, ?, ?, ?) AS score FROM words WHERE words MATCH ? {where} "
            "ORDER BY score DESC LIMIT ?",
            (*values, asked),
        ).fetchall()
        if len(rows) < asked or rows[limit - 1][1] > rows[-1][1]:
            break
        asked *= 4
    last = rows[limit - 1][1] if len(rows) >= limit else -1.0
    return [(id, score) for id, score in rows if score >= last]


def count_of(connection: sqlite3.Connection, word: str, kept_as: str) -> int:
    """How many chunks hold a word, which the index keeps in another form."""
    row = connection.execute("SELECT doc FROM vocabulary WHERE term = ?", (kept_as,)).fetchone()
    if row is None:
        row = connection.execute("SELECT count(*) FROM words WHERE words MATCH ?", (f'"{word}"',)).fetchone()
    return int(row[0])


def chunk_rows(connection: sqlite3.Connection, ids: Sequence[int]) -> dict[int, tuple[Any, ...]]:
    """(chunk_id, document id, source, text, first, last, heading, attributes, content) by chunk id."""
    found: dict[int, tuple[Any, ...]] = {}
    for start in range(0, len(ids), _AT_ONCE):
        some = ids[start : start + _AT_ONCE]
        rows = connection.execute(
            "SELECT chunks.id, chunk_id, documents.id, chunks.source, chunks.text, first, last, heading, attributes, "
            "content FROM chunks JOIN documents ON documents.number = chunks.document "
            f"WHERE chunks.id IN ({_marks(some)})",
            list(some),
        )
        found.update((row[0], row[1:]) for row in rows)
    return found


def _marks(values: Sequence[Any]) -> str:
    return ",".join("?" * len(values))


def dump(data: Mapping[str, Any] | None) -> str:
    return json.dumps(dict(data or {}), separators=(",", ":"))


def load(text: str) -> dict[str, Any]:
    return json.loads(text)
