"""A library in PostgreSQL with pgvector: a schema of its own, for several servers over one database.

pgvector compares the vectors, all of them; what it proposes is scored again from the exact numbers, so that scores are
those of the other store. Words are kept in arrays with a GIN index, which finds the chunks, and BM25 is computed as
SQLite's FTS5 does it, for PostgreSQL's own ranking knows no rarity. Texts are bytes, since PostgreSQL's text holds no
NUL. Writers take turns by an advisory lock, as they do in SQLite.

Left out: pgvector's approximate indexes. They want one length for all vectors of a column and miss some of the nearest,
most of all under filters; a pass over 100,000 vectors is quick enough (`benchmarks/results/retrieval.md`).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from puna.base.config import require
from puna.base.errors import ConfigError, StorageError, VersionError
from puna.base.postgres import connect, driver
from puna.core.document import Document
from puna.knowledge.nearest import Floats, Ids, best
from puna.knowledge.shelf import Row, Scored, Shelf, dump, load
from puna.knowledge.words import K1, LEAST_IDF, WEIGHTS, B, folded, tokens

SCHEMA_VERSION = 1
_LOCK = 0x6B6E6F77  # the number of the advisory lock; the schema's own number stands beside it
_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_SPARE = 50  # chunks that pgvector proposes beyond those that are asked for: its sums are of float32
# Vectors of up to 2,000 numbers stand in the table's own pages, and none is compressed: unpacking took ten times as
# long as comparing.
_SCHEMA = """
CREATE TABLE documents (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, id bytea NOT NULL UNIQUE, hash text NOT NULL,
    source bytea NOT NULL, language bytea NOT NULL, scores text NOT NULL, attributes text NOT NULL, meta text NOT NULL,
    text bytea NOT NULL);
CREATE TABLE chunks (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, chunk_id text NOT NULL,
    document bigint NOT NULL REFERENCES documents, content text NOT NULL, first integer NOT NULL, last integer NOT NULL,
    heading bytea NOT NULL, source bytea NOT NULL, titles bytea NOT NULL, text bytea NOT NULL,
    words text[] NOT NULL, weights real[] NOT NULL, size integer NOT NULL);
CREATE INDEX chunks_by_document ON chunks (document, first);
CREATE INDEX chunks_by_content ON chunks (content);
CREATE INDEX chunks_by_word ON chunks USING gin (words);
CREATE TABLE vocabulary (word text COLLATE "C" PRIMARY KEY, chunks bigint NOT NULL);
CREATE TABLE vectors (
    content text NOT NULL, embedder text NOT NULL, vector vector NOT NULL, PRIMARY KEY (embedder, content))
    WITH (toast_tuple_target = 8160);
ALTER TABLE vectors ALTER COLUMN vector SET STORAGE EXTERNAL;
CREATE TABLE counters (name text PRIMARY KEY, value bigint NOT NULL);
INSERT INTO counters VALUES ('chunks', 0), ('size', 0), ('version', 1)
"""


class PostgresShelf(Shelf):
    """Args:
    url: "postgresql://user:password@host:port/database"; the password is never shown.
    name: of the library: small letters, digits and underscores. It is the name of its schema, which is made.

    Raises:
        ConfigError: the URL or the name is none, or the database has no pgvector.
        MissingExtraError: psycopg is not installed.
    """

    begin_reading = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
    hint = "Check that the database is up, and that it may be reached from here."

    def __init__(self, url: str, name: str) -> None:
        psycopg = driver("Keeping documents in PostgreSQL")
        require(
            bool(_NAME.fullmatch(name)),
            f"A library is called {name!r}; its name has up to 63 small letters, digits and underscores.",
        )
        self._psycopg, self.url, self.name = psycopg, url, name
        self.errors = (psycopg.Error,)
        # Both the lock and the transaction in one call, so that nobody writes without the lock.
        self.begin_writing = f"BEGIN; SELECT pg_advisory_xact_lock({_LOCK}, hashtext('{name}'))"
        super().__init__(f"{name!r} in PostgreSQL")
        self._search_path = name
        with self._closing(), self._connection() as connection, self._transaction(connection, self.begin_writing):
            self._prepare(connection)

    def _open(self) -> Any:
        connection = connect(self._psycopg, self.url)
        connection.execute(f"SET search_path = {self._search_path}")
        return connection

    def _usable(self, connection: Any) -> bool:
        if connection.closed or connection.broken:
            return False
        status = self._psycopg.pq.TransactionStatus
        return connection.info.transaction_status in (status.IDLE, status.INTRANS, status.INERROR)

    def _hand(self, connection: Any) -> PostgresHand:
        return PostgresHand(connection)

    def _prepare(self, connection: Any) -> None:
        self._search_path = f"{self.name}, {self._extension(connection)}"
        connection.execute(f"CREATE SCHEMA IF NOT EXISTS {self.name}")
        connection.execute(f"SET search_path = {self._search_path}")
        there = connection.execute("SELECT to_regclass(%s)", (f"{self.name}.counters",)).fetchone()[0]
        if there is None:
            for statement in _SCHEMA.split(";\n"):
                connection.execute(statement)
        (version,) = connection.execute("SELECT value FROM counters WHERE name = 'version'").fetchone()
        if version > SCHEMA_VERSION:
            raise VersionError(
                f"The library {self.where} was written by a newer Puna (schema {version}; this one knows "
                f"{SCHEMA_VERSION}).",
                hint="Update Puna, or name another library.",
            )

    def _extension(self, connection: Any) -> str:
        """The schema that pgvector's types are in, quoted; the extension is made where it is not."""
        query = (
            "SELECT quote_ident(nspname) FROM pg_extension JOIN pg_namespace n ON n.oid = extnamespace "
            "WHERE extname = 'vector'"
        )
        found = connection.execute(query).fetchone()
        if found is None:
            try:
                connection.execute("CREATE EXTENSION vector SCHEMA public")
            except (self._psycopg.errors.UndefinedFile, self._psycopg.errors.FeatureNotSupported) as error:
                raise ConfigError(
                    "This PostgreSQL has no pgvector.",
                    hint="Install it on the database's machine (in Debian the package postgresql-N-pgvector).",
                ) from error
            except self._psycopg.errors.InsufficientPrivilege as error:
                raise ConfigError(
                    "The user of the database may not add pgvector to it.",
                    hint="Let an administrator run CREATE EXTENSION vector in it.",
                ) from error
            found = connection.execute(query).fetchone()
        return str(found[0])

    def check(self) -> None:
        with self.reading() as seen:
            faults = seen.faults()  # type: ignore[attr-defined]
        if faults:
            raise StorageError(f"The library {self.where} is damaged: {'; '.join(faults)}.", hint="Build it anew.")

    def drop(self) -> None:
        """Deletes the library with all that is in it, and closes it."""
        with self._connection() as connection:
            connection.execute(f"DROP SCHEMA IF EXISTS {self.name} CASCADE")
        self.close()


class PostgresHand:
    """Reads and writes over one connection; the methods of `shelf.Writing` are explained there."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection

    def _one(self, query: str, *values: Any) -> tuple[Any, ...] | None:
        return self.connection.execute(query, values).fetchone()

    def _all(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        return self.connection.execute(query, values).fetchall()

    # Writing ----------------------------------------------------------------------------------------------------------

    def insert(self, document: Document, attributes: Mapping[str, Any] | None, hash: str, rows: Sequence[Row]) -> None:
        added = self._one(
            "INSERT INTO documents (id, hash, source, language, scores, attributes, meta, text) "
            "VALUES (%s, %s, %s, %s, %s, %s, %s, %s) RETURNING number",
            document.id.encode(), hash, document.source.encode(), document.language.encode(), dump(document.scores),
            dump(attributes), dump(document.meta), document.text.encode(),
        )  # fmt: skip
        assert added is not None
        counted = [_counted(document.source, row.titles, row.text) for row in rows]
        with self.connection.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO chunks (chunk_id, document, content, first, last, heading, source, titles, text, words, "
                "weights, size) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
                [
                    (r.chunk_id, added[0], r.content, r.first, r.last, r.heading.encode(), document.source.encode(),
                     r.titles.encode(), r.text.encode(), list(weights), list(weights.values()), size)
                    for r, (weights, size) in zip(rows, counted, strict=True)
                ],
            )  # fmt: skip
        self._count(Counter(word for weights, _ in counted for word in weights), len(rows), sum(s for _, s in counted))

    def describe(self, document: Document, attributes: Mapping[str, Any] | None) -> None:
        self.connection.execute(
            "UPDATE documents SET attributes = %s, language = %s, scores = %s WHERE id = %s",
            (dump(attributes), document.language.encode(), dump(document.scores), document.id.encode()),
        )

    def set_attributes(self, document_id: str, attributes: Mapping[str, Any]) -> bool:
        query = "UPDATE documents SET attributes = %s WHERE id = %s"
        return self.connection.execute(query, (dump(attributes), document_id.encode())).rowcount > 0

    def remove(self, document_id: str) -> bool:
        row = self._one("SELECT number FROM documents WHERE id = %s", document_id.encode())
        if row is None:
            return False
        gone = self._all("DELETE FROM chunks WHERE document = %s RETURNING content, words, size", row[0])
        self.connection.execute(
            "DELETE FROM vectors WHERE content = ANY(%s) "
            "AND NOT EXISTS (SELECT 1 FROM chunks WHERE chunks.content = vectors.content)",
            ([content for content, _, _ in gone],),
        )
        self.connection.execute("DELETE FROM documents WHERE number = %s", (row[0],))
        fewer = Counter({word: -n for word, n in Counter(word for _, some, _ in gone for word in some).items()})
        self._count(fewer, -len(gone), -sum(size for _, _, size in gone))
        return True

    def _count(self, words: Mapping[str, int], chunks: int, size: int) -> None:
        """Adds to the counts that BM25 needs; what comes to none is taken away."""
        self.connection.execute(
            "INSERT INTO vocabulary SELECT * FROM unnest(%s::text[], %s::bigint[]) "
            "ON CONFLICT (word) DO UPDATE SET chunks = vocabulary.chunks + excluded.chunks",
            (list(words), list(words.values())),
        )
        if chunks < 0:
            self.connection.execute("DELETE FROM vocabulary WHERE chunks = 0 AND word = ANY(%s)", (list(words),))
        query = "UPDATE counters SET value = value + CASE name WHEN 'chunks' THEN %s WHEN 'size' THEN %s ELSE 0 END"
        self.connection.execute(query, (chunks, size))

    def insert_vectors(self, embedder: str, vectors: Mapping[str, bytes]) -> int:
        with self.connection.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO vectors (content, embedder, vector) SELECT c.content, %s, %s::vector "
                "FROM (SELECT %s::text AS content) c WHERE EXISTS (SELECT 1 FROM chunks WHERE content = c.content) "
                "ON CONFLICT DO NOTHING",
                [(embedder, _literal(np.frombuffer(data, "<f4")), content) for content, data in vectors.items()],
            )
            return max(cursor.rowcount, 0) if vectors else 0

    # Reading ----------------------------------------------------------------------------------------------------------

    def document(self, document_id: str) -> Document | None:
        columns = "text, id, source, language, scores, meta"
        row = self._one(f"SELECT {columns} FROM documents WHERE id = %s", document_id.encode())
        if row is None:
            return None
        return Document(*(part.decode() for part in row[:4]), scores=load(row[4]), meta=load(row[5]))

    def hash(self, document_id: str) -> str | None:
        row = self._one("SELECT hash FROM documents WHERE id = %s", document_id.encode())
        return row[0] if row else None

    def attributes(self, document_id: str) -> dict[str, Any] | None:
        row = self._one("SELECT attributes FROM documents WHERE id = %s", document_id.encode())
        return load(row[0]) if row else None

    def documents(self) -> list[str]:
        return [row[0].decode() for row in self._all("SELECT id FROM documents ORDER BY id")]

    def chunks_of(self, document_id: str) -> list[int]:
        query = (
            "SELECT chunks.id FROM chunks JOIN documents ON number = document WHERE documents.id = %s ORDER BY first"
        )
        return [row[0] for row in self._all(query, document_id.encode())]

    def chunks(self) -> int:
        return self._counter("chunks")

    def _counter(self, name: str) -> int:
        row = self._one("SELECT value FROM counters WHERE name = %s", name)
        assert row is not None
        return int(row[0])

    def chunk_rows(self, ids: Sequence[int]) -> dict[int, tuple[Any, ...]]:
        rows = self._all(
            "SELECT chunks.id, chunk_id, documents.id, chunks.source, chunks.text, first, last, heading, attributes, "
            "content FROM chunks JOIN documents ON number = document WHERE chunks.id = ANY(%s)",
            list(ids),
        )
        return {
            id: (name, document.decode(), source.decode(), text.decode(), first, last, heading.decode(), *rest)
            for id, name, document, source, text, first, last, heading, *rest in rows
        }

    def allowed(self, passes: Callable[[Mapping[str, Any]], bool]) -> Ids:
        rows = self._all("SELECT number, attributes FROM documents ORDER BY number")
        return np.array([number for number, attributes in rows if passes(load(attributes))], np.int64)

    def count_of(self, word: str) -> int:
        row = self._one("SELECT chunks FROM vocabulary WHERE word = %s", folded(word))
        return int(row[0]) if row else 0

    def by_words(self, words: Sequence[str], limit: int, allowed: Ids | None, among: Sequence[str] = ()) -> Scored:
        chunks = self.chunks()
        asked = list(dict.fromkeys(folded(word) for word in words))
        counts = dict(self._all("SELECT word, chunks FROM vocabulary WHERE word = ANY(%s)", asked))
        if not counts:
            return []
        weights = [
            max(math.log((chunks - counts.get(word, 0) + 0.5) / (counts.get(word, 0) + 0.5)), LEAST_IDF)
            for word in asked
        ]
        typical = self._counter("size") / chunks
        where = "" if allowed is None else "AND document = ANY(%(allowed)s)"
        query = f"""
            SELECT id, (SELECT sum(idf * (f * {K1 + 1}) / (f + {K1} * ({1 - B} + {B} * size / %(typical)s)))
                        FROM (SELECT idf, weights[array_position(words, word)]::float8 AS f
                              FROM unnest(%(asked)s::text[], %(idf)s::float8[]) AS asked (word, idf)) AS found) AS score
            FROM chunks WHERE words && %(among)s::text[] {where} ORDER BY score DESC LIMIT %(limit)s"""
        values = {
            "asked": asked, "idf": weights, "typical": typical, "among": [folded(word) for word in among or words],
            "allowed": None if allowed is None else allowed.tolist(), "limit": limit + 1,
        }  # fmt: skip
        while True:
            rows = self.connection.execute(query, values).fetchall()
            if len(rows) < values["limit"] or rows[limit - 1][1] > rows[-1][1]:
                break
            values["limit"] *= 4
        last = rows[limit - 1][1] if len(rows) >= limit else -1.0
        return [(id, score) for id, score in rows if score >= last]

    def by_vector(self, embedder: str, query: Floats, limit: int, allowed: Ids | None) -> Scored:
        there = self.dimensions(embedder)
        if not there or not query.any() or limit < 1:
            return []
        if there != len(query):
            raise ConfigError(
                f"The embedder gives vectors of length {len(query)}, and those in the library have {there}.",
                hint="Name the new embedder in LibraryConfig.embedder, and call refresh().",
            )
        values = {"embedder": embedder, "query": _literal(query), "limit": limit + _SPARE}
        if allowed is None:
            nearest = (
                "SELECT content FROM vectors WHERE embedder = %(embedder)s "
                "ORDER BY vector <#> %(query)s::vector, content LIMIT %(limit)s"
            )
            rows = self.connection.execute(f"SELECT id FROM chunks WHERE content IN ({nearest})", values).fetchall()
        else:
            rows = self.connection.execute(
                "SELECT id FROM chunks JOIN vectors USING (content) WHERE embedder = %(embedder)s "
                "AND document = ANY(%(allowed)s) ORDER BY vector <#> %(query)s::vector, content LIMIT %(limit)s",
                values | {"allowed": allowed.tolist()},
            ).fetchall()
        ids = np.array(sorted(row[0] for row in rows), np.int64)
        return best(ids, self.vectors(embedder, there, ids), query, limit)

    def known_vectors(self, embedder: str, contents: Sequence[str]) -> dict[str, bytes]:
        query = "SELECT content, vector FROM vectors WHERE embedder = %s AND content = ANY(%s)"
        rows = self.connection.execute(query, (embedder, list(contents)), binary=True)
        return {content: _numbers(data).tobytes() for content, data in rows}

    def vectors(self, embedder: str, dimensions: int, ids: Ids) -> Floats:
        query = "SELECT id, vector FROM chunks JOIN vectors USING (content) WHERE embedder = %s AND chunks.id = ANY(%s)"
        rows = self.connection.execute(query, (embedder, ids.tolist()), binary=True)
        found = {id: _numbers(data) for id, data in rows}
        return np.array([found[id] for id in ids.tolist()], np.float32).reshape(len(ids), dimensions)

    def without_vector(self, embedder: str, limit: int) -> list[tuple[str, str, str, str]]:
        rows = self._all(
            "SELECT content, source, titles, text FROM chunks WHERE NOT EXISTS "
            "(SELECT 1 FROM vectors WHERE vectors.content = chunks.content AND embedder = %s) LIMIT %s",
            embedder, limit,
        )  # fmt: skip
        return [(content, *(part.decode() for part in parts)) for content, *parts in rows]  # type: ignore[misc]

    def dimensions(self, embedder: str) -> int:
        row = self._one("SELECT vector_dims(vector) FROM vectors WHERE embedder = %s LIMIT 1", embedder)
        return int(row[0]) if row else 0

    def faults(self) -> list[str]:
        """What does not fit together."""
        counted = "SELECT word, count(*) FROM chunks, unnest(words) AS word GROUP BY word"
        words = self._all(f"({counted} EXCEPT TABLE vocabulary) UNION ALL (TABLE vocabulary EXCEPT {counted}) LIMIT 3")
        faults = [f"the word {word!r} is counted otherwise than {count} times" for word, count in words]
        row = self._one("SELECT count(*), coalesce(sum(size), 0) FROM chunks")
        if row != (self._counter("chunks"), self._counter("size")):
            faults.append("the number of chunks is not the one that is kept")
        for chunk_id, source, titles, text, kept, size in self._all(
            "SELECT chunk_id, source, titles, text, words, size FROM chunks ORDER BY id"
        ):
            weights, expected = _counted(source.decode(), titles.decode(), text.decode())
            if list(weights) != kept or size != expected:
                faults.append(f"the words of the chunk {chunk_id} are not those of its text")
        return faults


def _counted(source: str, titles: str, text: str) -> tuple[dict[str, float], int]:
    """Each word of a chunk with its weight: how often it stands there, more in titles; and how many words there are."""
    weights: dict[str, float] = {}
    size = 0
    for part, weight in zip((source, titles, text), WEIGHTS, strict=True):
        found = tokens(part)
        size += len(found)
        for word in found:
            weights[word] = weights.get(word, 0.0) + weight
    return weights, size


def _literal(vector: Iterable[float]) -> str:
    """A vector as pgvector reads it; float32 numbers survive."""
    return f"[{','.join(map(repr, np.asarray(vector).tolist()))}]"


def _numbers(data: bytes) -> Floats:
    """A vector as pgvector sends it: two shorts, the first of them its length, and float32 numbers, big-endian."""
    return np.frombuffer(data, ">f4", offset=4).astype("<f4")
