from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.base.errors import InputError
from puna.core.verdict import Score
from puna.evals.statistics import bootstrap, compare, mcnemar, mean_score, wilson


@pytest.mark.parametrize(("successes", "count"), [(30, 100), (1, 2), (1, 1000), (999, 1000), (0, 10), (10, 10)])
def test_wilsons_bounds_are_the_shares_from_which_the_observed_one_is_1_96_standard_errors_away(
    successes: int, count: int
) -> None:
    observed = successes / count
    for bound in wilson(successes, count):
        if bound not in (0.0, 1.0):
            assert abs(observed - bound) == pytest.approx(1.959964 * math.sqrt(bound * (1 - bound) / count), rel=1e-6)
    low, high = wilson(successes, count)
    assert 0 <= low <= observed <= high <= 1
    assert (low == 0) == (successes == 0) and (high == 1) == (successes == count)


def test_wilsons_interval_covers_a_rare_share_about_19_times_in_20() -> None:
    draw = random.Random(0)
    covered = 0
    for _ in range(2000):
        low, high = wilson(sum(draw.random() < 0.05 for _ in range(60)), 60)
        covered += low <= 0.05 <= high
    assert 0.93 <= covered / 2000 <= 0.99


def test_the_bootstrap_comes_near_the_normal_interval_of_many_values() -> None:
    draw = random.Random(1)
    values = [draw.random() for _ in range(500)]
    mean = sum(values) / 500
    reach = 1.96 * math.sqrt(sum((v - mean) ** 2 for v in values) / 500 / 500)
    low, high = bootstrap(values, seed=3)
    assert (low, high) == (pytest.approx(mean - reach, abs=0.1 * reach), pytest.approx(mean + reach, abs=0.1 * reach))
    assert bootstrap(values, seed=3) == (low, high) != bootstrap(values, seed=4)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_the_interval_holds_the_mean_and_stays_within_0_and_1(values: list[float]) -> None:
    score = mean_score("f1", values)
    assert -1e-12 <= score.low <= 1 + 1e-12 and -1e-12 <= score.high <= 1 + 1e-12
    assert score.low <= score.high


def test_the_mean_of_nothing_is_marked_by_its_count() -> None:
    assert mean_score("exact", []) == Score("exact", 0.0, 0, 0.0, 0.0)


def test_shares_get_wilsons_interval_and_other_means_the_bootstrap() -> None:
    assert mean_score("a", [1.0] * 3 + [0.0] * 7).low == wilson(3, 10)[0]
    assert mean_score("a", [0.5] * 10) == Score("a", 0.5, 10, 0.5, 0.5)


@pytest.mark.parametrize(
    ("won", "lost", "p"), [(0, 0, 1.0), (5, 5, 1.0), (6, 0, 2 / 64), (1, 9, 22 / 1024), (9, 1, 22 / 1024)]
)
def test_mcnemars_exact_test(won: int, lost: int, p: float) -> None:
    assert mcnemar(won, lost) == pytest.approx(p)


def test_mcnemars_test_of_very_many_questions_is_a_number() -> None:
    assert mcnemar(3000, 3000) == 1.0
    assert 0 < mcnemar(3000, 3200) < 0.05
    assert mcnemar(900, 99) < mcnemar(899, 102) < 1e-100


def test_two_models_are_compared_by_their_pairs() -> None:
    first = [1.0] * 40 + [0.0] * 60
    better = [1.0] * 60 + [0.0] * 40
    found = compare(first, better)
    assert (found.test, found.won, found.lost) == ("McNemar, exact", 20, 0)
    assert found.difference == pytest.approx(0.2) and found.low > 0.1 and found.p_value == pytest.approx(2 / 2**20)
    shuffled = compare(first, better[::-1])
    assert shuffled.difference == pytest.approx(0.2), "the means are the same; the pairs are not"
    assert shuffled.p_value > found.p_value


def test_scores_that_are_no_shares_are_compared_by_the_bootstrap() -> None:
    draw = random.Random(2)
    first = [draw.random() for _ in range(200)]
    assert compare(first, [v * 0.9 for v in first]).p_value < 0.001
    other = [v + draw.gauss(0, 0.3) for v in first]
    same = compare(first, other)
    assert same.test == "paired bootstrap" and same.low < 0 < same.high and same.p_value > 0.05


def test_unequal_numbers_of_scores_are_refused() -> None:
    with pytest.raises(InputError, match="2 scores to compare with 1"):
        compare([1.0, 0.0], [1.0])
    with pytest.raises(InputError, match="at least one"):
        compare([], [])
