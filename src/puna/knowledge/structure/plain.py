"""Blocks of text without markup: paragraphs, lists, and headings where they are beyond doubt.

What fills its lines is a paragraph whose lines may be joined. Other groups of lines (tables, addresses, code, verse)
are "other", and each keeps its lines.
"""

from __future__ import annotations

import re

from puna.knowledge.structure.block import Block, BlockKind, is_filled, line_spans

_UNDERLINE = re.compile(r"\s*([=~*^#-])\1{2,}\s*$")
_ITEM = re.compile(r"(?P<indent>[ \t]*)(?P<mark>[-*+•o]|\(?\d{1,3}[.)])[ \t]+(?=\S)")
_NUMBERED = re.compile(r"(\d{1,2}(?:\.\d{1,2})*)\.?[ \t]+[A-Z]\S*(?: \S+){0,8}$")
_LONGEST_HEADING = 70


def parse(text: str) -> list[Block]:
    """The blocks of a plain text."""
    lines = line_spans(text)
    blocks: list[Block] = []
    group: list[tuple[int, int]] = []
    for start, end in [*lines, (len(text), len(text))]:
        if text[start:end].strip():
            group.append((start, end))
        elif group:
            blocks.extend(_group(text, group))
            group = []
    return blocks


def _block(kind: BlockKind, text: str, start: int, end: int, level: int = 0) -> Block:
    words = text[start:end]
    return Block(kind, start + len(words) - len(words.lstrip()), start + len(words.rstrip()), level)


def _group(text: str, lines: list[tuple[int, int]]) -> list[Block]:
    """Blocks of a run of lines without a blank one among them."""
    words = [text[start:end] for start, end in lines]
    if len(lines) >= 2 and _UNDERLINE.match(words[1]) and len(words[0].strip()) <= _LONGEST_HEADING:
        level = 1 if words[1].strip()[0] in "=#*" else 2
        heading = _block("heading", text, *lines[0], level)
        return [heading, *(_group(text, lines[2:]) if lines[2:] else [])]
    if len(lines) == 1 and _UNDERLINE.match(words[0]):
        return []
    if len(lines) == 1 and (level := _heading_level(words[0].strip())):
        return [_block("heading", text, *lines[0], level)]
    if _ITEM.match(words[0]):
        return _items(text, lines)
    whole = lines[0][0], lines[-1][1]
    if len(lines) == 1 or (is_filled(words) and _even([_indent(word) for word in words])):
        return [_block("paragraph", text, *whole)]
    return [_block("other", text, *whole)]


def _heading_level(line: str) -> int:
    """The level of a line that stands alone, if it is a heading: numbered, or in capitals."""
    if len(line) > _LONGEST_HEADING or line[-1] in ".,;:!":
        return 0
    if numbered := _NUMBERED.match(line):
        return numbered[1].count(".") + 1
    letters = [char for char in line if char.isalpha()]
    return 1 if len(letters) >= 4 and line.isupper() and len(line.split()) <= 8 else 0


def _items(text: str, lines: list[tuple[int, int]]) -> list[Block]:
    """List items; a line without a mark goes on with the item above it."""
    starts = [i for i, (start, end) in enumerate(lines) if _ITEM.match(text[start:end])]
    blocks = []
    for first, after in zip(starts, [*starts[1:], len(lines)], strict=True):
        start, end = lines[first]
        mark = _ITEM.match(text[start:end])
        assert mark is not None
        words = [text[s:e] for s, e in lines[first:after]]
        joined = after - first == 1 or (is_filled(words) and _even([_indent(word) for word in words[1:]]))
        kind: BlockKind = "other" if not joined else "step" if mark["mark"].strip("(.)").isdigit() else "item"
        level = len(mark["indent"].expandtabs(4)) // 2
        blocks.append(_block(kind, text, start + mark.end(), lines[after - 1][1], level))
    return blocks


def _indent(line: str) -> int:
    line = line.expandtabs(8)
    return len(line) - len(line.lstrip())


def _even(indents: list[int]) -> bool:
    """Whether lines share one margin; the first of a paragraph may be indented differently."""
    return len(set(indents[1:])) <= 1
