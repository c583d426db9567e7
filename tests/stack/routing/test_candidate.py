"""Candidates: what a request costs at each, and how long it takes."""

from __future__ import annotations

import pytest

from puna.base.config import from_dict, to_dict
from puna.stack.routing.candidate import Candidate
from puna.stack.routing.facts import Facts

FACTS = Facts(1000, 1200, 100, 400, 400)


def test_the_cached_part_costs_less_and_the_worst_does_not_count_on_it() -> None:
    candidate = Candidate("p", "m", input=1.0, output=2.0, cached_input=0.1, cached_tokens=900)
    assert candidate.cost(FACTS) == 100_000 + 90_000 + 200_000
    assert candidate.most(FACTS) == 1_200_000 + 800_000 + 1


def test_who_says_no_price_has_none() -> None:
    assert Candidate("p", "m").cost(FACTS) is None
    assert Candidate("p", "m", input=1.0).most(FACTS) is None
    assert Candidate("p", "m", input=0.0, output=0.0).cost(FACTS) == 0


def test_failures_cost_time() -> None:
    candidate = Candidate("p", "m", latency_p50=1.0, throughput_p50=50.0)
    assert candidate.seconds(FACTS) == pytest.approx(3.0)
    assert Candidate("p", "m", latency_p50=1.0, throughput_p50=50.0, failures=0.5).seconds(FACTS) == pytest.approx(6.0)
    assert Candidate("p", "m", latency_p50=1.0).seconds(FACTS) is None


def test_a_candidate_survives_json() -> None:
    candidate = Candidate("p", "m", local=True, input=1.0, output=2.0, features=("tools",), trains=False)
    assert from_dict(Candidate, to_dict(candidate)) == candidate
    assert candidate.key == "p/m"
