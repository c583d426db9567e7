"""Where a library lies: the seam that its two stores fill, SQLite (`sqlite_shelf.py`) and PostgreSQL with pgvector
(`postgres_shelf.py`), and the pool of connections that both have.

A document is written in one transaction with everything that belongs to it, so that a process killed at any moment
leaves it whole, as it was before, or absent. Any thread may search, readers do not wait, and writers of several
processes take turns.
"""

from __future__ import annotations

import json
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from puna.base.errors import StorageError
from puna.core.document import Document
from puna.knowledge.nearest import Floats, Ids

Scored = list[tuple[int, float]]  # (id of a chunk, score), best first
_IDLE = 4  # connections that wait for the next call


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


class Reading(Protocol):
    """A library as it was when the block began, whoever writes meanwhile."""

    def document(self, document_id: str) -> Document | None: ...

    def hash(self, document_id: str) -> str | None:
        """What `insert` was given; None where the document is not there."""
        ...

    def attributes(self, document_id: str) -> dict[str, Any] | None: ...

    def documents(self) -> list[str]:
        """The ids of all documents, sorted."""
        ...

    def chunks_of(self, document_id: str) -> list[int]:
        """The ids of a document's chunks in their order."""
        ...

    def chunks(self) -> int:
        """How many chunks there are."""
        ...

    def chunk_rows(self, ids: Sequence[int]) -> dict[int, tuple[Any, ...]]:
        """(chunk_id, document id, source, text, first, last, heading, attributes, content) by chunk id."""
        ...

    def allowed(self, passes: Callable[[Mapping[str, Any]], bool]) -> Ids:
        """Numbers of the documents whose attributes pass."""
        ...

    def count_of(self, word: str) -> int:
        """How many chunks hold a word."""
        ...

    def by_words(self, words: Sequence[str], limit: int, allowed: Ids | None, among: Sequence[str] = ()) -> Scored:
        """The chunks with the highest BM25; equals at the end of the list are all given.

        Args:
            words: of the question, as `words.terms` gives them.
            limit: how many.
            allowed: numbers of documents; None for all.
            among: words of which a chunk must hold one to be scored; none for all chunks.
        """
        ...

    def by_vector(self, embedder: str, query: Floats, limit: int, allowed: Ids | None) -> Scored:
        """The chunks whose vectors are nearest to a query of unit length, see `Nearest.search`.

        Raises:
            ConfigError: the query has another length than the vectors.
        """
        ...

    def known_vectors(self, embedder: str, contents: Sequence[str]) -> dict[str, bytes]:
        """The vectors that are there, by content, as float32 in little-endian bytes."""
        ...

    def vectors(self, embedder: str, dimensions: int, ids: Ids) -> Floats:
        """The vectors of chunks that all have one, in the order of `ids`."""
        ...

    def without_vector(self, embedder: str, limit: int) -> list[tuple[str, str, str, str]]:
        """(content, source, titles, text) of chunks that the embedder has not seen."""
        ...

    def dimensions(self, embedder: str) -> int:
        """The length of the embedder's vectors; 0 where there are none."""
        ...


class Writing(Reading, Protocol):
    """A library that is changed: all of it is kept when the block ends, or nothing."""

    def insert(self, document: Document, attributes: Mapping[str, Any] | None, hash: str, rows: Sequence[Row]) -> None:
        """Adds a document that is not there."""
        ...

    def describe(self, document: Document, attributes: Mapping[str, Any] | None) -> None:
        """Replaces what is kept of a document beside its text: attributes, language and scores."""
        ...

    def set_attributes(self, document_id: str, attributes: Mapping[str, Any]) -> bool:
        """Replaces a document's attributes; returns whether it is there."""
        ...

    def remove(self, document_id: str) -> bool:
        """Takes a document away, and the vectors that no other chunk shares; returns whether it was there."""
        ...

    def insert_vectors(self, embedder: str, vectors: Mapping[str, bytes]) -> int:
        """Adds vectors by content, those that are there or that no chunk has left out; returns how many were added."""
        ...


class Shelf(ABC):
    """A store of one library. A subclass says how connections are opened, begun and read.

    Args:
        where: it lies, for messages.
    """

    begin_reading: str
    begin_writing: str
    errors: tuple[type[Exception], ...]
    hint: str

    def __init__(self, where: str) -> None:
        self.where = where
        self._free: list[Any] = []
        self._lock = threading.Lock()
        self._closed = False

    @abstractmethod
    def _open(self) -> Any:
        """A new connection that commits each statement by itself."""

    @abstractmethod
    def _usable(self, connection: Any) -> bool:
        """Whether a connection can be used again."""

    @abstractmethod
    def _hand(self, connection: Any) -> Writing:
        """What reads and writes over a connection."""

    @abstractmethod
    def check(self) -> None:
        """Reads all of it.

        Raises:
            StorageError: it is damaged, or the words do not fit the chunks.
        """

    @contextmanager
    def reading(self) -> Iterator[Reading]:
        """The library as it is at the block's first query."""
        with self._connection() as connection:
            connection.execute(self.begin_reading)
            try:
                yield self._hand(connection)
            finally:
                self._roll_back(connection)

    @contextmanager
    def writing(self) -> Iterator[Writing]:
        """The library while nobody else writes; changes are kept together when the block ends, or not at all."""
        with self._connection() as connection, self._transaction(connection, self.begin_writing):
            yield self._hand(connection)

    @contextmanager
    def _transaction(self, connection: Any, begin: str) -> Iterator[None]:
        """Commits what the block does, or leaves nothing of it."""
        connection.execute(begin)
        done = False
        try:
            yield
            connection.execute("COMMIT")
            done = True
        finally:
            if not done:
                self._roll_back(connection)

    def _roll_back(self, connection: Any) -> None:
        """Ends a transaction; a connection that has broken has ended it, and says so by itself."""
        if self._usable(connection):
            connection.execute("ROLLBACK")

    @contextmanager
    def _connection(self) -> Iterator[Any]:
        try:
            with self._lock:
                if self._closed:
                    raise StorageError(f"The library {self.where} is closed.")
                connection = self._free.pop() if self._free else None
            if connection is None or not self._usable(connection):
                connection = self._open()
            try:
                yield connection
            finally:
                with self._lock:
                    keep = not self._closed and len(self._free) < _IDLE and self._usable(connection)
                    if keep:
                        self._free.append(connection)
                if not keep:
                    connection.close()
        except self.errors as error:
            raise StorageError(f"The library {self.where} cannot be used: {error}.", hint=self.hint) from error

    @contextmanager
    def _closing(self) -> Iterator[None]:
        """Closes the shelf where the block fails: for what is done before anybody has it."""
        try:
            yield
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Closes what waits; a connection at work is closed when its work ends."""
        with self._lock:
            self._closed = True
            for connection in self._free:
                connection.close()
            self._free.clear()


def dump(data: Mapping[str, Any] | None) -> str:
    return json.dumps(dict(data or {}), separators=(",", ":"))


def load(text: str) -> dict[str, Any]:
    return json.loads(text)
