"""What tokens cost: a dated file with a source for every row, and doubts about the rows that deserve them.

Money is counted in whole nanodollars, rounded up for each kind of token, so that a bill for fewer tokens is never the
larger one and sums are exact. Tables of prices hold placeholders and stale rows, and a router that picks the cheapest
picks exactly those; so each row is held against its age, its model's other rows and plain sense.

Left out: tiers by prompt length, off-peak hours, and the fee for writing into a provider's cache.
"""

from __future__ import annotations

import datetime
import math
import re
import statistics
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from puna.base.config import from_dict, read_toml, require
from puna.base.errors import ConfigError
from puna.base.files import hash_json
from puna.core.completion import Usage

NANO = 1_000_000_000  # nanodollars in a dollar
STALE_DAYS = 180
_FAR_BELOW = 0.25  # of the median of the model's rows
_SHORT_CONTEXT = 8192
_BILLIONS = re.compile(r"(\d+(?:\.\d+)?)b\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Rates:
    """Dollars for a million tokens; `cached_input` None where cached tokens cost as much as others."""

    input: float
    output: float
    cached_input: float | None = None

    def cost(self, prompt: int, output: int, cached: int = 0) -> int:
        """Nanodollars for so many tokens, the cached part of the prompt at its own price."""
        cached = min(cached, prompt)
        rate = self.input if self.cached_input is None else self.cached_input
        return _nano(prompt - cached, self.input) + _nano(cached, rate) + _nano(output, self.output)

    def worst(self, prompt: int, output: int) -> int:
        """The most that so many tokens can cost, whatever part of them was cached."""
        rate = max(self.input, self.cached_input or 0.0)
        # Two roundings up in place of one: what `cost` splits, it rounds twice.
        return _nano(prompt, rate) + _nano(output, self.output) + (0 if self.cached_input is None else 1)

    def of(self, usage: Usage) -> int:
        return self.cost(usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens)


def _nano(tokens: int, per_million: float) -> int:
    return math.ceil(round(tokens * per_million * (NANO / 1_000_000), 6))


def dollars(nano: int) -> float:
    return nano / NANO


def rented(per_hour: float, prefill_per_second: float, decode_per_second: float) -> Rates:
    """The rates of a machine that costs so much an hour and handles so many tokens a second."""
    require(per_hour >= 0, f"per_hour is {per_hour}, and must be at least 0.")
    require(min(prefill_per_second, decode_per_second) > 0, "Tokens a second must be above 0.")
    second = per_hour / 3600 * 1e6
    return Rates(second / prefill_per_second, second / decode_per_second)


@dataclass(frozen=True, slots=True)
class PriceRow:
    """A provider's offer of a model; the fields are explained at the top of prices.toml."""

    provider: str
    model: str
    input: float
    output: float
    url: str
    date: str
    id: str = ""
    cached_input: float | None = None
    context: int = 0
    max_output: int = 0
    precision: str = ""
    features: tuple[str, ...] = ()
    trains: bool | None = None
    retains: bool | None = None
    region: str = ""
    policy_url: str = ""
    doubt: str = ""

    def __post_init__(self) -> None:
        require(self.input >= 0 and self.output >= 0, f"{self.provider}/{self.model} has a price below 0.")
        require(bool(self.url), f"{self.provider}/{self.model} has no source (url).")
        try:
            datetime.date.fromisoformat(self.date)
        except ValueError:
            raise ConfigError(
                f"{self.provider}/{self.model} has the date {self.date!r}.", hint="Write 2026-11-23."
            ) from None

    @property
    def rates(self) -> Rates:
        return Rates(self.input, self.output, self.cached_input)


class PriceBook:
    """The rows of a price file.

    Args:
        rows: where a provider and model occur twice, the newer row counts.
        today: against which ages are counted; the day of asking where None.
    """

    def __init__(self, rows: Iterable[PriceRow], today: datetime.date | None = None) -> None:
        newest: dict[tuple[str, str], PriceRow] = {}
        for row in rows:
            known = newest.get((row.provider, row.id or row.model))
            if known is None or row.date >= known.date:
                newest[row.provider, row.id or row.model] = row
        self.rows: Sequence[PriceRow] = tuple(newest.values())
        self._today = today

    def find(self, provider: str, model: str) -> PriceRow | None:
        """The row of a provider for its own or the common name of a model."""
        same = [row for row in self.rows if row.provider.lower() == provider.lower()]
        for names in (lambda row: row.id, lambda row: row.model):
            for row in same:
                if names(row).lower() == model.lower():
                    return row
        return None

    def of_model(self, model: str) -> Sequence[PriceRow]:
        """All rows of a model by its common name, or by the part of it that nobody else has."""
        exact = [row for row in self.rows if row.model.lower() == model.lower()]
        if exact:
            return exact
        names = {row.model for row in self.rows if model.lower() in row.model.lower()}
        return [row for row in self.rows if row.model in names] if len(names) == 1 else []

    def models(self) -> list[str]:
        return sorted({row.model for row in self.rows})

    def doubts(self, row: PriceRow) -> tuple[str, ...]:
        """Why a row should not be believed without a look."""
        found = [row.doubt] if row.doubt else []
        age = ((self._today or datetime.date.today()) - datetime.date.fromisoformat(row.date)).days
        if age > STALE_DAYS:
            found.append(f"the price was read {age} days ago")
        others = [other.input + other.output for other in self.rows if other.model == row.model]
        if len(others) >= 4 and row.input + row.output < _FAR_BELOW * (middle := statistics.median(others)):
            found.append(f"in and out cost ${row.input + row.output:g}, and ${middle:g} in the middle of all")
        if 0 < row.context < _SHORT_CONTEXT and any(
            other.context >= 4 * row.context for other in self.rows if other.model == row.model
        ):
            found.append(f"a context of {row.context:,} tokens, where others have far more")
        size = _BILLIONS.search(row.model)
        if size and float(size[1]) >= 100 and not row.input + row.output:
            found.append(f"a model of {size[1]} billion parameters for nothing")
        return tuple(found)

    @property
    def fingerprint(self) -> str:
        """Names the content of the file, for records of decisions."""
        return hash_json([[getattr(row, name) for name in PriceRow.__slots__] for row in self.rows])[:12]


def read_prices(path: Path | str, today: datetime.date | None = None) -> PriceBook:
    """Reads a price file.

    Raises:
        ConfigError: a row without a source or a date, an unknown field, or a price below 0.
    """
    return _book(read_toml(path), str(path), today)


@cache
def built_in() -> PriceBook:
    """The price file that comes with Puna."""
    text = resources.files("puna.stack").joinpath("assets", "prices.toml").read_text(encoding="utf-8")
    return _book(tomllib.loads(text), "prices.toml", None)


def _book(data: dict[str, Any], at: str, today: datetime.date | None) -> PriceBook:
    require(data.get("format") == 1, f"{at} has format {data.get('format')!r}; this Puna reads 1.")
    rows = []
    for number, row in enumerate(data.get("prices", ())):
        row = {**row, "date": str(row.get("date", ""))}
        rows.append(from_dict(PriceRow, row, f"{at}: prices[{number}]"))
    return PriceBook(rows, today)
