"""Numbered steps, and other numbered points, under a heading."""

from __future__ import annotations

from collections.abc import Iterator

from puna.core.document import Document
from puna.data.questions.fact import Fact, is_sentence
from puna.data.questions.prose import Place, askable, places
from puna.data.questions.sentence import first_sentence
from puna.data.questions.words import is_verb

_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
_FEWEST = 2


def find(document: Document) -> Iterator[Fact]:
    """Steps of a section's only list, of two items at least and ten at most."""
    section: list[Place] = []
    for place in [*places(document), None]:
        if place is not None and section and place.heading == section[0].heading:
            section.append(place)
            continue
        yield from _steps(document.text, section)
        section = [place] if place is not None else []


def _steps(text: str, section: list[Place]) -> Iterator[Fact]:
    steps = [place.block for place in section if place.block.kind == "step" and place.block.level == 0]
    if not section or not _FEWEST <= len(steps) <= len(_ORDINALS) or not askable(section[0].title):
        return
    marks = [text[max(step.start - 4, 0) : step.start] for step in steps]
    if [mark.strip(" \n\t.()#*") for mark in marks] != [str(i + 1) for i in range(len(steps))]:
        return  # several lists, or one that goes on from another section
    heading = section[0].heading
    assert heading is not None
    for number, step in enumerate(steps):
        span = first_sentence(text, step.start, step.end)
        if span is not None and is_sentence(text[span[0] : span[1]]):
            names = {"ordinal": _ORDINALS[number], "number": str(number + 1), "heading": f'"{section[0].title}"'}
            kind = "step" if is_verb(text[span[0] : span[1]].split()[0]) else "point"
            yield Fact(kind, names, *span, (heading.start, span[1]), f"steps of {section[0].title}")
