"""Explanations without a server."""

from __future__ import annotations

import datetime

import pytest

from puna.base.errors import InputError
from puna.stack.routing.config import RouteConfig
from puna.stack.routing.explain import facts_of, judge, offers, with_cached
from puna.stack.routing.prices import PriceBook, PriceRow
from puna.stack.routing.wishes import read_wishes

ROWS = [
    PriceRow("a", "llama-70b", 1.0, 4.0, "https://x", "2026-11-01", cached_input=0.1, context=8192),
    PriceRow("b", "llama-70b", 2.0, 2.0, "https://x", "2026-11-01", context=8192, precision="fp8"),
]
BOOK = PriceBook(ROWS, datetime.date(2026, 11, 24))


def test_sizes_are_facts() -> None:
    facts = facts_of(1000, 100, 300, n=2, needs=["tools"])
    assert (facts.expected_output, facts.max_output, facts.longest, facts.needs) == (200, 600, 300, ("tools",))
    assert facts_of(10, 100).max_output == 100
    assert facts_of(10, 100, max_tokens=50).longest == 100  # as much as is expected


def test_the_price_file_alone_decides() -> None:
    decision = judge(facts_of(1000, 100), RouteConfig(), read_wishes(None), offers(BOOK, "70b"))
    assert [c.provider for c in decision.order] == ["a", "b"]
    decision = judge(facts_of(1000, 1000), RouteConfig(), read_wishes({"precision": "fp8"}), offers(BOOK, "70b"))
    assert [c.provider for c in decision.order] == ["b"]


def test_a_cached_part_is_counted() -> None:
    cached = offers(BOOK, "70b", cached=1000)
    assert cached == with_cached(offers(BOOK, "70b"), 1000)
    cheap, plain = cached[0].cost(facts_of(1000, 1)), offers(BOOK, "70b")[0].cost(facts_of(1000, 1))
    assert cheap is not None
    assert plain is not None
    assert plain - cheap == 900_000
    assert with_cached(cached, 0) == cached


def test_an_unknown_model_suggests_the_near_one() -> None:
    with pytest.raises(InputError, match="llama-70b"):
        offers(BOOK, "lama-8b")
