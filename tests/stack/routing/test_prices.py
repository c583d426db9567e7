"""Prices: sums are exact and never fall with more tokens, the newest row counts, and doubtful rows say why."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.base.errors import ConfigError
from puna.core.completion import Usage
from puna.stack.routing.prices import PriceBook, PriceRow, Rates, built_in, dollars, read_prices, rented

TODAY = datetime.date(2026, 11, 24)
SOURCE = "https://example.org/prices"
prices = st.floats(0, 100, allow_nan=False).map(lambda x: round(x, 4))
tokens = st.integers(0, 2_000_000)


def row(provider: str = "a", model: str = "llama-70b", price: float = 1.0, **changes: object) -> PriceRow:
    settings: dict = {"url": SOURCE, "date": "2026-11-01", "context": 131_072} | changes
    return PriceRow(provider, model, price, price, **settings)


def test_a_request_costs_what_its_tokens_cost() -> None:
    rates = Rates(0.8, 2.4, 0.2)
    assert dollars(rates.cost(1_000_000, 1_000_000)) == pytest.approx(3.2)
    assert dollars(rates.cost(1_000_000, 0, cached=500_000)) == pytest.approx(0.5)
    assert rates.of(Usage(100, 10, cached_tokens=50)) == rates.cost(100, 10, 50)
    assert Rates(0.8, 2.4).cost(1000, 0, cached=1000) == Rates(0.8, 2.4).cost(1000, 0)


@given(prices, prices, st.none() | prices, tokens, tokens, tokens, tokens, st.integers(0, 1000))
def test_the_worst_is_never_exceeded(
    input: float,
    output: float,
    cached_input: float | None,
    prompt: int,
    answer: int,
    cached: int,
    more: int,
    extra: int,
) -> None:
    rates = Rates(input, output, cached_input)
    assert rates.cost(prompt, answer, cached) <= rates.worst(prompt + more, answer + extra)


def test_a_rented_machine_costs_its_hours() -> None:
    rates = rented(3.6, prefill_per_second=1000, decode_per_second=10)
    assert rates.output == pytest.approx(100)  # 0.001 $/s at 10 tokens/s
    assert rates.input == pytest.approx(1)
    with pytest.raises(ConfigError, match="above 0"):
        rented(1.0, 0, 1)


def test_the_newest_row_of_a_model_counts() -> None:
    book = PriceBook(
        [row(price=2.0, date="2026-10-01"), row(price=3.0, date="2026-11-01"), row(price=1.0, date="2025-01-01")]
    )
    (only,) = book.rows
    assert only.input == 3.0


def test_a_model_is_found_by_the_providers_name_and_by_the_common_one() -> None:
    book = PriceBook([row("Lambda", "llama-3.1-405b", id="llama3.1-405b-fp8"), row("x", "llama-3.1-8b")])
    assert book.find("lambda", "llama3.1-405b-fp8") is book.find("lambda", "LLAMA-3.1-405B")
    assert book.find("lambda", "llama-3.1-8b") is None
    assert [found.provider for found in book.of_model("405b")] == ["Lambda"]
    assert book.of_model("llama") == []  # two models have it in their names


def test_doubtful_rows_say_why() -> None:
    cheap = row("cheap", price=0.1)
    old = row("old", date="2026-01-01")
    short = row("short", context=4096)
    book = PriceBook([cheap, old, short, row("d"), row("e", doubt="a placeholder")], TODAY)
    assert "in the middle" in book.doubts(cheap)[0]
    assert "327 days ago" in book.doubts(old)[0]
    assert "4,096" in book.doubts(short)[0]
    assert book.doubts(book.rows[3]) == ()
    assert book.doubts(book.rows[4]) == ("a placeholder",)
    free = row("free", "llama-3.1-405b", price=0.0)
    assert "405 billion" in PriceBook([free], TODAY).doubts(free)[0]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('date = "yesterday"', "has the date 'yesterday'"),
        ("date = 2026-11-01\nurl = ''", "no source"),
        ("date = 2026-11-01\nprecison = 'fp8'", "precison"),
        ("date = 2026-11-01\ninput = -1.0", "below 0"),
    ],
)
def test_a_bad_row_is_refused(tmp_path: Path, line: str, message: str) -> None:
    fields = {"provider": "'a'", "model": "'m'", "input": "1.0", "output": "1.0", "url": "'https://x'"}
    given = dict(part.split(" = ", 1) for part in line.split("\n"))
    text = "\n".join(f"{key} = {value}" for key, value in (fields | given).items())
    (tmp_path / "prices.toml").write_text(f"format = 1\n[[prices]]\n{text}\n")
    with pytest.raises(ConfigError, match=message):
        read_prices(tmp_path / "prices.toml")


def test_the_built_in_file_has_a_source_and_a_date_for_every_row() -> None:
    book = built_in()
    assert len(book.of_model("llama-3.1-405b-instruct")) == 12
    assert all(found.url.startswith("https://") and found.date >= "2026" for found in book.rows)
    assert len(book.fingerprint) == 12
