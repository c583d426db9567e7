"""The vectors of a library in memory, and the nearest to a question among them.

Up to some thousand they are kept as float32 and all compared. Above that only codes of one byte a number are kept, a
quarter of the memory; they choose candidates, which are then scored from the exact vectors on the disk. There is no
graph and no clustering: a pass over 100,000 vectors takes some hundredths of a second, and finds what is there.

Scores are the cosine, and less where a vector is shorter than 1: so an embedder may say that a text holds little. They
are summed in one fixed way for each vector, so that they do not depend on where in the matrix it stands, and a library
gives the same results whatever its history is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from puna.base.errors import InputError

Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]
Fetch = Callable[[Ids], Floats]

_BLOCK = 512  # rows that are widened at a time: they stay in the cache
_SLACK = 1e-4  # how far a score of the first, exact pass may be off; a hundred times what float32 sums to


@dataclass(frozen=True, slots=True)
class Nearest:
    """Vectors of length 1 or less by their chunks' ids. Never changed: `changed` makes another one.

    Attributes:
        ids: of the chunks, rising.
        documents: the number of each chunk's document.
        exact: the vectors; None where there are too many.
        codes: of one byte a number; None where the vectors are exact.
        scales: what a code of each vector is worth.
        exact_below: up to how many vectors are kept exact.
    """

    ids: Ids
    documents: Ids
    exact: Floats | None
    codes: npt.NDArray[np.int8] | None
    scales: Floats
    exact_below: int

    @classmethod
    def empty(cls, dimensions: int, exact_below: int) -> Nearest:
        none = np.zeros(0, np.int64)
        return cls(none, none, np.zeros((0, dimensions), np.float32), None, np.zeros(0, np.float32), exact_below)

    def __len__(self) -> int:
        return len(self.ids)

    def changed(self, keep: npt.NDArray[np.bool_], ids: Ids, documents: Ids, fetch: Fetch) -> Nearest:
        """Without the rows that are not kept, and with new ones, whose ids are higher than all others.

        Args:
            keep: of the rows there are.
            ids: of the new ones.
            documents: of the new ones.
            fetch: gives the vectors of ids.
        """
        every = np.concatenate([self.ids[keep], ids])
        owners = np.concatenate([self.documents[keep], documents])
        if len(every) <= self.exact_below:
            # From codes there is no way back to vectors.
            exact = np.concatenate([self.exact[keep], fetch(ids)]) if self.exact is not None else fetch(every)
            return Nearest(every, owners, exact, None, np.zeros(0, np.float32), self.exact_below)
        if self.codes is not None:
            codes, scales = self.codes[keep], self.scales[keep]
        else:
            assert self.exact is not None
            codes, scales = encode(self.exact[keep])
        parts, worths = [codes], [scales]
        for start in range(0, len(ids), _BLOCK):
            codes, scales = encode(fetch(ids[start : start + _BLOCK]))
            parts.append(codes)
            worths.append(scales)
        return Nearest(every, owners, None, np.concatenate(parts), np.concatenate(worths), self.exact_below)

    def search(self, query: Floats, limit: int, allowed: Ids | None, fetch: Fetch) -> list[tuple[int, float]]:
        """(id, score) of the vectors nearest to a query of unit length, best first; none at a right angle or beyond.

        Equals at the end of the list are all given, so there may be more than `limit`.

        Args:
            query: of unit length.
            limit: how many.
            allowed: numbers of documents; None for all.
            fetch: gives the exact vectors of ids.
        """
        rows = np.arange(len(self.ids)) if allowed is None else np.flatnonzero(np.isin(self.documents, allowed))
        if not len(rows) or not query.any() or limit < 1:
            return []
        rough = self._rough(query)[rows]
        if self.exact is not None:
            chosen = rows[rough >= _kth(rough, limit) - _SLACK]
            vectors = self.exact[chosen]
        else:
            chosen = rows[rough >= _kth(rough, 3 * limit + 50)]
            vectors = fetch(self.ids[chosen])
        return best(self.ids[chosen], vectors, query, limit)

    def _rough(self, query: Floats) -> Floats:
        """All scores, as the kept numbers give them."""
        if self.exact is not None:
            return self.exact @ query
        assert self.codes is not None
        scores = np.empty(len(self.ids), np.float32)
        wide = np.empty((_BLOCK, self.codes.shape[1]), np.float32)
        for start in range(0, len(scores), _BLOCK):
            block = self.codes[start : start + _BLOCK]
            np.copyto(wide[: len(block)], block)
            # Not by BLAS: its threads wait for each other at every block, which is long where others compute.
            np.einsum("ij,j->i", wide[: len(block)], query, out=scores[start : start + len(block)])
        return scores * self.scales


def best(ids: Ids, vectors: Floats, query: Floats, limit: int) -> list[tuple[int, float]]:
    """(id, score) of the nearest among candidates, as `Nearest.search` gives them."""
    scores = np.multiply(vectors, query).sum(axis=1, dtype=np.float64)
    near = (scores >= _kth(scores, limit)) & (scores > 0)
    order = np.argsort(-scores[near], kind="stable")
    return list(zip(ids[near][order].tolist(), scores[near][order].tolist(), strict=True))


def _kth(scores: npt.NDArray[np.floating], k: int) -> float:
    """The k-th highest, or the lowest where there are fewer."""
    if len(scores) <= k:
        return float(scores.min(initial=0.0))
    return float(np.partition(scores, len(scores) - k)[len(scores) - k])


def encode(vectors: Floats) -> tuple[npt.NDArray[np.int8], Floats]:
    """Codes of -127..127 for each vector, and what a code of it is worth."""
    scales = np.abs(vectors).max(axis=1, initial=0.0).astype(np.float32) / 127
    codes = np.rint(vectors / np.where(scales, scales, 1)[:, None]).astype(np.int8)
    return codes, scales


def unit(vectors: npt.ArrayLike, most: bool = False) -> Floats:
    """Vectors brought to length 1; zeros stay, and with `most` also those that are shorter.

    Raises:
        InputError: they are not rows of finite numbers.
    """
    rows = np.asarray(vectors, np.float64)
    if rows.ndim != 2 or not np.isfinite(rows).all():
        raise InputError(f"The embedder gave an array of shape {rows.shape}; it must give rows of finite numbers.")
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows / np.where((lengths > 1) | ((lengths > 0) & (not most)), lengths, 1)).astype(np.float32)
