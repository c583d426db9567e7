"""A fact in a user's words.

The phrasings are data (`assets/questions.toml`). Which one a fact gets is drawn by a hash of the fact and the seed, so
that the same corpus gives the same questions and a new document changes no other's.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib import resources
from typing import TypeVar

import xxhash

from puna.data.questions.fact import Fact

T = TypeVar("T")


_CALLABLE = frozenset(("function", "method", "returns", "return_type", "parameters", "default", "parameter", "raises"))
CODE_KINDS = _CALLABLE | {"class", "base", "bases", "constant", "remark", "property"}  # their `name` is a code name


def draw(*key: object) -> float:
    """A number in [0, 1) that depends on the key alone."""
    return xxhash.xxh3_64_intdigest("\x1f".join(map(str, key)).encode()) / 2**64


def pick(options: Sequence[T], *key: object) -> T:
    return options[int(draw(*key) * len(options))]


@lru_cache(maxsize=1)
def phrasings() -> Mapping[str, Mapping[str, Sequence[str]]]:
    """Kind to its lists `ask` and `again`."""
    return tomllib.loads((resources.files("puna.data") / "assets/questions.toml").read_text(encoding="utf-8"))


def ask(fact: Fact, *key: object, again: bool = False) -> str:
    """The question.

    Args:
        fact: what is asked for.
        key: what the choice depends on, beside the fact itself: a seed, a document.
        again: the subject is clear from the question before.
    """
    forms = phrasings()[fact.kind]
    templates = forms.get("again", forms["ask"]) if again else forms["ask"]
    names = dict(fact.names)
    key = (*key, fact.kind, fact.start, again)
    if "name" in names and fact.kind in CODE_KINDS:
        names["name"] = _written(fact, *key)
    return pick(templates, *key, "phrasing").format(**names)


def _written(fact: Fact, *key: object) -> str:
    """A code name as one user or another writes it."""
    name, module = fact.names["name"], fact.names.get("module", "")
    chance = draw(*key, "name")
    if chance < 0.15:
        return f"`{name}`"
    if chance < 0.3 and fact.kind in _CALLABLE:
        return f"{name}()"
    if chance < 0.5 and module and module.count(".") < 2:
        return f"{module}.{name}"
    return name
