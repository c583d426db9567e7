"""The finders by name.

Another package adds one with an entry point in the group `puna.questions`: a callable from a document to facts whose
kinds are in `assets/questions.toml`.
"""

from __future__ import annotations

from functools import cache

from puna.base.registry import Registry
from puna.core.document import Document
from puna.data.questions import (
    commands,
    constants,
    definitions,
    docstrings,
    options,
    parameters,
    raises,
    sections,
    signatures,
    steps,
    tables,
    terms,
    values,
)
from puna.data.questions.fact import Fact, Finder

FINDERS: Registry[Finder] = Registry("question finder", "puna.questions")
for _module in (
    commands,
    constants,
    definitions,
    docstrings,
    options,
    parameters,
    raises,
    sections,
    signatures,
    steps,
    tables,
    terms,
    values,
):
    FINDERS.add(_module.__name__.rsplit(".", 1)[-1], _module.find)


@cache
def _finders() -> tuple[Finder, ...]:
    """All of them; looking through the installed packages takes longer than reading a document."""
    return tuple(FINDERS.get(name) for name in FINDERS)


def facts(document: Document) -> list[Fact]:
    """Everything the finders see in a document, by where the answers stand."""
    found = (fact for find in _finders() for fact in find(document))
    return sorted(found, key=lambda fact: (fact.start, fact.end, fact.kind))
