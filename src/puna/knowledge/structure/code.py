"""Source code other than Python as syntax units: functions, methods, types, with the comments right above them.

There is no parser for each language. Comments and texts are stepped over, braces are counted, and a unit begins at a
line that declares something by the language's keyword, or, in the languages of C's family, at a name with parameters
whose body opens a brace. That is enough to cut between functions and not in them; a declaration that is missed stays
with the unit above it. Macros that open braces they do not close put the rest of a file into one unit.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from puna.knowledge.structure.block import Block, line_spans


@dataclass(slots=True)
class CodeUnit:
    """`text[start:end]`, which begins with the comments above the declaration.

    Attributes:
        title: what is declared, such as "class Stack" or "push()".
        inner: the units in it.
    """

    start: int
    end: int
    title: str
    inner: list[CodeUnit] = field(default_factory=list)


_TOKEN = re.compile(
    r"""
      (?P<skip> //[^\n]* | /\*.*?(?:\*/|\Z) | "(?:\\.|[^"\\\n])*" | '(?:\\.|[^'\\\n])+' | `(?:\\.|[^`\\])*` )
    | (?P<open> \{ ) | (?P<close> \} )
    """,
    re.VERBOSE | re.DOTALL,
)
_HASH_TOKEN = re.compile(
    r"""
      (?P<skip> (?:^|(?<=\s))\#[^\n]* | --[^\n]* | "(?:\\.|[^"\\])*" | '(?:\\.|[^'\\])*' )
    | (?P<open> \{ ) | (?P<close> \} )
    """,
    re.VERBOSE | re.DOTALL | re.MULTILINE,
)
_HASH_LANGUAGES = frozenset({"ruby", "lua", "shell", "r"})
_MODIFIERS = (
    r"(?:(?:export|default|declare|pub(?:\([^)]*\))?|public|private|protected|internal|static|final|abstract|async|unsafe|"
    r"override|open|sealed|data|inline|extern|typedef|const|local|partial|readonly|virtual|mutating|suspend)\s+)*"
)
_KEYWORD = re.compile(
    rf"\s*{_MODIFIERS}(?P<kind>class|interface|struct|enum|union|trait|impl|namespace|module|object|record|protocol|"
    r"extension|fn|func|fun|function|def|macro_rules!|type)\*?(?:<[^>]*>)?\s+(?P<name>(?:\([^)]*\)\s*)?[\w$:.!?]+)"
)
_SHELL = re.compile(r"\s*(?P<name>[\w.-]+)\s*\(\)\s*\{?\s*$")
_CALLED = re.compile(r"\s*[\w$<>\[\],.:*&~\s@?\"]*?(?P<name>[~\w$:]+)\s*\((?P<rest>[^;]*)$")
_ASSIGNED = re.compile(
    rf"\s*{_MODIFIERS}(?:const|let|var)\s+(?P<name>[\w$]+)[^=\n]*="
    r"\s*(?:async\s*)?(?:function\b|\(|[\w$]+\s*=>)"
)
_STATEMENTS = frozenset((
    "if", "for", "while", "switch", "return", "catch", "else", "do", "try", "sizeof", "throw", "new", "await",
    "yield", "with", "case", "delete", "elif",
))  # fmt: skip
_HOLDERS = frozenset((
    "class", "interface", "struct", "trait", "impl", "namespace", "module", "object", "record", "protocol",
    "extension", "enum",
))  # fmt: skip
_ABOVE = re.compile(r"\s*(?://|/\*|\*|#\[|#|--|@|template\s*<)")


def units(text: str, language: str) -> list[CodeUnit]:
    """The outermost units in order, with those in them; they do not overlap, and need not cover the text."""
    lines = line_spans(text)
    depths, inside = _depths(text, lines, language)
    return _units(_Lines(text, lines, depths, inside, language), 0, len(lines), 0)


def parse(text: str) -> list[Block]:
    """The text as one block of code: nothing in it is prose to be asked about."""
    first, last = len(text) - len(text.lstrip()), len(text.rstrip())
    return [Block("code", first, last)] if first < last else []


@dataclass(frozen=True, slots=True)
class _Lines:
    text: str
    spans: list[tuple[int, int]]
    depths: list[int]  # of braces, where each line begins; one more for the end
    inside: list[bool]  # whether a line begins in a comment or a text
    language: str

    def line(self, number: int) -> str:
        start, end = self.spans[number]
        return self.text[start:end]


def _depths(text: str, lines: list[tuple[int, int]], language: str) -> tuple[list[int], list[bool]]:
    token = _HASH_TOKEN if language in _HASH_LANGUAGES else _TOKEN
    depths, inside = [0], [False]
    depth, number = 0, 1
    for match in token.finditer(text):
        while number < len(lines) and lines[number][0] <= match.start():
            depths.append(depth)
            inside.append(False)
            number += 1
        if match["skip"] is None:
            depth = depth + 1 if match["open"] else max(depth - 1, 0)
        while number < len(lines) and lines[number][0] < match.end():
            depths.append(depth)
            inside.append(True)
            number += 1
    depths += [depth] * (len(lines) + 1 - len(depths))
    inside += [False] * (len(lines) - len(inside))
    return depths, inside


def _units(lines: _Lines, first: int, last: int, depth: int) -> list[CodeUnit]:
    """Units declared at a depth of braces, in lines from `first` up to `last`."""
    found: list[CodeUnit] = []
    number, free = first, first  # lines before `free` belong to a unit
    while number < last:
        declared = None
        if lines.depths[number] == depth and not lines.inside[number]:
            declared = _declared(lines, number, last, depth)
        if declared is None:
            number += 1
            continue
        title, holds, end = declared
        top = number
        while top > free and _goes_with_next(lines, top - 1, depth):
            top -= 1
        body = _units(lines, number + 1, end, depth + 1) if holds else []
        found.append(CodeUnit(lines.spans[top][0], lines.spans[end - 1][1], title, body))
        number = free = end
    return found


def _goes_with_next(lines: _Lines, number: int, depth: int) -> bool:
    """Whether a line is a comment or an attribute, which stands with the declaration below it."""
    return (lines.inside[number] or bool(_ABOVE.match(lines.line(number)))) and lines.depths[number] == depth


def _declared(lines: _Lines, number: int, last: int, depth: int) -> tuple[str, bool, int] | None:
    """(title, whether units may be in it, the line after it) of the declaration that begins in a line, if one does."""
    line = lines.line(number)
    if not line.strip() or _ABOVE.match(line):
        return None
    keyword = _KEYWORD.match(line)
    title, holds = "", False
    if keyword:
        name = re.sub(r"^\([^)]*\)\s*", "", keyword["name"])
        if keyword["kind"] == "impl":
            name = line[keyword.start("name") :].partition("{")[0].strip()
        title, holds = f"{keyword['kind']} {name}", keyword["kind"] in _HOLDERS
    elif found := (_SHELL.match(line) if lines.language == "shell" else None) or _ASSIGNED.match(line):
        title = f"{found['name']}()"
    elif lines.language not in _HASH_LANGUAGES and (called := _CALLED.match(line)):
        name = called["name"]
        if name in _STATEMENTS or line.strip().split()[0] in _STATEMENTS or not _opens(lines, number, last, depth):
            return None
        title = f"{name}()"
    if not title:
        return None
    return title, holds, _end(lines, number, last, depth)


def _opens(lines: _Lines, number: int, last: int, depth: int) -> bool:
    """Whether a brace opens before the declaration could have ended."""
    for at in range(number, min(number + 8, last)):
        if lines.depths[at + 1] > depth:
            return True
        stripped = lines.line(at).rstrip()
        if not stripped or stripped.endswith((";", "}")):
            return stripped.endswith("}") and "{" in stripped
    return False


def _end(lines: _Lines, number: int, last: int, depth: int) -> int:
    """The line after a declaration: where its braces are closed, or where it ends without any."""
    if lines.language in _HASH_LANGUAGES and lines.language not in ("shell", "r"):
        return _end_by_indent(lines, number, last)
    at = number
    while at < last and lines.depths[at + 1] <= depth:
        stripped = lines.line(at).rstrip()
        at += 1
        if stripped.endswith((";", "}")) or not stripped:
            return at
    while at < last and lines.depths[at + 1] > depth:
        at += 1
    return min(at + 1, last)


def _end_by_indent(lines: _Lines, number: int, last: int) -> int:
    """After the `end` that stands under the declaration."""
    line = lines.line(number)
    margin = len(line) - len(line.lstrip())
    for at in range(number + 1, last):
        other = lines.line(at)
        if other.strip().startswith("end") and len(other) - len(other.lstrip()) == margin:
            return at + 1
    return number + 1
