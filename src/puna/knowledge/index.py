"""An index of passages for look-up by words: SQLite's FTS5 with BM25, in one file.

Vectors, reranking and incremental updates are left out: this is what finds the passage that a question names, with no
weights at all. A title counts for more than the text beneath it, because a question about `copyfile` wants the
passage that defines it, not the ones that call it.
"""

from __future__ import annotations

import re
import sqlite3
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import closing
from functools import cache
from importlib import resources
from pathlib import Path

from puna.base.errors import ArtifactError
from puna.base.files import atomic_folder
from puna.core.document import Document
from puna.knowledge.chunk import Passage, chunk, titles

_FILE = "passages.sqlite"
# BM25 weights of the columns source, titles and text.
_WEIGHTS = (2.0, 6.0, 1.0)
_WORD = re.compile(r"\w+")


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
                "first UNINDEXED, last UNINDEXED, heading UNINDEXED, tokenize = \"unicode61 tokenchars '_'\")"
            )
            rows = (row for document in documents for row in _rows(document, max_chars))
            database.executemany("INSERT INTO passages VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
            database.execute("INSERT INTO passages(passages) VALUES ('optimize')")
            database.commit()
        return cls(folder)

    def search(self, question: str, limit: int = 3) -> list[tuple[Passage, float]]:
        """The passages that fit the question's words best, with their BM25 scores (higher is better)."""
        # Composed, or an accent written as a character of its own would end a word.
        words = {word.lower(): word for word in _WORD.findall(unicodedata.normalize("NFC", question))}
        query = " OR ".join(f'"{word}"' for lower, word in words.items() if lower not in _question_words())
        if not query:
            return []
        rows = self._database.execute(
            "SELECT document_id, source, first, last, heading, text, -bm25(passages, ?, ?, ?) AS score "
            "FROM passages WHERE passages MATCH ? ORDER BY score DESC, rowid LIMIT ?",
            (*_WEIGHTS, query, limit),
        )
        return [(Passage(*row[:-1]), row[-1]) for row in rows]

    def close(self) -> None:
        self._database.close()

    def __len__(self) -> int:
        return int(self._database.execute("SELECT count(*) FROM passages").fetchone()[0])


def _rows(document: Document, max_chars: int) -> Iterator[tuple[str, str, str, str, int, int, str]]:
    """A row for each passage; its titles are its heading and whatever it holds that has a title of its own."""
    places = titles(document)
    for p in chunk(document, max_chars):
        inside = [title for start, title in places if p.start <= start < p.end]
        yield p.source, " ".join([p.heading, *inside]), p.text, p.document_id, p.start, p.end, p.heading


@cache
def _question_words() -> frozenset[str]:
    """Words of questions themselves: they are in every question and say nothing of what is asked about."""
    return frozenset(resources.files("puna.knowledge").joinpath("assets/question_words.txt").read_text("utf-8").split())
