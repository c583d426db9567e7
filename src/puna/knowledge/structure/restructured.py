"""Blocks of reStructuredText, with the directives of Sphinx.

Indentation nests, so the parser calls itself on what is indented. A directive that describes an object, such as
`.. function:: copyfile(src, dst)`, is a term, and the first paragraph below it the definition. Left out: the cells of
grid and simple tables (their lines are kept as "other"), substitutions and targets.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from importlib import resources

from puna.knowledge.structure.block import Block, BlockKind, line_spans

_ADORNMENT = re.compile(r"([!-/:-@\[-`{-~])\1+[ \t]*$")
_DIRECTIVE = re.compile(
    r"\.\. (?:\|[^|]+\|[ \t]*)?(?P<name>[A-Za-z][\w:+.-]*?)[ \t]?::(?:[ \t]+(?P<argument>.*?))?[ \t]*$"
)
_EXPLICIT = re.compile(r"\.\.(?:[ \t]|$)")
_FIELD = re.compile(r":(?P<name>[^:\s](?:[^:]*[^:\s])?):(?:[ \t]+|$)")
_ITEM = re.compile(r"(?P<mark>[-*+•]|(?P<number>\(?(?:\d{1,3}|#|[A-Za-z])[.)]))[ \t]+(?=\S)")
_OPTION = re.compile(
    r"-{1,2}\w[\w-]*(?:[ =][<\w][^\s,]*)?(?:, -{1,2}\w[\w-]*(?:[ =][<\w][^\s,]*)?)*(?P<gap>[ \t]{2,}(?=\S)|$)"
)
_LINE_BLOCK = re.compile(r"\|[ \t]")
_TABLE = re.compile(r"\+[-=+]{3,}|=+(?:[ \t]+=+)+[ \t]*$")

_DIRECTIVES = tomllib.loads((resources.files("puna.knowledge") / "assets/directives.toml").read_text(encoding="utf-8"))


@dataclass(frozen=True, slots=True)
class _Frame:
    """Lines `low` to `high` (left out), whose own blocks begin in column `indent`."""

    low: int
    high: int
    indent: int


def parse(text: str) -> list[Block]:
    """The blocks of a reStructuredText."""
    parser = _Parser(text)
    parser.body(0, len(parser.lines))
    return parser.blocks


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.lines = line_spans(text)
        self.blocks: list[Block] = []
        self.styles: list[str] = []  # a section's level is the order in which its adornment was first met

    def line(self, index: int) -> str:
        if not 0 <= index < len(self.lines):
            return ""
        start, end = self.lines[index]
        return self.text[start:end]

    def indent(self, index: int) -> int:
        line = self.line(index)
        return len(line) - len(line.lstrip())

    def add(self, kind: BlockKind, first: int, last: int, skip: int = 0, level: int = 0) -> None:
        """A block from column `skip` of line `first` to the end of line `last`."""
        start, end = self.lines[first][0] + skip, self.lines[last][1]
        text = self.text[start:end]
        if kind != "code":
            start += len(text) - len(text.lstrip())
        end = self.lines[first][0] + skip + len(text.rstrip())
        if start < end:
            self.blocks.append(Block(kind, start, end, level))

    def body(self, low: int, high: int, first: BlockKind = "paragraph", level: int = 0) -> None:
        """Blocks of lines `low` to `high`; the first paragraph becomes `first`."""
        while low < high and not self.line(low).strip():
            low += 1
        if low >= high:
            return
        frame = _Frame(low, high, min(self.indent(i) for i in range(low, high) if self.line(i).strip()))
        begun = len(self.blocks)
        while low < high:
            low = self.block(low, frame, level) if self.line(low).strip() else low + 1
        if first != "paragraph" and len(self.blocks) > begun and self.blocks[begun].kind == "paragraph":
            block = self.blocks[begun]
            self.blocks[begun] = Block(first, block.start, block.end, level)

    def below(self, index: int, frame: _Frame, indent: int) -> int:
        """The end of what is indented deeper than `indent` from line `index` on, trailing blank lines left out."""
        end = index
        while index < frame.high and (not self.line(index).strip() or self.indent(index) > indent):
            index += 1
            if self.line(index - 1).strip():
                end = index
        return end

    def block(self, low: int, frame: _Frame, level: int) -> int:
        """Reads one block that begins in line `low`; returns the line after it."""
        line = self.line(low)[frame.indent :]
        if self.indent(low) > frame.indent:
            end = self.below(low, frame, frame.indent)
            self.body(low, end, level=level)
            return end
        if after := self.section(low, frame):
            return after
        if directive := _DIRECTIVE.match(line):
            return self.directive(low, frame, directive)
        if _EXPLICIT.match(line):
            end = self.below(low + 1, frame, frame.indent)
            self.add("other", low, end - 1 if end > low + 1 else low)
            return max(end, low + 1)
        if line.startswith(">>> "):
            return self.until_blank(low, frame, "code")
        if _LINE_BLOCK.match(line) or _TABLE.match(line):
            return self.until_blank(low, frame, "other")
        marked = _FIELD.match(line) or _OPTION.match(line)
        if marked:
            return self.field(low, frame, marked, level)
        if item := _ITEM.match(line):
            return self.item(low, frame, item, level)
        return self.paragraph(low, frame, level)

    def section(self, low: int, frame: _Frame) -> int:
        """A title with its underline, and an overline perhaps; returns the line after it, or 0."""
        over = _ADORNMENT.match(self.line(low))
        if over and self.line(low + 1).strip() and self.line(low + 2).strip() == self.line(low).strip():
            title, after, style = low + 1, low + 3, "over" + over[1]
        else:
            under = _ADORNMENT.match(self.line(low + 1))
            length = len(self.line(low).strip())
            if not under or len(under[0].strip()) < min(length, 4) or low + 1 >= frame.high:
                return low + 1 if over and len(over[0].strip()) >= 4 else 0  # a rule between paragraphs
            title, after, style = low, low + 2, under[1]
        if style not in self.styles:
            self.styles.append(style)
        self.add("heading", title, title, level=min(self.styles.index(style) + 1, 6))
        return after

    def directive(self, low: int, frame: _Frame, found: re.Match[str]) -> int:
        name = found["name"].lower()
        end = max(self.below(low + 1, frame, frame.indent), low + 1)
        body = low + 1
        while body < end and _FIELD.match(self.line(body).lstrip()):
            body += 1  # options of the directive
        if name in _DIRECTIVES["code"]:
            self.add("other", low, body - 1)
            while body < end and not self.line(body).strip():
                body += 1
            if body < end:
                self.add("code", body, end - 1)
        elif name in _DIRECTIVES["silent"]:
            self.add("other", low, end - 1)
        elif name in _DIRECTIVES["prose"]:
            if found["argument"]:
                self.add("paragraph", low, low, skip=frame.indent + found.start("argument"))
            self.body(body, end)
        else:
            if found["argument"]:
                self.add("term", low, low, skip=frame.indent + found.start("argument"))
            self.body(body, end, "definition" if found["argument"] else "paragraph")
        return end

    def until_blank(self, low: int, frame: _Frame, kind: BlockKind) -> int:
        end = low
        while end < frame.high and self.line(end).strip():
            end += 1
        self.add(kind, low, end - 1)
        return end

    def field(self, low: int, frame: _Frame, mark: re.Match[str], level: int) -> int:
        """`:name: body` or `-o, --option  body`: a term and its definition."""
        start = self.lines[low][0] + frame.indent
        end_of_term = mark.end("name") if "name" in mark.groupdict() else mark.start("gap")
        begin = mark.start("name") if "name" in mark.groupdict() else 0
        self.blocks.append(Block("term", start + begin, start + end_of_term))
        end = max(self.below(low + 1, frame, frame.indent), low + 1)
        self.entry(low, end, frame.indent + mark.end(), "definition", level)
        return end

    def item(self, low: int, frame: _Frame, mark: re.Match[str], level: int) -> int:
        end = max(self.below(low + 1, frame, frame.indent), low + 1)
        kind: BlockKind = "step" if mark["number"] else "item"
        self.entry(low, end, frame.indent + mark.end(), kind, level)
        return end

    def entry(self, low: int, end: int, skip: int, kind: BlockKind, level: int) -> None:
        """What follows a mark: its first paragraph is a `kind`, the rest is nested one level deeper."""
        if not self.line(low)[skip:].strip():
            self.body(low + 1, end, kind, level)
            return
        stop = low + 1
        while stop < end and self.line(stop).strip() and not _ITEM.match(self.line(stop).lstrip()):
            stop += 1
        self.add(kind, low, stop - 1, skip=skip, level=level)
        literal = self.line(stop - 1).rstrip().endswith("::")
        if literal and stop < end:
            self.add("code", *self.trim(stop, end))
        else:
            self.body(stop, end, level=level + 1)

    def paragraph(self, low: int, frame: _Frame, level: int) -> int:
        """A paragraph, the literal block that it announces, or a term with its definition."""
        end = low + 1
        if self.line(end).strip() and self.indent(end) > frame.indent and not self.line(low).rstrip().endswith("::"):
            end = self.below(end, frame, frame.indent)
            self.add("term", low, low)
            self.body(low + 1, end, "definition", level)
            return end
        while end < frame.high and self.line(end).strip() and self.indent(end) == frame.indent:
            end += 1
        if self.line(low).strip() != "::":
            self.add("paragraph", low, end - 1, level=level)
        if self.line(end - 1).rstrip().endswith("::"):
            after = self.below(end, frame, frame.indent)
            if after > end:
                self.add("code", *self.trim(end, after))
                return after
        return end

    def trim(self, low: int, high: int) -> tuple[int, int]:
        """First and last line of low..high that are not blank."""
        while low < high - 1 and not self.line(low).strip():
            low += 1
        return low, high - 1
