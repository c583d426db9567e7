"""An index of passages for look-up by words: SQLite's FTS5 with BM25, in one file.

It is written once and then only read, as an artifact of a run. Passages have numbers from 0, in the order of the
documents, by which vectors beside the index are kept (`hybrid.py`). What is updated or reranked is a `Library`; what
both share about words is in `words.py`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

from puna.base.errors import ArtifactError
from puna.base.files import atomic_folder
from puna.core.document import Document
from puna.knowledge.chunk import Passage, chunk, titled
from puna.knowledge.words import TOKENIZER, WEIGHTS, any_of, terms

_FILE = "passages.sqlite"


class PassageIndex:
    """Finds passages by the words of a question.

    Args:
        folder: as written by `build`.

    Raises:
        ArtifactError: there is no index, or none that can be read.
    """

    def __init__(self, folder: Path | str) -> None:
        path = Path(folder) / _FILE
        if not path.exists():
            raise ArtifactError(f"There is no passage index in {folder}.", hint="Run puna raise on the run again.")
        self._database = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
        try:
            self._database.execute("SELECT first FROM passages LIMIT 1").fetchone()
        except sqlite3.DatabaseError as error:
            self.close()
            raise ArtifactError(
                f"The passage index {path} cannot be read: {error}.", hint="Delete it, and run puna raise again."
            ) from error

    @classmethod
    def build(cls, folder: Path | str, documents: Iterable[Document], max_chars: int) -> PassageIndex:
        """Cuts documents into passages and writes their index, atomically."""
        with atomic_folder(folder) as temporary, closing(sqlite3.connect(temporary / _FILE)) as database:
            database.execute(
                "CREATE VIRTUAL TABLE passages USING fts5(source, titles, text, document_id UNINDEXED, "
                f'first UNINDEXED, last UNINDEXED, heading UNINDEXED, tokenize = "{TOKENIZER}")'
            )
            rows = (row for document in documents for row in _rows(document, max_chars))
            database.executemany("INSERT INTO passages VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
            database.execute("INSERT INTO passages(passages) VALUES ('optimize')")
            database.commit()
        return cls(folder)

    def search(self, question: str, limit: int = 3) -> list[tuple[Passage, float]]:
        """The passages that fit the question's words best, with their BM25 scores (higher is better)."""
        ranked = self.rank(question, limit)
        found = self.passages([number for number, _ in ranked])
        return [(passage, score) for passage, (_, score) in zip(found, ranked, strict=True)]

    def rank(self, question: str, limit: int) -> list[tuple[int, float]]:
        """(number of a passage, BM25 score), best first."""
        query = any_of(terms(question))
        if not query:
            return []
        rows = self._database.execute(
            "SELECT rowid - 1, -bm25(passages, ?, ?, ?) AS score FROM passages WHERE passages MATCH ? "
            "ORDER BY score DESC, rowid LIMIT ?",
            (*WEIGHTS, query, limit),
        )
        return rows.fetchall()

    def passages(self, numbers: Sequence[int]) -> list[Passage]:
        """The passages with these numbers, in their order."""
        columns = "document_id, source, first, last, heading, text"
        query = f"SELECT {columns} FROM passages WHERE rowid = ?"
        return [Passage(*self._database.execute(query, (number + 1,)).fetchone()) for number in numbers]

    def titled(self) -> Iterator[tuple[Passage, str]]:
        """All passages by their numbers, each with its titles."""
        columns = "document_id, source, first, last, heading, text, titles"
        for row in self._database.execute(f"SELECT {columns} FROM passages ORDER BY rowid"):
            yield Passage(*row[:-1]), row[-1]

    def close(self) -> None:
        self._database.close()

    def __len__(self) -> int:
        return int(self._database.execute("SELECT count(*) FROM passages").fetchone()[0])


def _rows(document: Document, max_chars: int) -> Iterator[tuple[str, str, str, str, int, int, str]]:
    """A row for each passage; its titles are its heading and whatever it holds that has a title of its own."""
    passages = chunk(document, max_chars)
    for p, names in zip(passages, titled(document, passages), strict=True):
        yield p.source, names, p.text, p.document_id, p.start, p.end, p.heading
