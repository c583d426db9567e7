"""What docstrings say of parameters and results: Sphinx fields (`:param x: text`) and Google's sections."""

from __future__ import annotations

import re
from collections.abc import Iterator

from puna.core.document import Document
from puna.data.questions.docstrings import content
from puna.data.questions.fact import Fact, is_sentence
from puna.data.questions.sentence import first_sentence
from puna.data.questions.symbols import symbols
from puna.knowledge.structure import python

_FIELD = re.compile(
    r"^[ \t]*:(?:param|parameter|arg|argument|keyword)(?: [\w.\[\], |]+)? (?P<name>\*{0,2}\w+): *", re.M
)
_RESULT_FIELD = re.compile(r"^[ \t]*:returns?: *", re.M)
_SECTION = re.compile(r"^(?P<indent>[ \t]*)(?:(?:Keyword |Optional )?(?:[Aa]rg(?:ument)?s|[Pp]arameters)): *\n", re.M)
_RESULT_SECTION = re.compile(r"^[ \t]*(?:Returns|Yields): *\n[ \t]+(?:[\w\[\], .|]+: )?", re.M)
_ENTRY = re.compile(r"(?P<name>\*{0,2}\w+)(?: ?\([^()\n]*\))?(?:: +| +-{1,2} +)")


def find(document: Document) -> Iterator[Fact]:
    found = symbols(document)
    if found is None:
        return
    source, all_symbols = found
    module = python.module_name(document)
    for symbol in all_symbols:
        inside = content(source, symbol.node)
        if inside is None:
            continue
        text, (low, high) = source.text, inside
        names = {
            "name": symbol.owner or symbol.name if symbol.node.name == "__init__" else symbol.name,
            "module": module,
        }
        entries = [(found["name"], found.end()) for found in _FIELD.finditer(text, low, high)]
        for section in _SECTION.finditer(text, low, high):
            entries += _entries(text, section.end(), high, len(section["indent"]))
        for name, at in entries:
            if span := _description(text, at, high):
                slots = {**names, "parameter": name.lstrip("*")}
                yield Fact("parameter", slots, *span, (source.start(symbol.node), span[1]), symbol.name, symbol.private)
        for pattern in (_RESULT_FIELD, _RESULT_SECTION):
            result = pattern.search(text, low, high)
            if result and (span := _description(text, result.end(), high)):
                yield Fact("returns", names, *span, (source.start(symbol.node), span[1]), symbol.name, symbol.private)


def _entries(text: str, start: int, end: int, indent: int) -> Iterator[tuple[str, int]]:
    """(name, where its description begins) of the lines of a section that are indented least."""
    own = None
    at = start
    for line in text[start:end].split("\n"):
        depth = len(line) - len(line.lstrip())
        if line.strip():
            if depth <= indent:
                return
            own = depth if own is None else own
            entry = _ENTRY.match(line, depth) if depth == own else None
            if entry:
                yield entry["name"], at + entry.end()
        at += len(line) + 1


def _description(text: str, start: int, end: int) -> tuple[int, int] | None:
    """The sentence that begins at `start`; a line that the next one goes on with is no sentence."""
    stop = text.find("\n", start, end)
    line_end = end if stop < 0 else stop
    span = first_sentence(text, start, line_end)
    if span is None or not is_sentence(text[span[0] : span[1]]):
        return None
    following = text[line_end + 1 : end].split("\n", 1)[0] if stop >= 0 else ""
    goes_on = following.strip() and not re.match(r"\s*(?::|\*{0,2}\w+(?: ?\([^()]*\))?(?::| -))", following)
    return None if goes_on and text[span[1] - 1] not in ".!?" else span
