"""Passages: a document cut where its author would cut it, into pieces that fit a prompt.

A document is first seen as a tree (`structure/tree.py`): a module's classes and functions, a book's sections and
paragraphs. Neighbours under one parent are joined while they fit; a part that is too long by itself is cut into its
own parts, down to lines, and through a line only where the line alone is too long. Passages cover the document and do
not overlap unless that is asked for; an offset in a passage is an offset in the document.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from puna.base.errors import ConfigError
from puna.core.document import Document
from puna.knowledge.structure.tree import Unit, tree


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of a document.

    Attributes:
        document_id: the document it was cut from.
        source: that document's source.
        start: first character, counted in the document's text.
        end: one past the last.
        heading: where it stands, from the outside in: "class Path > def exists", "Install > Linux". "" at the top.
        text: `document.text[start:end]`.
    """

    document_id: str
    source: str
    start: int
    end: int
    heading: str
    text: str


def chunk(document: Document, max_chars: int, overlap_chars: int = 0) -> list[Passage]:
    """The document's passages in order, each of at most `max_chars` characters.

    Args:
        document: what to cut.
        max_chars: the length of a passage, at most.
        overlap_chars: how much of the text before it a passage repeats, at most; it begins after a line or a blank.

    Raises:
        ConfigError: `max_chars` is below 1, or the overlap is negative or more than half of it.
    """
    if max_chars < 1:
        raise ConfigError(f"A passage of at most {max_chars} characters is asked for; it must be at least 1.")
    if not 0 <= overlap_chars <= max_chars / 2:
        raise ConfigError(f"An overlap of {overlap_chars} is asked for; it must be between 0 and half of {max_chars}.")
    passages: list[Passage] = []
    for own, end, path in _pack(tree(document), max_chars - overlap_chars, document.text, ()):
        start = _earlier(document.text, own, overlap_chars) if overlap_chars else own
        heading = " > ".join(path)
        passages.append(Passage(document.id, document.source, start, end, heading, document.text[start:end]))
    return passages


def _earlier(text: str, start: int, most: int) -> int:
    """Where a passage begins that repeats up to `most` characters: after a newline, else a blank, else right there."""
    first = max(0, start - most)
    if first == 0 or text[first - 1] == "\n":
        return first
    for mark in ("\n", " "):
        if (cut := text.find(mark, first, start) + 1) and cut < start:
            return cut
    return first


def titles(document: Document) -> list[tuple[int, str]]:
    """What the document defines or is headed by, as (first character, title) in order: each function, each section.

    A passage that joins several small ones has none of them in its heading; an index wants them all.
    """

    def walk(unit: Unit) -> Iterator[tuple[int, str]]:
        if unit.title:
            yield unit.start, unit.title
        for child in unit.children:
            yield from walk(child)

    return sorted(walk(tree(document)))


def titled(document: Document, passages: Sequence[Passage]) -> list[str]:
    """For each passage its heading and the titles of whatever it holds that has one, for a search by words."""
    places = titles(document)
    inside = [[title for start, title in places if p.start <= start < p.end] for p in passages]
    return [" ".join([passage.heading, *found]) for passage, found in zip(passages, inside, strict=True)]


Piece = tuple[int, int, tuple[str, ...]]


def _pack(unit: Unit, limit: int, text: str, path: tuple[str, ...]) -> Iterator[Piece]:
    """Pieces that tile `unit`."""
    inner = (*path, unit.title) if unit.title else path
    if not len(unit):
        return
    if len(unit) <= limit:
        yield unit.start, unit.end, inner
        return
    if not unit.children:
        yield from ((start, end, inner) for start, end in _lines(text, unit.start, unit.end, limit))
        return
    group: list[Unit] = []
    for child in unit.children:
        if group and child.end - group[0].start > limit:
            yield _joined(group, inner)
            group = []
        if len(child) > limit:
            yield from _pack(child, limit, text, inner)
        elif len(child):
            group.append(child)
    if group:
        yield _joined(group, inner)


def _joined(group: Sequence[Unit], path: tuple[str, ...]) -> Piece:
    if len(group) == 1 and group[0].title:
        path = (*path, group[0].title)
    return group[0].start, group[-1].end, path


def _lines(text: str, start: int, end: int, limit: int) -> Iterator[tuple[int, int]]:
    """Cuts after the last newline that fits; in a line that is too long after a sentence, a word, or at the limit."""
    while end - start > limit:
        stop = start + limit
        newline = text.rfind("\n", start, stop) + 1
        sentence = max(text.rfind(mark, start + limit // 2, stop) + 2 for mark in (". ", "? ", "! "))
        word = text.rfind(" ", start + limit // 2, stop) + 1
        cut = next((cut for cut in (newline, min(sentence, stop), word) if cut > start), stop)
        yield start, cut
        start = cut
    if start < end:
        yield start, end
