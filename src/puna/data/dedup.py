"""Documents that are the same, and groups of documents that are nearly so.

`drop_exact` removes copies. `near_duplicate_groups` removes nothing: its groups keep a split free of leaks, so where it
errs, it errs towards one group too many documents.

Two documents are near-duplicates if their sets of shingles (5 consecutive words each, hashed to 64 bits) overlap:
Jaccard |A∩B| / |A∪B| at or above a threshold, or containment |A∩B| / min(|A|, |B|) at or above another one, which is
how a small file that was copied into a bigger one is found. Every pair is verified on the whole sets. Candidates come
from two indices: MinHash signatures in bands (Broder 1997; LSH as in Leskovec et al., Mining of Massive Datasets,
§3.4), whose chance of catching a pair at the threshold is `LSH.catch`; and the shingles themselves, where documents
that share many are counted, for MinHash is blind to containment. Groups are the connected components.

Left out: folding of case and of numbers. Two tables of different numbers are not the same text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from puna.base.config import require
from puna.base.files import hash_bytes
from puna.core.document import Document

Hashes = np.ndarray  # uint64, shape (n,)

_WORDS = 5  # in a shingle
_BATCH = 1 << 23  # bytes hashed at once
_INDEX = 1 << 23  # shingles in the containment index; a larger corpus is sampled down to this many
_WINDOW = 8  # documents ahead that a document is paired with among those that share a shingle or a band
_SEED = 0x5EED


# Exact copies --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Duplicate:
    """A document that was dropped, and the one kept in its place, by their sources."""

    source: str
    kept: str


def drop_exact(documents: Sequence[Document]) -> tuple[list[Document], list[Duplicate]]:
    """Keeps one of each text, the first by source; blanks at line ends and runs of empty lines do not count.

    Returns:
        The kept documents in their given order, and the dropped ones by source.
    """
    first: dict[str, Document] = {}
    dropped = []
    for document in sorted(documents, key=lambda document: document.source):
        kept = first.setdefault(_normal_hash(document.text), document)
        if kept is not document:
            dropped.append(Duplicate(document.source, kept.source))
    keep = {id(document) for document in first.values()}
    return [document for document in documents if id(document) in keep], dropped


def _normal_hash(text: str) -> str:
    text = re.sub(r"[ \t\r\f\v]+$", "", text.strip(), flags=re.MULTILINE)
    return hash_bytes(re.sub(r"\n{2,}", "\n\n", text).encode())


# Near duplicates -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LSH:
    """MinHash signatures of `bands` times `rows` hashes; documents that agree in a whole band are candidates."""

    bands: int
    rows: int

    def catch(self, jaccard: float) -> float:
        """The probability that a pair with this Jaccard similarity becomes a candidate: 1 - (1 - J^rows)^bands."""
        return 1.0 - (1.0 - jaccard**self.rows) ** self.bands

    @classmethod
    def solve(cls, threshold: float, hashes: int = 256, catch: float = 0.99) -> LSH:
        """The most rows, so the fewest false candidates, that catch a pair at the threshold this surely."""
        fits = (cls(hashes // rows, rows) for rows in range(hashes, 1, -1))
        return next((lsh for lsh in fits if lsh.catch(threshold) >= catch), cls(hashes, 1))


def near_duplicate_groups(
    documents: Sequence[Document], threshold: float = 0.2, containment: float = 0.5
) -> list[list[int]]:
    """Groups of indices into `documents`, singletons too, each in order and the groups by their first index.

    Args:
        documents: in any order; the groups do not depend on it.
        threshold: Jaccard similarity from which two documents belong together. A pair at the threshold becomes a
            candidate with probability 0.99 or more by MinHash alone.
        containment: share of the smaller document's shingles that the larger holds too, from which they belong
            together.
    """
    for name, value in (("threshold", threshold), ("containment", containment)):
        require(0 < value <= 1, f"{name} is {value}, and must be above 0 and at most 1.")
    shingles = [hashes for batch in _batches(documents) for hashes in _shingles(batch)]
    sets = _Sets(len(documents))
    for a, b in _candidates(shingles, LSH.solve(threshold), threshold, containment):
        if sets.find(a) != sets.find(b) and _alike(shingles[a], shingles[b], threshold, containment):
            sets.union(a, b)
    groups: dict[int, list[int]] = {}
    for i in range(len(documents)):
        groups.setdefault(sets.find(i), []).append(i)
    return list(groups.values())


def _alike(a: Hashes, b: Hashes, threshold: float, containment: float) -> bool:
    shared = len(np.intersect1d(a, b, assume_unique=True))
    smaller = min(len(a), len(b))
    return shared >= threshold * (len(a) + len(b) - shared) or shared >= containment * smaller


class _Sets:
    """Union-find; a set's root is its smallest member."""

    def __init__(self, size: int) -> None:
        self.parent = list(range(size))

    def find(self, i: int) -> int:
        while self.parent[i] != i:
            self.parent[i] = self.parent[self.parent[i]]
            i = self.parent[i]
        return i

    def union(self, a: int, b: int) -> None:
        a, b = sorted((self.find(a), self.find(b)))
        self.parent[b] = a


# Shingles ------------------------------------------------------------------------------------------------------------

_BASE = np.uint64(0x9E3779B97F4A7C15)  # odd, so that it has an inverse modulo 2^64
_INVERSE = np.uint64(pow(int(_BASE), -1, 1 << 64))


def _mix(x: Hashes) -> Hashes:
    """The finaliser of SplitMix64 (Steele et al. 2014): spreads every input bit over the output."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _batches(documents: Sequence[Document]) -> Iterator[list[bytes]]:
    batch: list[bytes] = []
    size = 0
    for document in documents:
        data = document.text.encode()
        if batch and size + len(data) > _BATCH:
            yield batch
            batch, size = [], 0
        batch.append(data)
        size += len(data)
    if batch:
        yield batch


def _shingles(texts: Sequence[bytes]) -> Iterator[Hashes]:
    """For each text the sorted distinct hashes of its shingles; one of all its words where it has fewer than five."""
    data = np.frombuffer(b" ".join(texts) + b" ", dtype=np.uint8)
    starts, ends = _words(data)
    words = _word_hashes(data, starts, ends)
    weights = _mix(np.arange(1, _WORDS + 1, dtype=np.uint64)) | np.uint64(1)
    count = max(len(words) - _WORDS + 1, 0)
    rolled = np.zeros(count, dtype=np.uint64)
    for k in range(_WORDS):
        rolled += words[k : k + count] * weights[k]
    rolled = _mix(rolled)
    bounds = np.searchsorted(starts, np.cumsum([0, *(len(text) + 1 for text in texts)]))
    for low, high in pairwise(bounds):
        if high - low >= _WORDS:
            yield np.unique(rolled[low : high - _WORDS + 1])
        else:
            few = words[low:high]
            yield _mix((few * weights[: len(few)]).sum(keepdims=True)) if len(few) else few


def _words(data: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Starts and ends (bytes) of words: runs of letters, digits and "_".

    Characters of U+0800 and above, but for the block of punctuation that begins with 0xE2, are words by themselves:
    most of their scripts put no blanks between words.
    """
    char = np.arange(256)
    letter = (char >= 0x80) | (char == ord("_")) | (char >= ord("0")) & (char <= ord("9"))
    letter |= (char >= ord("A")) & (char <= ord("Z")) | (char >= ord("a")) & (char <= ord("z"))
    alone = ((char >= 0xE0) & (char != 0xE2))[data]
    inside = letter[data]
    begins = inside & (alone | ~np.concatenate(([False], inside[:-1])))
    starts = np.flatnonzero(begins)
    stops = np.flatnonzero(~inside)
    following = np.append(starts[1:], len(data))
    return starts, np.minimum(following, stops[np.searchsorted(stops, starts)]) if len(starts) else starts


def _word_hashes(data: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> Hashes:
    """Polynomial hashes modulo 2^64 from prefix sums: (P[end] - P[start]) / base^start, then mixed."""
    powers = np.cumprod(np.full(len(data), _BASE, dtype=np.uint64))
    prefix = np.concatenate(([np.uint64(0)], np.cumsum((data.astype(np.uint64) + np.uint64(1)) * powers)))
    inverse = np.cumprod(np.full(len(data), _INVERSE, dtype=np.uint64))
    return _mix((prefix[ends] - prefix[starts]) * inverse[starts])


# Candidates ----------------------------------------------------------------------------------------------------------


def _candidates(
    shingles: Sequence[Hashes], lsh: LSH, threshold: float, containment: float
) -> Iterator[tuple[int, int]]:
    """Pairs (a, b), a < b, that may be alike; some more than once."""
    signatures = _signatures(shingles, lsh.bands * lsh.rows)
    least = threshold - 3 * np.sqrt(threshold * (1 - threshold) / signatures.shape[1])  # three standard errors
    filled = np.array([len(hashes) > 0 for hashes in shingles], dtype=bool)
    for band in range(lsh.bands):
        rows = signatures[:, band * lsh.rows : (band + 1) * lsh.rows]
        keys = _mix((rows * _mix(np.arange(1, lsh.rows + 1, dtype=np.uint64))).sum(axis=1))
        pairs = _neighbours(keys[filled], np.flatnonzero(filled))
        agree = (signatures[pairs[:, 0]] == signatures[pairs[:, 1]]).mean(axis=1)
        yield from map(tuple, pairs[agree >= least].tolist())
    yield from _overlaps(shingles, min(threshold, containment))


def _signatures(shingles: Sequence[Hashes], hashes: int) -> np.ndarray:
    """(documents, hashes) uint64: for each hash function the least value over a document's shingles."""
    draw = np.random.default_rng(_SEED)
    a = draw.integers(1, 1 << 63, hashes, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    b = draw.integers(0, 1 << 63, hashes, dtype=np.uint64)
    signatures = np.full((len(shingles), hashes), np.iinfo(np.uint64).max, dtype=np.uint64)
    for signature, values in zip(signatures, shingles, strict=True):
        for low in range(0, len(values), 4096):
            block = values[low : low + 4096, None] * a + b
            np.minimum(signature, block.min(axis=0), out=signature)
    return signatures


def _neighbours(keys: Hashes, owners: np.ndarray) -> np.ndarray:
    """(pairs, 2): owners of equal keys, each with the next `_WINDOW` ones that share its key."""
    order = np.lexsort((owners, keys))
    keys, owners = keys[order], owners[order]
    found = []
    for step in range(1, _WINDOW + 1):
        same = np.flatnonzero(keys[step:] == keys[:-step])
        if not len(same):
            break
        found.append(np.stack([owners[same], owners[same + step]], axis=1))
    return np.concatenate(found) if found else np.empty((0, 2), dtype=np.int64)


def _overlaps(shingles: Sequence[Hashes], least: float) -> Iterator[tuple[int, int]]:
    """Pairs that share at least half of `least` of the smaller document's indexed shingles."""
    total = sum(map(len, shingles))
    rate = np.uint64(max(1, -(-total // _INDEX)))
    sampled = [hashes[hashes % rate == 0] for hashes in shingles]
    if not sampled:
        return
    owners = np.repeat(np.arange(len(sampled)), [len(hashes) for hashes in sampled])
    pairs = _neighbours(np.concatenate(sampled), owners)
    codes, counts = np.unique(pairs[:, 0] * len(sampled) + pairs[:, 1], return_counts=True)
    sizes = np.array([len(hashes) for hashes in sampled])
    first, second = codes // len(sampled), codes % len(sampled)
    enough = counts >= 0.5 * least * np.minimum(sizes[first], sizes[second])
    yield from zip(first[enough].tolist(), second[enough].tolist(), strict=True)
