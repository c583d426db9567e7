"""What samples say of a model: 95 % intervals, and whether two models differ on the same questions.

Shares get Wilson's interval, which keeps its coverage near 0 and 1 and for few questions, where 1.96 standard errors
do not (Brown, Cai and DasGupta 2001); other means get a seeded bootstrap. Two models are compared on the pairs of their
answers, never on their means alone. Left out: corrections for many comparisons, which only their reader can count.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from puna.base.errors import InputError
from puna.core.verdict import Score

Z95 = 1.959963984540054  # the normal distribution's 97.5 % quantile
RESAMPLES = 10_000
_BLOCK_NUMBERS = 4 << 20  # resampled indices at a time


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two models on the same questions.

    Attributes:
        count: of questions.
        first, second: the models' means.
        difference: second minus first.
        low, high: the difference's 95 % interval, by a paired bootstrap.
        p_value: two-sided: McNemar's exact test where every score is 0 or 1, else of the paired bootstrap.
        test: which of the two.
        won, lost: questions on which the second model scores more, or less.
    """

    count: int
    first: float
    second: float
    difference: float
    low: float
    high: float
    p_value: float
    test: str
    won: int
    lost: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def wilson(successes: float, count: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927); (0, 1) where nothing was counted."""
    if count == 0:
        return 0.0, 1.0
    share, z2 = successes / count, Z95**2
    centre = (share + z2 / (2 * count)) / (1 + z2 / count)
    reach = Z95 / (1 + z2 / count) * math.sqrt(share * (1 - share) / count + z2 / (4 * count**2))
    return (0.0 if successes == 0 else centre - reach), (1.0 if successes == count else centre + reach)


def bootstrap(values: Sequence[float], seed: int = 0, resamples: int = RESAMPLES) -> tuple[float, float]:
    """The 95 % percentile interval of a mean."""
    means = np.sort(_resampled_means(np.asarray(values, dtype=np.float64), seed, resamples))
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def mean_score(name: str, values: Sequence[float], seed: int = 0) -> Score:
    """The mean with its 95 % interval: Wilson's where every value is 0 or 1, else of a bootstrap."""
    count = len(values)
    if count == 0:
        return Score(name, 0.0, 0, 0.0, 0.0)
    total = math.fsum(values)
    low, high = wilson(total, count) if _are_shares(values) else bootstrap(values, seed)
    return Score(name, total / count, count, low, high)


def mcnemar(won: int, lost: int) -> float:
    """The exact two-sided p-value: how likely so uneven a split of the disagreements is for two equal models.

    The tail is summed as whole numbers, so many questions cost no precision.
    """
    count = won + lost
    tail = term = 1
    for i in range(min(won, lost)):
        term = term * (count - i) // (i + 1)
        tail += term
    return min(1.0, 2 * math.exp(math.log(tail) - count * math.log(2)))


def compare(first: Sequence[float], second: Sequence[float], seed: int = 0) -> Comparison:
    """Compares scores of two models, in the order of the questions.

    Raises:
        InputError: not as many scores of one as of the other, or none.
    """
    if len(first) != len(second) or not first:
        raise InputError(
            f"There are {len(first)} scores to compare with {len(second)}; there must be as many, and at least one.",
            hint="Compare results of the same questions.",
        )
    differences = np.asarray(second, dtype=np.float64) - np.asarray(first, dtype=np.float64)
    won, lost = int((differences > 0).sum()), int((differences < 0).sum())
    means = _resampled_means(differences, seed, RESAMPLES)
    low, high = (float(bound) for bound in np.quantile(means, [0.025, 0.975]))
    if _are_shares(first) and _are_shares(second):
        test, p_value = "McNemar, exact", mcnemar(won, lost)
    else:
        test, p_value = "paired bootstrap", _bootstrap_p(means)
    one, two = math.fsum(first) / len(first), math.fsum(second) / len(second)
    return Comparison(len(first), one, two, float(differences.mean()), low, high, p_value, test, won, lost)


def _bootstrap_p(means: np.ndarray) -> float:
    """Twice the smaller share of resampled means on one side of 0; one is added, so that it is never 0."""
    least = min(int((means <= 0).sum()), int((means >= 0).sum()))
    return min(1.0, 2 * (least + 1) / (len(means) + 1))


def _resampled_means(values: np.ndarray, seed: int, resamples: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    block = max(1, _BLOCK_NUMBERS // len(values))
    parts = []
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        parts.append(values[generator.integers(0, len(values), (rows, len(values)))].mean(axis=1))
    return np.concatenate(parts)


def _are_shares(values: Sequence[float]) -> bool:
    return all(value in (0, 1) for value in values)
