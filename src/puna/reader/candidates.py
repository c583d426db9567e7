"""The pieces of a passage that could be an answer, and what stands around each of them.

An answer is quoted, so everything that a reader may say is listed here first: sentences, what stands in brackets,
values, names, comments, cells of tables, whole lines. The list is made from the shape of the text alone and knows no
notation by name: Python, Markdown and a letter go the same way. Nothing is chosen here; `evidence` and `ranker` do.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from puna.data.questions.sentence import first_sentence

LONGEST = 400  # characters of an answer

_LEAD = re.compile(
    r"(?P<mark>(?:[-*+•]\s+|\(?\d{1,2}[.)]\s+|#+[:!]?\s*|>+\s*|//+\s*|\.\.\s+|[QA][.:)]\s+)*)"
    r"(?P<quote>[rRuUbBfF]{0,2}(?:\"\"\"|'''|[\"']))?\s*"
)
_CLOSING = re.compile(r"\s*(?:\"\"\"|''')?\s*$")
_NAMED = re.compile(r"\b(?P<word>def|class|raise|import|from|function|struct|interface|enum|type)\s+(?P<name>[\w.]+)")
_VALUE = re.compile(
    r"(?P<key>\*{0,2}\w[\w.]*)[\"']?\]?\s*(?::\s*(?P<type>[^=,()#]{1,60}?)\s*)?(?<![=!<>+*/%&|^-])=(?!=)\s*"
)
_RESULT = re.compile(r"->\s*(?P<type>[^:]+?)\s*(?::|$)")
_AFTER = re.compile(
    r"(?P<key>:?[^\s:][^:\n]{0,60}?)(?P<gap>:{1,2}(?:\*\*|``?)?\s+|\s+(?:--|—|–|-|=>)\s+|\t+| {2,})(?=\S)"
)
_QUOTED = re.compile(
    r"``(?P<a>[^`\n]+)``|`(?P<b>[^`\n]+)`|\"(?P<c>[^\"\n]{2,})\"|'(?P<d>[^'\n]{2,})'|\*\*(?P<e>[^*\n]+)\*\*"
)
_COMMENT = re.compile(r"(?<=\s)#+:?[ \t]*(?P<text>[^\s#].*)$|(?<=\s)//[ \t]*(?P<slashes>\S.*)$")
_SELF = re.compile(r"(?:self|cls|mcs|mcls|metacls)\s*(?:,\s*(?:/\s*(?:,\s*)?)?|$)")
_KEYWORD = re.compile(r",\s*\w+\s*=")
_PROMPT = re.compile(r"(?:\$|>>>|%|>)\s+")
_PAIRS = {"(": ")", "[": "]", "{": "}"}


@dataclass(frozen=True, slots=True)
class Candidate:
    """`text[start:end]` of a passage.

    Attributes:
        start: first character, in the passage.
        end: one past the last.
        roles: what it looks like, such as "sentence" or "value"; several where it was found in several ways.
        key: the name that it belongs to, as the value after "key ="; "" for none.
        line: the number of the line that it begins on.
    """

    start: int
    end: int
    roles: tuple[str, ...]
    key: str
    line: int


def lines(text: str) -> list[tuple[int, int]]:
    """(first character, one past the last) of every line, white space at both ends left out."""
    spans, at = [], 0
    for line in text.split("\n"):
        inner = line.strip()
        start = at + (len(line) - len(line.lstrip()) if inner else 0)
        spans.append((start, start + len(inner)))
        at += len(line) + 1
    return spans


@lru_cache(maxsize=256)
def candidates(text: str) -> tuple[Candidate, ...]:
    """Every candidate of a passage, by where it stands; each place once."""
    found: dict[tuple[int, int], tuple[list[str], str, int]] = {}
    spans = lines(text)
    for number, (start, end) in enumerate(spans):
        if start == end:
            continue
        for low, high, role, key in _of_line(text, spans, number):
            low, high = _trimmed(text, low, high)
            if 0 < high - low <= LONGEST:
                roles, old_key, _ = found.setdefault((low, high), ([], key, number))
                if role not in roles:
                    roles.append(role)
                if key and not old_key:
                    found[low, high] = (roles, key, number)
    return tuple(
        Candidate(low, high, tuple(roles), key, line) for (low, high), (roles, key, line) in sorted(found.items())
    )


_Piece = tuple[int, int, str, str]


def _of_line(text: str, spans: list[tuple[int, int]], number: int) -> Iterator[_Piece]:
    start, end = spans[number]
    yield start, end, "line", ""
    if prompt := _PROMPT.match(text, start, end):
        yield prompt.end(), end, "typed", ""
    yield from _sentences(text, spans, number)
    yield from _brackets(text, start, end)
    yield from _values(text, start, end)
    for named in _NAMED.finditer(text, start, end):
        yield *named.span("name"), named["word"], ""
    if result := _RESULT.search(text, start, end):
        yield *result.span("type"), "result", ""
    for comment in _COMMENT.finditer(text, start, end):
        low, high = comment.span(comment.lastgroup or 0)
        yield low, high, "comment", _first_word(text, start, end)
        if sentence := first_sentence(text, low, high):
            yield *sentence, "comment", _first_word(text, start, end)
    for quoted in _QUOTED.finditer(text, start, end):
        yield *quoted.span(quoted.lastgroup or 0), "quoted", ""
    yield from _after(text, start, end)
    yield from _cells(text, start, end)


def _sentences(text: str, spans: list[tuple[int, int]], number: int) -> Iterator[_Piece]:
    """The sentences that begin on a line; the last of them may go on over the next lines."""
    start, end = spans[number]
    lead = _LEAD.match(text, start, end)
    at = lead.end() if lead else start
    quoted = bool(lead and lead["quote"])
    place = "opening" if quoted or (lead and lead["mark"]) else "sentence"
    stop = _closed(text, at, end)
    if quoted and lead and len(lead["quote"].lstrip("rRuUbBfF")) == 1:
        closing = text.find(lead["quote"][-1], at, end)
        stop = closing if closing >= 0 else stop
    while at < stop:
        sentence = first_sentence(text, at, stop)
        if sentence is None:
            return
        low, high = sentence
        if high >= stop and stop == end and text[high - 1] not in ".!?:":
            high = _continued(text, spans, number, low, high)
        yield low, high, place, ""
        at, place = high, "later"


def _continued(text: str, spans: list[tuple[int, int]], number: int, low: int, high: int) -> int:
    """Where a sentence ends that its line does not end: at its full stop, or where its paragraph ends."""
    for start, end in spans[number + 1 :]:
        if start == end or _starts_anew(text, start, end):
            return high
        stop = _closed(text, start, end)
        sentence = first_sentence(text, start, stop)
        if sentence is None or sentence[1] - low > LONGEST:
            return high
        high = sentence[1]
        if high < stop or stop < end or text[high - 1] in ".!?:":
            return high
    return high


_ANEW = re.compile(
    r"[-*+•#@|:]|\d+[.)]|\.\. |(?:def|class|return|raise|if|for|while|import|from|with|try|async)\b|\w+ ?[=(:]"
)


def _starts_anew(text: str, start: int, end: int) -> bool:
    return _ANEW.match(text, start, end) is not None or text.startswith(('"""', "'''"), start, end)


def _closed(text: str, start: int, end: int) -> int:
    """The end of a line without the quotation marks that close a longer text."""
    closing = _CLOSING.search(text, start, end)
    return closing.start() if closing else end


def _brackets(text: str, start: int, end: int) -> Iterator[_Piece]:
    """What stands in round brackets; those of a definition may close on a later line."""
    head = re.match(r"(?:async\s+)?(def|class)\b", text[start:end])
    for at in range(start, end):
        if text[at] != "(":
            continue
        close = _matching(text, at, len(text) if head else end)
        if close < 0:
            continue
        role = f"{head[1]} brackets" if head else "brackets"
        yield at + 1, close, role, ""
        inner = at + 1 + len(text[at + 1 : close]) - len(text[at + 1 : close].lstrip())
        if head and (first := _SELF.match(text, inner, close)):
            yield first.end(), close, f"{head[1]} brackets", ""
        if head and (keyword := _KEYWORD.search(text, inner, close)):
            yield inner, keyword.start(), f"{head[1]} brackets cut", ""
        if head:
            return


def _matching(text: str, at: int, end: int) -> int:
    """Where the bracket at `at` closes; -1 where it does not before `end`."""
    open_brackets = []
    quote = ""
    for place in range(at, min(end, at + LONGEST)):
        sign = text[place]
        if quote:
            quote = "" if sign == quote else quote
        elif sign in "\"'" and (place == 0 or not text[place - 1].isalnum()):
            quote = sign
        elif sign in _PAIRS:
            open_brackets.append(_PAIRS[sign])
        elif sign in ")]}":
            if not open_brackets or open_brackets.pop() != sign:
                return -1
            if not open_brackets:
                return place
    return -1


def _values(text: str, start: int, end: int) -> Iterator[_Piece]:
    for assigned in _VALUE.finditer(text, start, end):
        key = assigned["key"].lstrip("*").rsplit(".", 1)[-1]
        short, long = _value_ends(text, assigned.end(), end)
        yield assigned.end(), short, "value", key
        if long != short:
            yield assigned.end(), long, "long value", key


def _value_ends(text: str, at: int, end: int) -> tuple[int, int]:
    """Where a value ends: before a comma or a closing bracket, and before a comment or the end of the line."""
    short = 0
    depth, quote, place = 0, "", at
    while place < end:
        sign = text[place]
        if quote:
            quote = "" if sign == quote and text[place - 1] != "\\" else quote
        elif sign in "\"'":
            quote = sign
        elif sign in "([{":
            depth += 1
        elif sign in ")]}":
            depth -= 1
            if depth < 0:
                short = short or place
                break
        elif sign == "," and depth == 0:
            short = short or place
        elif sign in "#;" and depth == 0:
            break
        place += 1
    return short or place, place


def _after(text: str, start: int, end: int) -> Iterator[_Piece]:
    """What follows a colon, a dash or a gap: "key: text", "term -- text", "-v, --verbose   text"."""
    for found in _AFTER.finditer(text, start, end):
        key = found["key"].strip("*`: -")
        yield found.end(), end, "after", key
        stop = _closed(text, found.end(), end)
        if sentence := first_sentence(text, found.end(), stop):
            yield *sentence, "after", key
        if found.start() == start:
            yield found.start("key"), found.end("key"), "key", ""


def _cells(text: str, start: int, end: int) -> Iterator[_Piece]:
    if text.count("|", start, end) < 2:
        return
    at = start
    label = ""
    for part in text[start:end].split("|"):
        if part.strip():
            yield at, at + len(part), "cell", label
            label = label or part.strip()
        at += len(part) + 1


def _trimmed(text: str, low: int, high: int) -> tuple[int, int]:
    """Without white space at both ends, and without a comma at the end."""
    inner = text[low:high]
    low += len(inner) - len(inner.lstrip())
    return low, low + len(inner.strip().rstrip(",").rstrip())


def _first_word(text: str, start: int, end: int) -> str:
    found = re.match(r"(?:self\.)?(\w+)", text[start:end])
    return found[1] if found else ""
