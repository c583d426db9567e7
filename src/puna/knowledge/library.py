"""`Library`: documents of one collection, on the disk or in PostgreSQL, searchable by words and by meaning.

It works without any model, by words alone. With an embedder every chunk has a vector beside its words, and the two
rankings are fused; a reranker may judge the best again. Updates are incremental: a document whose text has not changed
is not cut again, and a chunk whose text has not changed is not embedded again. What a search gives depends on the
documents that are there and not on how they came: the same documents in another order make the same results.

Left out: whose a library is, and which libraries there are; that is for those who serve them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from puna.base.errors import ConfigError
from puna.base.files import hash_bytes
from puna.core.document import Document
from puna.knowledge.chunk import chunk, titled
from puna.knowledge.filters import Filter
from puna.knowledge.search import (
    Embed,
    Hit,
    LibraryConfig,
    Mode,
    Rerank,
    Retrieval,
    Searcher,
    embed_texts,
    embedded_text,
    hit_of,
)
from puna.knowledge.shelf import Row, Shelf, dump
from puna.knowledge.sqlite_shelf import SqliteShelf

__all__ = ["Embed", "Filter", "Hit", "Library", "LibraryConfig", "Mode", "Rerank", "Retrieval"]

_EMBEDDED_AT_ONCE = 64
_HALVES = re.compile("[\ud800-\udfff]")  # halves of surrogate pairs, which UTF-8 may not hold


class Library:
    """Documents in one place; any thread and several processes may use it at once.

    Args:
        where: path of an SQLite file, which is made where there is none; or a shelf, such as a `PostgresShelf`. It is
            closed with the library.
        embed: texts to vectors of one length. None searches by words alone.
        config: how documents are cut and searched.
        rerank: judges the best again.
    """

    def __init__(
        self,
        where: Path | str | Shelf,
        embed: Embed | None = None,
        config: LibraryConfig = LibraryConfig(),  # noqa: B008 - it is frozen
        *,
        rerank: Rerank | None = None,
    ) -> None:
        self.config = config
        self._embed = embed
        self._shelf = where if isinstance(where, Shelf) else SqliteShelf(where, config.exact_below)
        self._searcher = Searcher(self._shelf, embed, rerank, config)

    # Documents --------------------------------------------------------------------------------------------------------

    def put(self, document: Document, attributes: Mapping[str, Any] | None = None) -> int:
        """Adds a document, or replaces the one with its id; returns in how many chunks it lies.

        Halves of surrogate pairs, which no file can hold, become U+FFFD.

        Args:
            document: what to keep.
            attributes: for filters; JSON values. None for none.

        Raises:
            StorageError: the disk refuses.
            InputError: the embedder gives no numbers.
            ConfigError: its vectors have another length than those that are there.
        """
        document = _clean(document)
        made_of = {"text": document.text, "source": document.source, "meta": dict(document.meta)}
        cut = {"chars": self.config.chunk_chars, "overlap": self.config.overlap_chars}
        hash = _short(dump({**made_of, **cut}))
        while True:
            with self._shelf.reading() as seen:
                unchanged = seen.hash(document.id) == hash
            # Cutting and embedding take their time, so they are done before anybody else is kept from writing.
            rows = [] if unchanged else self._cut(document)
            vectors = self._vectors({row.content: embedded_text(document.source, row.titles, row.text) for row in rows})
            with self._shelf.writing() as hand:
                if unchanged:
                    if hand.hash(document.id) != hash:
                        continue  # it was changed or deleted since it was looked at
                    hand.describe(document, attributes)
                else:
                    hand.remove(document.id)
                    hand.insert(document, attributes, hash, rows)
                    hand.insert_vectors(self.config.embedder, vectors)
                return len(hand.chunks_of(document.id))

    def _cut(self, document: Document) -> list[Row]:
        passages = chunk(document, self.config.chunk_chars, self.config.overlap_chars)
        rows = []
        for passage, titles in zip(passages, titled(document, passages), strict=True):
            if passage.text.strip():
                name = f"{document.id}\0{passage.start}\0{passage.end}\0{passage.text}"
                content = embedded_text(document.source, titles, passage.text)
                rows.append(
                    Row(
                        chunk_id=_short(name),
                        content=_short(content),
                        first=passage.start,
                        last=passage.end,
                        heading=passage.heading,
                        titles=titles,
                        text=passage.text,
                    )
                )
        return rows

    def _vectors(self, texts: Mapping[str, str]) -> dict[str, bytes]:
        """The vectors of texts by the hash of their content: those that are there, and the others made."""
        if self._embed is None or not texts:
            return {}
        with self._shelf.reading() as seen:
            vectors = seen.known_vectors(self.config.embedder, list(texts))
            length = seen.dimensions(self.config.embedder)
        missing = [content for content in texts if content not in vectors]
        for start in range(0, len(missing), _EMBEDDED_AT_ONCE):
            some = missing[start : start + _EMBEDDED_AT_ONCE]
            made = embed_texts(self._embed, [texts[content] for content in some], length)
            length = made.shape[1]
            vectors.update(zip(some, (row.astype("<f4").tobytes() for row in made), strict=True))
        return vectors

    def delete(self, document_id: str) -> bool:
        """Takes a document away; returns whether it was there."""
        with self._shelf.writing() as hand:
            return hand.remove(_whole(document_id))

    def set_attributes(self, document_id: str, attributes: Mapping[str, Any]) -> bool:
        """Replaces a document's attributes; returns whether it is there."""
        with self._shelf.writing() as hand:
            return hand.set_attributes(_whole(document_id), attributes)

    def refresh(self) -> int:
        """Makes the vectors that chunks lack, as after a change of embedder; returns how many."""
        made = 0
        while self._embed is not None:
            with self._shelf.reading() as seen:
                lacking = seen.without_vector(self.config.embedder, _EMBEDDED_AT_ONCE)
            if not lacking:
                break
            vectors = self._vectors({content: embedded_text(*parts) for content, *parts in lacking})
            with self._shelf.writing() as hand:
                made += hand.insert_vectors(self.config.embedder, vectors)
        return made

    def document(self, document_id: str) -> Document | None:
        with self._shelf.reading() as seen:
            return seen.document(_whole(document_id))

    def attributes(self, document_id: str) -> Mapping[str, Any] | None:
        """A document's attributes; None where it is not there."""
        with self._shelf.reading() as seen:
            return seen.attributes(_whole(document_id))

    def documents(self) -> Sequence[str]:
        """The ids of all documents, sorted."""
        with self._shelf.reading() as seen:
            return seen.documents()

    def chunks(self, document_id: str) -> Sequence[Hit]:
        """A document's chunks in their order; blank ones are not kept."""
        with self._shelf.reading() as seen:
            ids = seen.chunks_of(_whole(document_id))
            rows = seen.chunk_rows(ids)
        return [hit_of(rows[id]) for id in ids]

    def __len__(self) -> int:
        """How many chunks there are."""
        with self._shelf.reading() as seen:
            return seen.chunks()

    def check(self) -> None:
        """Reads the whole file through.

        Raises:
            StorageError: it is damaged, or the words do not fit the chunks.
        """
        self._shelf.check()

    def close(self) -> None:
        self._shelf.close()

    def __enter__(self) -> Library:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # Search -----------------------------------------------------------------------------------------------------------

    def search(
        self,
        query: str | Sequence[str],
        limit: int = 10,
        *,
        filters: Filter | None = None,
        mode: Mode = "hybrid",
        score_threshold: float = 0.0,
    ) -> list[Hit]:
        """The chunks that fit a question best, best first; see `retrieve`."""
        return self.retrieve(query, limit, filters=filters, mode=mode, score_threshold=score_threshold).hits

    def retrieve(
        self,
        query: str | Sequence[str],
        limit: int = 10,
        *,
        filters: Filter | None = None,
        mode: Mode = "hybrid",
        score_threshold: float = 0.0,
    ) -> Retrieval:
        """The chunks that fit a question best, and the trace.

        Args:
            query: a question, or several ways to ask it, whose rankings are fused.
            limit: how many chunks, at most.
            filters: on attributes, see `filters.py`.
            mode: "hybrid" is "words" where there is no embedder.
            score_threshold: hits that score less are left out.

        Raises:
            InputError: the filter is none.
            ConfigError: mode "vector" without an embedder, or an unknown mode.
        """
        if mode not in ("hybrid", "words", "vector"):
            raise ConfigError(f"mode is {mode!r}; it must be 'hybrid', 'words' or 'vector'.")
        if mode == "vector" and self._embed is None:
            raise ConfigError("There is no embedder to search by vectors.", hint="Give one, or search by words.")
        queries = [query] if isinstance(query, str) else query
        return self._searcher.run([_whole(one) for one in queries], limit, filters, mode, score_threshold)


def _short(text: str) -> str:
    return hash_bytes(text.encode())[:32]


def _whole(text: str) -> str:
    return _HALVES.sub("\ufffd", text)


def _clean(document: Document) -> Document:
    if all(part.isascii() for part in (document.text, document.id, document.source)):
        return document
    return replace(document, text=_whole(document.text), id=_whole(document.id), source=_whole(document.source))
