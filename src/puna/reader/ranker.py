"""Which candidate answers a question: a bilinear score, fitted on questions whose answers are known.

A question's grams g and a candidate's signs s are sets; the score is the sum of W[g, s] over all pairs, each gram
weighing 1/sqrt of their number. So "default of" learns to ask for "role:value" and "key:hit" without anybody saying
so. "It is not in the text" is one candidate more, with signs of its own. Softmax regression with AdaGrad in numpy fits
W in seconds; a network is left out, because there is little more to learn from questions made by rules.

Shapes: C candidates, K signs of a candidate, S known signs, G known grams.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from puna.base.errors import ArtifactError
from puna.base.files import read_json, write_json
from puna.knowledge.chunk import Passage
from puna.reader.evidence import Query, look, read_question, signs

_VOCABULARY, _WEIGHTS = "ranker.json", "ranker.npy"
_BIAS = "<any>"
Ids = NDArray[np.int32]
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Example:
    """A question with its answer.

    Attributes:
        question: the user's words.
        earlier: the user's question before it, "" for none.
        passages: what it is asked of, best first.
        place: which passage answers, and (start, end) in its document; None where none does.
    """

    question: str
    earlier: str
    passages: tuple[Passage, ...]
    place: tuple[int, int, int] | None


@dataclass(frozen=True, slots=True)
class RankerConfig:
    """How the ranker is fitted.

    Attributes:
        examples: questions that are learnt from, at most.
        epochs: how often each is looked at.
        lr: AdaGrad's step.
        l2: pull of the weights towards 0, for each example.
        least: a gram or a sign that fewer examples have is not learnt.
        seed: of the order.
    """

    examples: int = 3000
    epochs: int = 6
    lr: float = 0.1
    l2: float = 1e-6
    least: int = 4
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Ranked:
    """One possible answer.

    Attributes:
        passage: number of the passage that it stands in; -1 for "it is not in the text".
        start: first character, in the passage.
        end: one past the last.
        score: the higher, the better.
        probability: of it among all candidates.
    """

    passage: int
    start: int
    end: int
    score: float
    probability: float


class Ranker:
    """Scores candidates.

    Args:
        grams: known grams and their rows; `_BIAS` is one that every question has.
        known: known signs and their columns.
        weights_GS: the score of each pair.
    """

    def __init__(self, grams: Mapping[str, int], known: Mapping[str, int], weights_GS: Floats) -> None:
        self.grams, self.known = dict(grams), dict(known)
        # One column more, of zeros, for signs that are not known.
        self.weights = np.concatenate([weights_GS, np.zeros((len(weights_GS), 1), np.float32)], axis=1)

    def rank(self, question: str, passages: Sequence[Passage], earlier: str = "") -> list[Ranked]:
        """Every candidate of the passages and "it is not in the text", best first."""
        query = read_question(question, earlier)
        places, signs_CK = _table(query, passages, lambda sign: self.known.get(sign, len(self.known)))
        rows, shares = self._rows(query)
        weights_S = shares @ self.weights[rows]
        scores_C = weights_S[signs_CK].sum(1)
        odds_C = np.exp(scores_C - scores_C.max())
        odds_C /= odds_C.sum()
        order = np.argsort(-scores_C, kind="stable")
        return [Ranked(*places[int(i)], score=float(scores_C[i]), probability=float(odds_C[i])) for i in order]

    def _rows(self, query: Query) -> tuple[Ids, Floats]:
        rows = [self.grams[_BIAS], *(self.grams[gram] for gram in query.grams if gram in self.grams)]
        return np.asarray(rows, np.int32), _shares(len(rows))

    def save(self, folder: Path) -> None:
        write_json(folder / _VOCABULARY, {"grams": list(self.grams), "signs": list(self.known)})
        np.save(folder / _WEIGHTS, self.weights[:, :-1].astype(np.float16))

    @classmethod
    def load(cls, folder: Path) -> Ranker:
        """Raises ArtifactError where the folder has no ranker, or a damaged one."""
        try:
            words = read_json(folder / _VOCABULARY)
            weights_GS = np.load(folder / _WEIGHTS, allow_pickle=False).astype(np.float32)
            grams, known = ({name: i for i, name in enumerate(words[key])} for key in ("grams", "signs"))
            if weights_GS.shape != (len(grams), len(known)) or _BIAS not in grams:
                raise ValueError(f"its weights are {weights_GS.shape}, for {len(grams)} grams and {len(known)} signs")
        except (OSError, ValueError, KeyError, TypeError, json.JSONDecodeError) as error:
            raise ArtifactError(f"There is no ranker in {folder}: {error}.", hint="Run puna raise again.") from error
        return cls(grams, known, weights_GS)


def _shares(count: int) -> Floats:
    """The weight of each gram: the first, which every question has, 1, and the others 1/sqrt of their number."""
    shares = np.full(count, max(1, count - 1) ** -0.5, np.float32)
    shares[0] = 1.0
    return shares


def _table(
    query: Query, passages: Sequence[Passage], number: Callable[[str], int]
) -> tuple[list[tuple[int, int, int]], Ids]:
    """(passage, start, end) of every candidate, and the numbers of its signs; "not in the text" comes last."""
    places: list[tuple[int, int, int]] = []
    rows: list[list[int]] = []
    absences: list[list[str]] = []
    for rank, passage in enumerate(passages):
        every, absent = signs(query, passage, rank, len(passages))
        places += [(rank, candidate.start, candidate.end) for candidate in look(passage).found]
        rows += [[number(sign) for sign in own] for own in every]
        absences.append(absent)
    places.append((-1, 0, 0))
    rows.append([number(sign) for sign in _absence(absences)])
    width, none = max(map(len, rows)), number("")
    table = np.full((len(rows), width), none, np.int32)
    for row, ids in zip(table, rows, strict=True):
        row[: len(ids)] = ids
    return places, table


def _absence(absences: Sequence[Sequence[str]]) -> list[str]:
    """The signs that nothing answers, of all passages together: each once."""
    return list(dict.fromkeys(sign for absent in absences for sign in absent)) or ["absent", "absent passages"]


# Fitting --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Prepared:
    """An example as numbers: its grams, its candidates' signs, which one is right, and which are left out."""

    grams: Ids
    signs_CK: Ids
    right: int
    kept_C: NDArray[np.bool_]


class _Numbers(dict[str, int]):
    """Numbers texts as they come; the empty text is 0."""

    def __init__(self) -> None:
        super().__init__({"": 0})

    def __missing__(self, text: str) -> int:
        self[text] = len(self)
        return len(self) - 1


def fit(
    examples: Sequence[Example], config: RankerConfig, advance: Callable[[int], object] = lambda _: None
) -> Ranker | None:
    """Fits a ranker; None where no example has its answer among its candidates.

    Args:
        examples: questions with answers.
        config: how.
        advance: told of each example that has been read.
    """
    order = np.random.default_rng(config.seed)
    chosen = order.permutation(len(examples))[: config.examples]
    grams, known = _Numbers(), _Numbers()
    prepared = []
    for i in chosen:
        ready = _prepare(examples[i], grams, known)
        if ready is not None:
            prepared.append(ready)
        advance(1)
    if not prepared:
        return None
    gram_rows, prepared = _common(prepared, grams, known, config.least)
    weights = _descend(prepared, len(gram_rows[0]), len(gram_rows[1]), config, order)
    return Ranker(
        {name: i for i, name in enumerate(gram_rows[0])}, {name: i for i, name in enumerate(gram_rows[1])}, weights
    )


def _prepare(example: Example, grams: _Numbers, known: _Numbers) -> _Prepared | None:
    """None where the answer is not among the candidates."""
    query = read_question(example.question, example.earlier)
    places, signs_CK = _table(query, example.passages, known.__getitem__)
    kept_C = np.ones(len(places), np.bool_)
    right = len(places) - 1
    if example.place is not None:
        rank, start, end = example.place
        text, first = example.passages[rank].text, example.passages[rank].start
        place = (rank, start - first, end - first)
        if place not in places:
            return None
        right = places.index(place)
        answer = text[place[1] : place[2]]
        for i, (number, low, high) in enumerate(places[:-1]):
            # The same words elsewhere are no mistake worth learning from.
            kept_C[i] = i == right or example.passages[number].text[low:high] != answer
    return _Prepared(np.asarray([grams[gram] for gram in query.grams], np.int32), signs_CK, right, kept_C)


def _common(
    prepared: Sequence[_Prepared], grams: _Numbers, known: _Numbers, least: int
) -> tuple[tuple[list[str], list[str]], list[_Prepared]]:
    """The examples in the numbers of the grams and signs that are frequent enough; the others are dropped."""
    gram_counts: Counter[int] = Counter()
    sign_counts = np.zeros(len(known), np.int64)
    for ready in prepared:
        gram_counts.update(ready.grams.tolist())
        sign_counts[np.unique(ready.signs_CK)] += 1
    gram_names, sign_names = list(grams), list(known)
    kept_grams = [i for i in range(1, len(grams)) if gram_counts[i] >= least]
    kept_signs = [i for i in range(1, len(known)) if sign_counts[i] >= least]
    gram_map = {old: new for new, old in enumerate(kept_grams, 1)}
    sign_map = np.full(len(known), len(kept_signs), np.int32)
    sign_map[kept_signs] = np.arange(len(kept_signs), dtype=np.int32)
    renumbered = [
        _Prepared(
            np.asarray([0, *(gram_map[g] for g in ready.grams.tolist() if g in gram_map)], np.int32),
            sign_map[ready.signs_CK],
            ready.right,
            ready.kept_C,
        )
        for ready in prepared
    ]
    return ([_BIAS, *(gram_names[i] for i in kept_grams)], [sign_names[i] for i in kept_signs]), renumbered


def _descend(
    prepared: Sequence[_Prepared], grams: int, known: int, config: RankerConfig, order: np.random.Generator
) -> Floats:
    """AdaGrad on the log-probability of the right candidate, one example at a time; (G, S)."""
    weights = np.zeros((grams, known + 1), np.float32)
    squares = np.full((grams, known + 1), 1e-4, np.float32)
    for epoch in range(config.epochs):
        lr = config.lr * (1 - epoch / config.epochs)
        for i in order.permutation(len(prepared)):
            ready = prepared[i]
            shares = _shares(len(ready.grams))
            rows_S = shares @ weights[ready.grams]
            scores_C = np.where(ready.kept_C, rows_S[ready.signs_CK].sum(1), -np.inf)
            odds_C = np.exp(scores_C - scores_C.max())
            odds_C /= odds_C.sum()
            odds_C[ready.right] -= 1
            pull_S = np.bincount(
                ready.signs_CK.ravel(), np.repeat(odds_C, ready.signs_CK.shape[1]), minlength=known + 1
            ).astype(np.float32)
            touched = np.flatnonzero(pull_S)
            touched = touched[touched < known]
            cells = np.ix_(ready.grams, touched)
            pull = np.outer(shares, pull_S[touched]) + config.l2 * weights[cells]
            squares[cells] += pull * pull
            weights[cells] -= lr * pull / np.sqrt(squares[cells])
    return weights[:, :known]
