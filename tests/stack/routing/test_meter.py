"""Measurements: quantiles that were measured, and figures of the last requests alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.core.completion import Usage
from puna.stack.routing.meter import WINDOW, Measured, Meter, quantile


@given(st.lists(st.floats(-10, 10), min_size=1), st.floats(0.01, 0.99))
def test_a_quantile_is_the_least_value_that_covers_its_share(values: list[float], share: float) -> None:
    found = quantile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values) - 1e-9
    assert sum(value < found for value in values) < share * len(values) + 1e-9


def test_a_quantile_of_nothing_is_none() -> None:
    assert quantile([], 0.5) is None
    assert quantile([3.0], 0.9) == 3.0


def test_an_answer_tells_latency_speed_and_prefill() -> None:
    measured = Measured()
    measured.answered(0.5, 2.0, Usage(100, 21, cached_tokens=50))
    assert list(measured.latencies) == [0.5]
    assert list(measured.rates) == [10.0]
    assert list(measured.prefill) == [100.0]
    measured.answered(0.5, 2.0, Usage(100, 21, prefill_seconds=0.1, decode_seconds=1.0))  # the provider's own times
    assert measured.rates[-1] == 20.0
    assert measured.prefill[-1] == pytest.approx(1000.0)


def test_a_short_answer_says_nothing_about_the_speed() -> None:
    measured = Measured()
    measured.answered(0.5, 0.0, Usage(3, 2))
    assert not measured.rates
    assert not measured.prefill


def test_only_the_last_requests_count() -> None:
    measured = Measured()
    assert measured.failures == 0.0
    for _ in range(WINDOW):
        measured.failed()
    for _ in range(WINDOW // 2):
        measured.answered(0.1, 1.0, Usage(10, 10))
    assert measured.failures == 0.5


def test_the_usual_length_is_learnt() -> None:
    meter = Meter(100.0)
    meter.learn_length(0)
    assert meter.usual_output == 100.0
    for _ in range(200):
        meter.learn_length(20)
    assert meter.usual_output == pytest.approx(20, abs=1)
    assert meter.of("a/b") is meter.of("a/b")
