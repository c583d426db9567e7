"""One search in a library: rankings by words and by vectors, fused, judged again, spread, cut off.

Every step leaves its ranking in the trace. Equal scores are ordered by document and place, so that results do not
depend on the order in which documents came.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from puna.base.config import require
from puna.base.errors import ConfigError, InputError
from puna.knowledge import words
from puna.knowledge.filters import Filter, predicate
from puna.knowledge.fusion import RRF_K, best_of, reciprocal_rank, shared_words, spread
from puna.knowledge.nearest import Floats, Ids, unit
from puna.knowledge.shelf import Reading, Scored, Shelf, load
from puna.knowledge.trace import Ranking, Trace

Embed = Callable[[Sequence[str]], Sequence[Sequence[float]]]
Rerank = Callable[[str, Sequence[str]], Sequence[float]]  # (question, texts) to a score in 0..1 for each text
Mode = Literal["hybrid", "words", "vector"]


@dataclass(frozen=True, slots=True)
class LibraryConfig:
    """How documents are cut and searched.

    Attributes:
        chunk_chars: length of a chunk in characters, at most.
        overlap_chars: how much of the text before it a chunk repeats, at most.
        embedder: name of the embedder and its version. Vectors that were made under another name are not used;
            `Library.refresh` makes those that are missing.
        pool: how many chunks each ranker proposes.
        rrf_k: how little the first places of a ranking stand out when rankings are fused.
        words_weight: of the ranking by words, in hybrid mode.
        vector_weight: of the ranking by vectors.
        rerank_pool: how many of the best a reranker judges.
        diversity: 0 ranks by relevance alone; above it, up to 1, a chunk that repeats a better one loses.
        exact_below: up to how many chunks all vectors are kept in memory as float32; above, as one byte a number.
    """

    chunk_chars: int = 800
    overlap_chars: int = 0
    embedder: str = ""
    pool: int = 100
    rrf_k: float = RRF_K
    words_weight: float = 1.0
    vector_weight: float = 1.0
    rerank_pool: int = 50
    diversity: float = 0.0
    exact_below: int = 4096

    def __post_init__(self) -> None:
        for name in ("chunk_chars", "pool", "rerank_pool"):
            require(getattr(self, name) >= 1, f"{name} is {getattr(self, name)}; it must be at least 1.")
        require(
            0 <= self.overlap_chars <= self.chunk_chars / 2,
            f"overlap_chars is {self.overlap_chars}; it must be between 0 and half of chunk_chars.",
        )
        for name in ("words_weight", "vector_weight", "rrf_k"):
            require(getattr(self, name) > 0, f"{name} is {getattr(self, name)}; it must be above 0.")
        require(0 <= self.diversity <= 1, f"diversity is {self.diversity}; it must be between 0 and 1.")
        require(self.exact_below >= 0, f"exact_below is {self.exact_below}; it must be at least 0.")


@dataclass(frozen=True, slots=True)
class Hit:
    """A chunk that was found.

    Attributes:
        chunk_id: changes with the chunk's text and place, so that a citation that names it cannot come to mean
            another text.
        document_id: of its document.
        source: of its document.
        text: the document's text from `start` to `end`.
        start: first character, counted in the document's text.
        end: one past the last.
        heading: where it stands, from the outside in.
        score: what it is ranked by, in 0..1: the share of the question's words by weight ("words"), the cosine
            ("vector"), its places in both, fused ("hybrid", 1.0 if it is first in all), or what the reranker says.
        scores: by ranker, "bm25" (as a share, see `score`), "vector" and "rerank"; those that did not find it are left
            out. They say whether it is any good, which a fused score does not.
        attributes: of its document.
    """

    chunk_id: str
    document_id: str
    source: str
    text: str
    start: int
    end: int
    heading: str
    score: float = 0.0
    scores: Mapping[str, float] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Retrieval:
    """What a search found, best first, and how."""

    hits: list[Hit]
    trace: Trace


def embedded_text(source: str, titles: str, text: str) -> str:
    """What is embedded of a chunk, and shown to a reranker: its text under a line with its titles."""
    return f"{' > '.join(part for part in (source, titles) if part)}\n{text}"


def embed_texts(embed: Embed, texts: Sequence[str], length: int) -> Floats:
    """Vectors of length 1, or less where the embedder gives shorter ones.

    Args:
        embed: the embedder.
        texts: at least one.
        length: that the vectors must have; 0 for any.
    """
    made = unit(embed(texts), most=True)
    if len(made) != len(texts):
        raise InputError(f"The embedder gave {len(made)} vectors for {len(texts)} texts.")
    if length and made.shape[1] != length:
        raise ConfigError(
            f"The embedder gives vectors of length {made.shape[1]}, and those in the library have {length}.",
            hint="Name the new embedder in LibraryConfig.embedder, and call refresh().",
        )
    return made


class Searcher:
    """Searches a shelf."""

    def __init__(self, shelf: Shelf, embed: Embed | None, rerank: Rerank | None, config: LibraryConfig) -> None:
        self._shelf = shelf
        self._embed = embed
        self._rerank = rerank
        self._config = config

    def run(
        self, queries: Sequence[str], limit: int, filters: Filter | None, mode: Mode, score_threshold: float
    ) -> Retrieval:
        """The search; arguments as in `Library.retrieve`."""
        passes = None if filters is None else predicate(filters)
        trace = Trace()
        if limit < 1 or not queries:
            return Retrieval([], trace)
        with_words, with_vectors = mode != "vector", mode != "words" and self._embed is not None
        lines = [" ".join(query.split()) for query in queries]  # of several lines the first would be a title
        vectors = unit(embed_texts(self._embed, lines, 0)) if with_vectors and self._embed else None
        pool = max(self._config.pool, limit)
        found: list[tuple[str, str, Scored, float]] = []  # (ranker, query, scored, milliseconds)
        with self._shelf.reading() as seen:
            allowed = None if passes is None else seen.allowed(passes)
            for number, query in enumerate(queries):
                if with_words:
                    begin = time.perf_counter()
                    found.append(("bm25", query, _by_words(seen, query, pool, allowed), _since(begin)))
                if vectors is not None:
                    begin = time.perf_counter()
                    scored = seen.by_vector(self._config.embedder, vectors[number], pool, allowed)
                    found.append(("vector", query, scored, _since(begin)))
            rows = seen.chunk_rows(sorted({id for _, _, scored, _ in found for id, _ in scored}))
            desk = _Desk(self._config, rows, trace, found, pool)
            ranked = desk.fused()
            if self._rerank and ranked:
                ranked = desk.judged(self._rerank, queries[0], ranked, limit)
            ranked = [(id, score) for id, score in ranked if score >= score_threshold]
            if self._config.diversity and ranked:
                ids = np.array([id for id, _ in ranked], np.int64)
                ranked = desk.spread(ranked, limit, self._likeness(seen, ids, rows))
        return Retrieval(desk.hits(ranked[:limit]), trace)

    def _likeness(self, seen: Reading, ids: Ids, rows: Mapping[int, tuple[Any, ...]]) -> Floats:
        """Of chunks to each other: by their vectors if all have one, else by the words they share."""
        length = seen.dimensions(self._config.embedder)
        contents = {rows[id][8] for id in ids.tolist()}
        if length and len(seen.known_vectors(self._config.embedder, sorted(contents))) == len(contents):
            vectors = seen.vectors(self._config.embedder, length, ids)
            return np.clip(vectors @ vectors.T, 0, 1)
        return shared_words([frozenset(words.terms(rows[id][3].lower())) for id in ids.tolist()])


class _Desk:
    """The rankings of one search on their way to one list of hits."""

    def __init__(
        self,
        config: LibraryConfig,
        rows: Mapping[int, tuple[Any, ...]],
        trace: Trace,
        found: Iterable[tuple[str, str, Scored, float]],
        pool: int,
    ) -> None:
        self.config = config
        self.rows = rows
        self.trace = trace
        self.rankings: list[tuple[str, Scored]] = []
        self.scores: dict[str, dict[int, float]] = {}
        for ranker, query, scored, milliseconds in found:
            ranking = self.ordered(scored)[:pool]
            self.rankings.append((ranker, ranking))
            self.scores[ranker] = best_of([self.scores.get(ranker, {}), dict(ranking)])
            self.note(ranker, query, ranking, milliseconds)

    def ordered(self, scored: Iterable[tuple[int, float]]) -> Scored:
        """Best first; equals by document and place."""
        return sorted(scored, key=lambda one: (-one[1], self.rows[one[0]][1], self.rows[one[0]][4]))

    def note(self, ranker: str, query: str, scored: Scored, milliseconds: float) -> None:
        chunks = [(self.rows[id][0], score) for id, score in scored]
        self.trace.rankings.append(Ranking(ranker, query, chunks, milliseconds))

    def fused(self) -> Scored:
        """One ranking of all; where there is one alone, that one with its own scores."""
        if len(self.rankings) == 1:
            return self.rankings[0][1]
        begin = time.perf_counter()
        weights = {"bm25": self.config.words_weight, "vector": self.config.vector_weight}
        lists = [[id for id, _ in ranking] for _, ranking in self.rankings]
        scores = reciprocal_rank(lists, [weights[ranker] for ranker, _ in self.rankings], self.config.rrf_k)
        ranked = self.ordered(scores.items())
        self.note("fused", "", ranked, _since(begin))
        return ranked

    def judged(self, rerank: Rerank, query: str, ranked: Scored, limit: int) -> Scored:
        """The best by the reranker's scores; what it has not seen is left out."""
        begin = time.perf_counter()
        ids = [id for id, _ in ranked[: max(self.config.rerank_pool, limit)]]
        texts = [embedded_text(self.rows[id][2], self.rows[id][6], self.rows[id][3]) for id in ids]
        scores = np.asarray(rerank(query, texts), np.float64)
        if scores.shape != (len(ids),) or not np.isfinite(scores).all():
            raise InputError(f"The reranker gave scores of shape {scores.shape} for {len(ids)} texts, or no numbers.")
        self.scores["rerank"] = dict(zip(ids, scores.tolist(), strict=True))
        judged = self.ordered(self.scores["rerank"].items())
        self.note("rerank", query, judged, _since(begin))
        return judged

    def spread(self, ranked: Scored, limit: int, likeness: Floats) -> Scored:
        begin = time.perf_counter()
        order = spread([score for _, score in ranked], likeness, limit, self.config.diversity)
        taken = [ranked[place] for place in order]
        self.note("spread", "", taken, _since(begin))
        return taken

    def hits(self, ranked: Scored) -> list[Hit]:
        self.note("kept", "", ranked, 0.0)
        return [
            hit_of(self.rows[id], score, {name: scores[id] for name, scores in self.scores.items() if id in scores})
            for id, score in ranked
        ]


def hit_of(row: tuple[Any, ...], score: float = 0.0, scores: Mapping[str, float] | None = None) -> Hit:
    """A row of `Reading.chunk_rows` as a hit."""
    chunk_id, document_id, source, text, first, last, heading, attributes, _ = row
    about = load(attributes)
    return Hit(chunk_id, document_id, source, text, first, last, heading, score, scores or {}, about)


def _by_words(seen: Reading, query: str, limit: int, allowed: Ids | None) -> Scored:
    """BM25 as a share of the most that the question's words could give."""
    asked = words.terms(query)
    if not asked:
        return []
    counts = [seen.count_of(word) for word in asked]
    most = words.ceiling(counts, seen.chunks())
    rare = words.rarest(asked, counts)
    scored = seen.by_words(asked, limit, allowed, rare if len(rare) < len(asked) else ())
    return [(id, min(score / most, 1.0)) for id, score in scored]


def _since(begin: float) -> float:
    return (time.perf_counter() - begin) * 1000
