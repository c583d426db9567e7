"""`Key: value` lines, where at least two stand together, and the front matter of Markdown files."""

from __future__ import annotations

import re
from collections.abc import Iterator

from puna.core.document import Document
from puna.data.questions.fact import Fact, is_answer
from puna.data.questions.prose import places
from puna.data.questions.words import is_no_key

_LINE = re.compile(r"^[ \t]*(?P<key>[A-Z][A-Za-z-]*(?: [A-Za-z-]+){0,2}) ?: +(?P<value>\S.*?)[ \t]*$")
_LONGEST_VALUE = 80


def find(document: Document) -> Iterator[Fact]:
    for place in places(document):
        if place.block.kind in ("other", "item", "paragraph"):
            yield from _lines(document.text, place.block.start, place.block.end)


def _lines(text: str, start: int, end: int) -> Iterator[Fact]:
    found = []
    at = start
    lines = text[start:end].split("\n")
    for line in lines:
        match = _LINE.match(line)
        if match and not is_no_key(match["key"]):
            found.append((match["key"], at + match.start("value"), at + match.end("value"), at))
        at += len(line) + 1
    if len(found) < 2 or len(found) < 0.8 * len(lines):
        return
    keys = [key.casefold() for key, *_ in found]
    for key, low, high, line_start in found:
        value = text[low:high]
        if keys.count(key.casefold()) == 1 and is_answer(value) and len(value) <= _LONGEST_VALUE:
            name = key.lower() if not key.isupper() else key
            yield Fact("value", {"name": name}, low, high, (line_start, high), f"values at {start}")
