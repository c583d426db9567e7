"""Llama 3's special tokens: their names, and which index means what.

Two tokenizers may call one id by two names (Meta's code and the released `tokenizer.json` differ for the reserved
ids), so the rest of the room knows special tokens by index alone. The names are data: `assets/special_tokens.toml`.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from puna.base.errors import ConfigError, near


@dataclass(frozen=True, slots=True)
class Roles:
    """Indices of the special tokens that have a meaning; an id is the number of byte-level tokens plus the index."""

    bos: int
    eos: int
    pad: int
    start_header: int
    end_header: int
    eom: int
    eot: int
    python_tag: int


def roles() -> Roles:
    return Roles(**_table()["roles"])


def special_count() -> int:
    """How many special tokens a Llama 3 tokenizer has: 256."""
    return _table()["count"]


def least_count() -> int:
    """The fewest special tokens that hold every role."""
    return max(_table()["roles"].values()) + 1


def special_tokens(base: int, count: int | None = None, names: str = "3.1") -> dict[str, int]:
    """The special tokens of a tokenizer that has `base` byte-level tokens, name to id in order of id.

    Args:
        base: the first special id.
        count: how many (Meta's `num_reserved_special_tokens`, which counts the named ones too); None for 256.
        names: "3.1" (also 3.2 and 3.3), "3.1-meta" or "3", the tables of `assets/special_tokens.toml`.

    Raises:
        ConfigError: an unknown table, or a count too small to hold the tokens that have a meaning.
    """
    tables = _table()["names"]
    if names not in tables:
        raise ConfigError(f"There is no table of special tokens {names!r}.", hint=near(names, tables))
    count = special_count() if count is None else count
    if count < least_count():
        raise ConfigError(
            f"num_reserved_special_tokens is {count}; the named special tokens alone need {least_count()}.",
            hint=f"Llama 3 has {special_count()}.",
        )
    named = {int(index): name for index, name in tables[names].items()}
    unnamed = [index for index in range(count) if index not in named]
    reserved = {index: _table()["reserved"].format(number) for number, index in enumerate(unnamed)}
    return {(named | reserved)[index]: base + index for index in range(count)}


@cache
def _table() -> dict[str, Any]:
    return tomllib.loads((resources.files("puna.tokenizer") / "assets/special_tokens.toml").read_text(encoding="utf-8"))
