"""Look-up by words and by meaning in a run's index: BM25's ranking and that of vectors, fused.

The vectors stand in a file beside the index, one for each passage by its number. They are read only, like the index;
documents that come and go are for a `Library`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from puna.base.errors import ArtifactError
from puna.base.files import atomic_write
from puna.knowledge.chunk import Passage
from puna.knowledge.fusion import reciprocal_rank
from puna.knowledge.index import PassageIndex
from puna.knowledge.nearest import Floats, Ids, Nearest, unit

POOL = 100  # passages that each ranking proposes
_EXACT_BELOW = 1 << 17  # vectors that are kept whole in memory; above, a byte a number


class PassageVectors:
    """The vectors of an index's passages. Any thread may search.

    Args:
        vectors: of length 1, by the passages' numbers; may be mapped from a file.
    """

    def __init__(self, vectors: np.ndarray) -> None:
        self._vectors = vectors
        numbers = np.arange(len(vectors))
        empty = Nearest.empty(vectors.shape[1], _EXACT_BELOW)
        self._nearest = empty.changed(np.zeros(0, np.bool_), numbers, numbers, self._fetch)

    @classmethod
    def load(cls, path: Path | str) -> PassageVectors:
        """Maps what `save_vectors` wrote.

        Raises:
            ArtifactError: there is no such file, or it holds no vectors.
        """
        try:
            vectors = np.load(path, mmap_mode="r", allow_pickle=False)
            if vectors.ndim != 2 or vectors.dtype != np.float16:
                raise ValueError(f"it is an array of {vectors.dtype} of shape {vectors.shape}")
        except (OSError, ValueError, EOFError) as error:
            raise ArtifactError(
                f"The passages' vectors {path} cannot be read: {error}.", hint="Delete them, and run puna raise again."
            ) from error
        return cls(vectors)

    def __len__(self) -> int:
        return len(self._vectors)

    def rank(self, query: Floats, limit: int) -> list[tuple[int, float]]:
        """(number of a passage, cosine), best first; equals at the end are all given.

        Args:
            query: of unit length.
            limit: how many.
        """
        return self._nearest.search(query, limit, None, self._fetch)

    def _fetch(self, numbers: Ids) -> Floats:
        return self._vectors[numbers].astype(np.float32)


def save_vectors(path: Path | str, vectors: Floats) -> None:
    """Writes the vectors, two bytes a number, atomically."""
    with atomic_write(path) as file:
        np.save(file, vectors.astype(np.float16))


class HybridIndex:
    """Finds passages by the words of a question and by its vector.

    Args:
        index: of the passages; for one thread, as it is itself.
        vectors: of the same passages.
        embed: makes the vector of a question.
        weight: of the ranking by vectors, where that by words has 1.

    Raises:
        ArtifactError: the vectors are of another index.
    """

    def __init__(
        self,
        index: PassageIndex,
        vectors: PassageVectors,
        embed: Callable[[Sequence[str]], Sequence[Sequence[float]] | Floats],
        weight: float,
    ) -> None:
        if len(index) != len(vectors):
            raise ArtifactError(
                f"The index has {len(index)} passages, and there are vectors of {len(vectors)}.",
                hint="Run puna raise on the run again.",
            )
        self.index = index
        self.vectors = vectors
        self.embed = embed
        self.weight = weight

    def search(self, question: str, limit: int = 3) -> list[tuple[Passage, float]]:
        """The passages that fit best, with their fused scores: 1.0 for what both rankings put first."""
        pool = max(POOL, limit)
        by_words = [number for number, _ in self.index.rank(question, pool)]
        (query,) = unit(self.embed([question]))
        by_vector = [number for number, _ in self.vectors.rank(query, pool)]
        ranked = fuse(by_words, by_vector, self.weight)[:limit]
        found = self.index.passages([number for number, _ in ranked])
        return [(passage, score) for passage, (_, score) in zip(found, ranked, strict=True)]


def fuse(by_words: Sequence[int], by_vector: Sequence[int], weight: float) -> list[tuple[int, float]]:
    """Two rankings as one: (number, score), best first, equals by number. A weight of 0 leaves that of words."""
    rankings, weights = ([by_words, by_vector], [1.0, weight]) if weight else ([by_words], [1.0])
    scores = reciprocal_rank(rankings, weights)
    return sorted(scores.items(), key=lambda one: (-one[1], one[0]))
