"""Blocks of Markdown: the parts of CommonMark and of GitHub's tables that tell a document's structure.

Read line by line, without inline markup. Left out: reference links, nested quotes, and HTML beyond recognising it.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from puna.knowledge.structure.block import Block, BlockKind, line_spans

_FENCE = re.compile(r"[ \t]*(`{3,}|~{3,})(.*)$")
_HEADING = re.compile(r" {0,3}(?P<marks>#{1,6})(?:[ \t]+(?P<title>.*?))??(?:[ \t]+#+)?[ \t]*$")
_UNDERLINE = re.compile(r" {0,3}(=+|-+)[ \t]*$")
_RULE = re.compile(r" {0,3}([-*_])(?:[ \t]*\1){2,}[ \t]*$")
_ITEM = re.compile(r"(?P<indent>[ \t]*)(?P<mark>[-*+]|\d{1,9}[.)])(?P<gap>[ \t]+)(?P<box>\[[ xX]\] )?(?=\S)")
_QUOTE = re.compile(r" {0,3}>[ \t]?")
_DELIMITERS = re.compile(r"[ \t]*\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*$")
_HTML = re.compile(r" {0,3}</?[A-Za-z!?]")
_LINK_TARGET = re.compile(r" {0,3}\[[^\]]+\]:[ \t]*\S")
_DEFINITION = re.compile(r" {0,3}:[ \t]+(?=\S)")


class _Scanner:
    """The lines, how far they are read, and the blocks so far. `inner` is the column of the open list's content."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.lines = line_spans(text)
        self.at = 0
        self.inner = 0
        self.blocks: list[Block] = []

    def line(self, ahead: int = 0) -> str:
        """The line `ahead` of the current one; "" past the end."""
        if self.at + ahead >= len(self.lines):
            return ""
        start, end = self.lines[self.at + ahead]
        return self.text[start:end]

    def add(self, kind: BlockKind, first: int, last: int, skip: int = 0, level: int = 0) -> None:
        """A block from column `skip` of line `first` to the end of line `last`, blanks at its ends left out."""
        if last < first:
            return
        start, end = self.lines[first][0] + skip, self.lines[last][1]
        text = self.text[start:end]
        if kind == "code":
            start, end = start, start + len(text.rstrip())
        else:
            start, end = start + len(text) - len(text.lstrip()), start + len(text.rstrip())
        if start < end:
            self.blocks.append(Block(kind, start, end, level))


def parse(text: str) -> list[Block]:
    """The blocks of a Markdown text."""
    scanner = _Scanner(text)
    _front_matter(scanner)
    while scanner.at < len(scanner.lines):
        if not scanner.line().strip():
            scanner.at += 1
            continue
        if scanner.inner and _indent(scanner.line()) == 0 and not _ITEM.match(scanner.line()):
            scanner.inner = 0
        next(rule for rule in _RULES if rule(scanner))
    return scanner.blocks


def _indent(line: str) -> int:
    expanded = line.expandtabs(4)
    return len(expanded) - len(expanded.lstrip())


def _front_matter(scanner: _Scanner) -> None:
    if scanner.line().rstrip() != "---":
        return
    ahead = 1
    while scanner.at + ahead < len(scanner.lines):
        if scanner.line(ahead).rstrip() in ("---", "..."):
            scanner.add("other", 1, ahead - 1)
            scanner.at = ahead + 1
            return
        ahead += 1


def _comment(scanner: _Scanner) -> bool:
    if not scanner.line().lstrip().startswith("<!--"):
        return False
    start = scanner.lines[scanner.at][0]
    close = scanner.text.find("-->", start)
    if close < 0:
        return False
    while scanner.at < len(scanner.lines) and scanner.lines[scanner.at][0] <= close:
        scanner.at += 1
    end = scanner.lines[scanner.at - 1][1]
    kind: BlockKind = "comment" if not scanner.text[close + 3 : end].strip() else "other"
    scanner.blocks.append(Block(kind, start, end))
    return True


def _fence(scanner: _Scanner) -> bool:
    opening = _FENCE.match(scanner.line())
    if not opening or ("`" in opening[1] and "`" in opening[2]):
        return False
    first = scanner.at + 1
    scanner.at = first
    while scanner.at < len(scanner.lines):
        line = scanner.line().strip()
        if line.startswith(opening[1]) and not line.strip(opening[1][0]):
            break
        scanner.at += 1
    scanner.add("code", first, min(scanner.at, len(scanner.lines)) - 1)
    scanner.at += 1
    return True


def _heading(scanner: _Scanner) -> bool:
    found = _HEADING.match(scanner.line())
    if not found:
        return False
    if found["title"]:
        start = scanner.lines[scanner.at][0]
        scanner.blocks.append(
            Block("heading", start + found.start("title"), start + found.end("title"), len(found["marks"]))
        )
    scanner.at += 1
    return True


def _rule(scanner: _Scanner) -> bool:
    if not _RULE.match(scanner.line()):
        return False
    scanner.at += 1
    return True


def _table(scanner: _Scanner) -> bool:
    if not _opens_table(scanner):
        return False
    scanner.add("row", scanner.at, scanner.at, level=1)
    scanner.at += 2
    while "|" in scanner.line():
        scanner.add("row", scanner.at, scanner.at)
        scanner.at += 1
    return True


def _opens_table(scanner: _Scanner, ahead: int = 0) -> bool:
    rule = scanner.line(ahead + 1)
    return "|" in scanner.line(ahead) and "|" in rule and bool(_DELIMITERS.match(rule))


def _quote(scanner: _Scanner) -> bool:
    mark = _QUOTE.match(scanner.line())
    if not mark:
        return False
    first = scanner.at
    while (quoted := _QUOTE.match(scanner.line())) and scanner.line()[quoted.end() :].strip():
        scanner.at += 1
    if scanner.at == first:
        scanner.at += 1
    else:
        scanner.add("quote", first, scanner.at - 1, skip=mark.end())
    return True


def _definition(scanner: _Scanner) -> bool:
    """`term` on a line, `: its definition` on the next (Markdown Extra)."""
    mark = _DEFINITION.match(scanner.line(1))
    if not mark or _ITEM.match(scanner.line()):
        return False
    scanner.add("term", scanner.at, scanner.at)
    scanner.at += 1
    while mark := _DEFINITION.match(scanner.line()):
        first = scanner.at
        scanner.at += 1
        while scanner.line().strip() and not _DEFINITION.match(scanner.line()):
            scanner.at += 1
        scanner.add("definition", first, scanner.at - 1, skip=mark.end())
    return True


def _item(scanner: _Scanner) -> bool:
    mark = _ITEM.match(scanner.line())
    if not mark or (_indent(scanner.line()) >= 4 and not scanner.inner):
        return False
    first = scanner.at
    scanner.inner = len(mark["indent"].expandtabs(4)) + len(mark["mark"]) + min(len(mark["gap"]), 4)
    scanner.at += 1
    while scanner.line().strip() and not _interrupts(scanner):
        scanner.at += 1
    kind: BlockKind = "step" if mark["mark"][0].isdigit() else "item"
    scanner.add(kind, first, scanner.at - 1, skip=mark.end(), level=len(mark["indent"].expandtabs(4)) // 2)
    return True


def _indented_code(scanner: _Scanner) -> bool:
    if _indent(scanner.line()) < scanner.inner + 4:
        return False
    first = last = scanner.at
    while scanner.at < len(scanner.lines) and (
        not scanner.line().strip() or _indent(scanner.line()) >= scanner.inner + 4
    ):
        if scanner.line().strip():
            last = scanner.at
        scanner.at += 1
    scanner.add("code", first, last)
    scanner.at = last + 1
    return True


def _html(scanner: _Scanner) -> bool:
    """HTML and link targets: kept in the text, and nothing is asked about them."""
    if not (_HTML.match(scanner.line()) or _LINK_TARGET.match(scanner.line())):
        return False
    first = scanner.at
    scanner.at += 1
    while scanner.line().strip() and not _FENCE.match(scanner.line()) and not _HEADING.match(scanner.line()):
        scanner.at += 1
    scanner.add("other", first, scanner.at - 1)
    return True


def _paragraph(scanner: _Scanner) -> bool:
    first = scanner.at
    scanner.at += 1
    while scanner.line().strip():
        if underline := _UNDERLINE.match(scanner.line()):
            scanner.add("heading", first, scanner.at - 1, level=1 if underline[1][0] == "=" else 2)
            scanner.at += 1
            return True
        if _interrupts(scanner):
            break
        scanner.at += 1
    scanner.add("paragraph", first, scanner.at - 1)
    return True


def _interrupts(scanner: _Scanner) -> bool:
    """Whether the current line opens another block though no blank line stands before it."""
    line = scanner.line()
    item = _ITEM.match(line)
    if item and (scanner.inner or not item["mark"][0].isdigit() or item["mark"][:-1] == "1"):
        return True
    found = (_FENCE.match(line), _HEADING.match(line), _RULE.match(line), _QUOTE.match(line))
    return any(found) or line.lstrip().startswith("<!--") or _opens_table(scanner)


_RULES: tuple[Callable[[_Scanner], bool], ...] = (
    _comment,
    _fence,
    _heading,
    _rule,
    _table,
    _quote,
    _item,
    _indented_code,
    _definition,
    _html,
    _paragraph,
)
