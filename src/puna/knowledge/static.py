"""Vectors without a model: a table of words learnt from the texts themselves, with numpy alone.

A text's vector has two halves. One says which words it has: each word is spread over eight places by its hash, weighed
by its rarity, so that the cosine is nearly that of the word counts (a random projection; also words that nobody has
seen before have a place). Identifiers count whole and in parts, so that "write transport" meets `WriteTransport`. The
other half says what it is about: the words' positive pointwise mutual information with their neighbours, reduced by a
truncated singular value decomposition (Levy and Goldberg, 2014). The first line of a text of several is its title, and
counts for more. A vector is shorter than 1, the more so the less the text holds: by the cosine alone the shortest of
all passages that have a word would win (pivoted normalisation, Singhal et al., 1996).

It knows no grammar and no world; a trained encoder does better, and stands in the same place (`core.Embedder`).
"""

from __future__ import annotations

import hashlib
import random
import re
import threading
import zipfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from puna.base.config import require
from puna.base.errors import ArtifactError, VersionError
from puna.base.files import atomic_write, hash_bytes
from puna.knowledge.nearest import Floats, unit

_FORMAT = 1
_PLACES = 8  # over which the hash of a word spreads it
_MOST_WORDS = 200_000  # whose rarity is kept
_TITLE = 6  # what a word in the title counts for
_SLOPE = 0.2  # how far a longer text is held to be more of the same, and not more
_SAMPLE = 1000  # texts by which the typical length is told
_SMOOTHING = 0.75  # of the neighbours' frequencies: rare neighbours say less than they seem to
_WORD = re.compile(r"\w+")
_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_PLAIN_PART = re.compile(r"[^\W\d_]+|\d+")  # beyond ASCII, where no case tells the parts apart

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class StaticConfig:
    """How a table is learnt.

    Attributes:
        vocabulary: how many of the commonest words get a meaning.
        dimensions: of the meaning.
        hashed: places of the words themselves.
        meaning: weight of the meaning against the words themselves, 0..1.
        window: how far apart neighbours are, at most.
        seed: of the decomposition's random start.
    """

    vocabulary: int = 4096
    dimensions: int = 64
    hashed: int = 704
    meaning: float = 0.1
    window: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("vocabulary", "dimensions", "hashed", "window"):
            require(getattr(self, name) >= 1, f"{name} is {getattr(self, name)}; it must be at least 1.")
        require(0 <= self.meaning <= 1, f"meaning is {self.meaning}; it must be between 0 and 1.")


class StaticEmbedder:
    """A table of words.

    Args:
        words: whose rarity is known; those with a meaning come first.
        counts: in how many texts each of them stands.
        texts: how many texts there were.
        meanings: a row for each of the first words; may be empty.
        hashed: places of the words themselves.
        meaning: weight of the meanings, 0..1.
        typical: how much texts usually hold; 0 makes all vectors as long as each other.
    """

    def __init__(
        self, words: Sequence[str], counts: Sequence[int] | Counts, texts: int, meanings: Floats, hashed: int,
        meaning: float, typical: float = 0.0,
    ) -> None:  # fmt: skip
        self._words = list(words)
        self._counts = np.asarray(counts, np.int64)
        self._texts = texts
        self._meanings = meanings
        self._hashed = hashed
        self._meaning = meaning if len(meanings) else 0.0
        self._typical = typical
        self._table = _Table(self._words, hashed)
        self._lock = threading.Lock()
        self._known = np.log((texts + 1) / (self._counts + 0.5)).astype(np.float32)
        self._unknown = np.float32(np.log((texts + 1) / 0.5))

    @classmethod
    def untrained(cls, hashed: int = 512) -> StaticEmbedder:
        """Which words a text has, all of them equally rare, and nothing of what it is about."""
        return cls([], [], 1, np.zeros((0, 0), np.float32), hashed, 0.0)

    @classmethod
    def learn(cls, texts: Iterable[str], config: StaticConfig = StaticConfig()) -> StaticEmbedder:
        """A table from texts; some hundred of them say something, some thousand more."""
        table = _Table([], config.hashed, bounded=False)
        lines: list[Counts] = []
        sample: list[str] = []
        draw = random.Random(config.seed)
        for number, text in enumerate(texts):
            lines.append(np.array(table.features(text), np.int64))
            place = number if number < _SAMPLE else draw.randrange(number + 1)
            if place < _SAMPLE:
                sample[place : place + 1] = [text]
        found: Counter[int] = Counter()
        for line in lines:
            found.update(set(line.tolist()))
        names = table.words
        order = sorted(found, key=lambda feature: (-found[feature], names[feature]))[:_MOST_WORDS]
        size = min(config.vocabulary, len(order))
        rank = np.full(len(names) + 1, -1, np.int64)
        rank[order[:size]] = np.arange(size)
        meanings = _meanings([rank[line] for line in lines], size, config)
        kept = [names[feature] for feature in order]
        counts = [found[feature] for feature in order]
        made = cls(kept, counts, len(lines), meanings, config.hashed, config.meaning)
        with made._lock:
            held = made._words_of(sample)[3] if sample else np.zeros(1)
        made._typical = float(held.mean())
        return made

    @property
    def dimensions(self) -> int:
        return self._hashed + (self._meanings.shape[1] if self._meaning else 0)

    @property
    def name(self) -> str:
        """Of the table, by its content: for `LibraryConfig.embedder`."""
        parts = [f"{_FORMAT} {self._texts} {self._hashed} {self._meaning} {self._typical}", "\n".join(self._words)]
        data = "\n".join(parts).encode() + self._counts.tobytes() + self._meanings.tobytes()
        return f"static-{hash_bytes(data)[:16]}"

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """A vector for each text, of length 1 or less; 0 for a text without words."""
        return self.vectors(texts).tolist()

    def vectors(self, texts: Sequence[str]) -> Floats:
        """`embed` as an array."""
        result = np.zeros((len(texts), self.dimensions), np.float32)
        for start in range(0, len(texts), 64):
            with self._lock:  # the table grows
                result[start : start + 64] = self._some(texts[start : start + 64])
        return result

    def _some(self, texts: Sequence[str]) -> Floats:
        ids, worth, owner, held, words = self._words_of(texts)
        if self._meaning:
            meant = ids < len(self._meanings)
            about = np.zeros((len(texts), self._meanings.shape[1]), np.float32)
            if meant.any():
                starts = np.flatnonzero(np.diff(owner[meant], prepend=-1))
                sums = np.add.reduceat(self._meanings[ids[meant]] * worth[meant, None], starts, axis=0)
                about[owner[meant][starts]] = sums
            # Common words alone say little: the meaning counts by their share of the text's weight.
            every = np.maximum(np.bincount(owner, worth, len(texts)), 1e-9)
            share = np.bincount(owner[meant], worth[meant], len(texts)) / every
            about = unit(about) * share[:, None]
            words = unit(np.hstack([words * np.sqrt(1 - self._meaning), about * np.sqrt(self._meaning)]))
        if not self._typical:
            return words
        size = _SLOPE * held / ((1 - _SLOPE) * self._typical + _SLOPE * held)
        return (words * size[:, None]).astype(np.float32)

    def _words_of(self, texts: Sequence[str]) -> tuple[Counts, Floats, Counts, npt.NDArray[np.float64], Floats]:
        """(features, their weights, the text of each, how much each text holds, the hashed halves of length 1)."""
        features, weights, lengths = [], [], []
        for text in texts:
            counted = self._counted(text)
            ids = np.fromiter(counted.keys(), np.int64, len(counted))
            times = np.fromiter(counted.values(), np.float32, len(counted))
            features.append(ids)
            weights.append((1 + np.log(times)) * self._rarity(ids))
            lengths.append(len(ids))
        ids, worth = np.concatenate(features), np.concatenate(weights)
        owner = np.repeat(np.arange(len(texts)), lengths)
        places, signs = self._table.places(ids)
        flat = (owner[:, None] * self._hashed + places).ravel()
        size = len(texts) * self._hashed
        sums = np.bincount(flat, (worth[:, None] * signs).ravel(), size).reshape(len(texts), self._hashed)
        return ids, worth, owner, np.linalg.norm(sums, axis=1), unit(sums)

    def _counted(self, text: str) -> Counter[int]:
        """The features of a text and how often they stand in it; those of its title count for more."""
        title, newline, rest = text.partition("\n")
        if not newline:
            return Counter(self._table.features(text))
        counted = Counter(self._table.features(rest))
        for feature in self._table.features(title):
            counted[feature] += _TITLE
        return counted

    def _rarity(self, ids: Counts) -> Floats:
        result = np.full(len(ids), self._unknown, np.float32)
        known = ids < len(self._known)
        result[known] = self._known[ids[known]]
        return result

    def save(self, path: Path | str) -> None:
        """Writes the table into one file, atomically."""
        about = np.array([_FORMAT, self._texts, self._hashed], np.int64)
        with atomic_write(path) as file:
            np.savez(
                file, about=about, weights=np.array([self._meaning, self._typical]), counts=self._counts,
                meanings=self._meanings,
                words=np.frombuffer("\n".join(self._words).encode(), np.uint8),
            )  # fmt: skip

    @classmethod
    def load(cls, path: Path | str) -> StaticEmbedder:
        """Reads what `save` wrote.

        Raises:
            ArtifactError: there is no such file, or it is no table.
        """
        try:
            with Path(path).open("rb") as file, np.load(file, allow_pickle=False) as data:
                arrays: dict[str, Any] = {key: data[key] for key in ("about", "weights", "counts", "meanings", "words")}
                format, texts, hashed = arrays["about"].tolist()
                meaning, typical = arrays["weights"].tolist()
                text = arrays["words"].tobytes().decode()
                words = text.split("\n") if text else []
                if format != _FORMAT:
                    raise VersionError(f"{path} has the format {format}; this Puna reads {_FORMAT}.")
                if len(words) != len(arrays["counts"]):
                    raise ArtifactError(f"{path} has {len(words)} words and {len(arrays['counts'])} counts.")
        except FileNotFoundError as error:
            raise ArtifactError(f"There is no table of words at {path}.") from error
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, AttributeError) as error:
            raise ArtifactError(f"{path} is no table of words: {error}.", hint="Make it anew.") from error
        return cls(words, arrays["counts"], texts, arrays["meanings"], hashed, meaning, typical)


class _Table:
    """Words to features (numbers), and features to their places. It grows with what it meets, up to a limit."""

    _LIMIT = 1 << 20

    def __init__(self, words: Sequence[str], hashed: int, bounded: bool = True) -> None:
        self._bounded = bounded
        self.words = list(words)
        self._given = len(self.words)
        self._hashed = hashed
        self._features = {word: number for number, word in enumerate(self.words)}
        self._of_word: dict[str, tuple[int, ...]] = {}
        self._filled = 0  # features whose places are known
        self._places = np.zeros((0, _PLACES), np.int64)
        self._signs = np.zeros((0, _PLACES), np.float32)

    def features(self, text: str) -> list[int]:
        """The features of a text, in its order: each word, and after it its parts if it has several."""
        # A server must not grow with every new word it is asked for.
        if self._bounded and max(len(self.words) - self._given, len(self._of_word) - self._given) > self._LIMIT:
            for word in self.words[self._given :]:
                del self._features[word]
            del self.words[self._given :]
            self._of_word.clear()
            self._filled = min(self._filled, self._given)
        known = self._of_word
        result: list[int] = []
        for word in _WORD.findall(text):
            numbers = known.get(word)
            if numbers is None:
                numbers = known[word] = tuple(self._number(part) for part in split(word))
            result.extend(numbers)
        return result

    def _number(self, word: str) -> int:
        number = self._features.setdefault(word, len(self.words))
        if number == len(self.words):
            self.words.append(word)
        return number

    def places(self, ids: Counts) -> tuple[Counts, Floats]:
        """Where each feature lies in the hashed half, and with which sign."""
        new = self.words[self._filled :]
        if new:
            if len(self.words) > len(self._places):  # room for twice as many, or every new word would cost a copy
                room = 2 * len(self.words) - len(self._places)
                self._places = np.concatenate([self._places, np.zeros((room, _PLACES), np.int64)])
                self._signs = np.concatenate([self._signs, np.zeros((room, _PLACES), np.float32)])
            digests = [hashlib.blake2b(word.encode(errors="replace"), digest_size=3 * _PLACES).digest() for word in new]
            table = np.frombuffer(b"".join(digests), np.uint8).reshape(len(new), 3, _PLACES).astype(np.int64)
            self._places[self._filled : len(self.words)] = (table[:, 0] * 256 + table[:, 1]) % self._hashed
            self._signs[self._filled : len(self.words)] = (table[:, 2] & 1).astype(np.float32) * 2 - 1
            self._filled = len(self.words)
        return self._places[ids], self._signs[ids]


def split(word: str) -> list[str]:
    """A word in lower case, then its parts if it has several: "WriteTransport" has "write" and "transport"."""
    parts = [part.lower() for part in (_PART if word.isascii() else _PLAIN_PART).findall(word)]
    return [word.lower(), *parts] if len(parts) > 1 else [word.lower()]


def _meanings(lines: Sequence[Counts], size: int, config: StaticConfig) -> Floats:
    """A row for each of `size` words, from which words stand near which."""
    dimensions = min(config.dimensions, size)
    if not dimensions:
        return np.zeros((0, config.dimensions), np.float32)
    gap = np.full(config.window, -1, np.int64)  # between texts, where nothing is a neighbour
    flow = np.concatenate([part for line in lines for part in (line, gap)])
    near = np.zeros((size, size), np.float32)
    for distance in range(1, config.window + 1):
        left, right = flow[:-distance], flow[distance:]
        both = (left >= 0) & (right >= 0)
        near += np.bincount(left[both] * size + right[both], minlength=size * size).reshape(size, size)
    near += near.T.copy()
    often = near.sum(axis=1) + 1e-12
    smooth = often**_SMOOTHING
    with np.errstate(divide="ignore"):
        information = np.log(near * (smooth.sum() / (often[:, None] * smooth[None, :])))
    vectors = _factor(np.maximum(information, 0, out=information), dimensions, config.seed)
    share = often / often.sum()
    vectors -= (share[:, None] * vectors).sum(axis=0)  # what all have in common says nothing
    return np.pad(vectors, ((0, 0), (0, config.dimensions - dimensions))).astype(np.float32)


def _factor(matrix: Floats, dimensions: int, seed: int) -> Floats:
    """Truncated singular value decomposition by a randomised subspace: U times the root of S (Halko et al., 2011)."""
    normal = np.random.default_rng(seed)
    width = min(dimensions + 16, len(matrix))
    basis = normal.standard_normal((len(matrix), width)).astype(np.float32)
    for _ in range(4):
        basis, _ = np.linalg.qr(matrix @ (matrix.T @ basis))
    left, values, _ = np.linalg.svd(basis.T @ matrix, full_matrices=False)
    return (basis @ left)[:, :dimensions] * np.sqrt(values[:dimensions])
