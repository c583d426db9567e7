"""Documents for tests, made in one call, an embedder without a model, and libraries that are closed in the end."""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from puna.core.document import Document
from puna.knowledge.library import Embed, Library, LibraryConfig
from puna.knowledge.postgres_shelf import PostgresShelf


@pytest.fixture
def document() -> Callable[..., Document]:
    """(text, kind, source) to a document whose id is its source."""

    def make(text: str, kind: str = "python", source: str = "lib.py", **meta: object) -> Document:
        return Document(text=text, id=source, source=source, meta={"kind": kind, **meta})

    return make


class LetterEmbedder:
    """Texts are near each other that share words; counts how many it was given."""

    def __init__(self, dimensions: int = 24) -> None:
        self.dimensions = dimensions
        self.seen: list[str] = []

    def __call__(self, texts: Sequence[str]) -> list[list[float]]:
        self.seen += texts
        return [self._one(text) for text in texts]

    def _one(self, text: str) -> list[float]:
        vector = np.zeros(self.dimensions)
        for word in re.findall(r"\w+", text.lower()):
            seed = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=4).digest(), "little")
            vector += np.abs(np.random.default_rng(seed).standard_normal(self.dimensions))
        return vector.tolist()


@pytest.fixture
def embedder() -> LetterEmbedder:
    return LetterEmbedder()


@dataclass
class Place:
    """Where libraries lie, by name. The same name is the same place."""

    store: str
    base: str
    names: dict[str, str] = field(default_factory=dict)

    def named(self, name: str) -> str:
        """A path, or a URL and the library's name there."""
        if self.store == "sqlite":
            return f"{self.base}/{name}.sqlite"
        return f"{self.base} {self.names.setdefault(name, f'test_{uuid.uuid4().hex[:20]}')}"

    def __call__(self, name: str) -> str | PostgresShelf:
        return self.named(name) if self.store == "sqlite" else PostgresShelf(*self.named(name).split())


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """In files, and in PostgreSQL."""
    if request.param == "sqlite":
        yield Place("sqlite", str(tmp_path))
        return
    place = Place("postgres", request.getfixturevalue("pgvector_server"))
    yield place
    for name in place.names.values():
        PostgresShelf(place.base, name).drop()


@pytest.fixture
def open_library(place: Place) -> Iterator[Callable[..., Library]]:
    """(embed, settings of LibraryConfig) to a library in one place."""
    opened: list[Library] = []

    def make(embed: Embed | None = None, name: str = "library", rerank=None, **settings: object) -> Library:
        opened.append(Library(place(name), embed, LibraryConfig(**settings), rerank=rerank))  # type: ignore[arg-type]
        return opened[-1]

    yield make
    for library in opened:
        library.close()
