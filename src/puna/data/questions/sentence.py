"""Where the first sentence of a stretch of text ends.

Only sentences that end on the line they begin on are given, because an answer is one line.
"""

from __future__ import annotations

import re

_END = re.compile(r"[.!?。！？][\"')\]`*_”’]*(?=\s|$)|[。！？]")
_ABBREVIATIONS = frozenset(
    [
        "e.g",
        "i.e",
        "etc",
        "vs",
        "cf",
        "dr",
        "mr",
        "mrs",
        "ms",
        "st",
        "no",
        "fig",
        "approx",
        "resp",
        "al",
        "ca",
        "incl",
        "esp",
        "inc",
        "ltd",
        "eq",
        "sec",
        "ch",
        "vol",
        "pp",
        "ed",
        "est",
        "max",
        "min",
        "jan",
        "feb",
        "mar",
        "apr",
        "jun",
        "jul",
        "aug",
        "sep",
        "sept",
        "oct",
        "nov",
        "dec",
    ]
)
_MAY_END = frozenset(("etc", "inc", "ltd", "al"))  # abbreviations with which a sentence may end
_TOKEN = re.compile(r"([\w.]*\w)\.$")


def first_sentence(text: str, start: int, end: int) -> tuple[int, int] | None:
    """(start, end) of the sentence that `text[start:end]` opens with; None where it runs over a line's end.

    A line without a full stop counts as a sentence if nothing or a blank line follows it.
    """
    while start < end and text[start].isspace():
        start += 1
    if start >= end:
        return None
    newline = text.find("\n", start, end)
    stop = end if newline < 0 else newline
    for found in _END.finditer(text, start, stop):
        if _ends(text, start, found, stop):
            return start, found.end()
    line_end = start + len(text[start:stop].rstrip())
    following = text[stop:end].split("\n", 2)
    if newline < 0 or len(following) < 2 or not following[1].strip():
        return start, line_end
    return None


def _ends(text: str, start: int, found: re.Match[str], stop: int) -> bool:
    """Whether a full stop ends its sentence; most after an abbreviation, an initial or a number in a list do not."""
    if found[0][0] != ".":
        return True
    rest = text[found.end() : stop].lstrip()
    before = _TOKEN.search(text, start, found.start() + 1)
    word = before[1].casefold() if before else ""
    lower = rest[:1].islower()
    if word in _ABBREVIATIONS:
        return word in _MAY_END and not lower
    if text[max(start, found.start() - 2) : found.start()] == "..":
        return not lower
    if len(word) == 1 and before is not None:
        return not (before[1].isupper() and rest) and not (lower and rest)
    return not (lower and "." in word)
