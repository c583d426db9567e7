"""`Block`: a stretch of a document that is one thing, such as a heading, a list item or a piece of code.

All notations come down to one flat list of blocks in text order that do not overlap; what nests is told by `level`.
A block spans content and not notation: a heading's words without its marks, a code block's lines without its fences.
A document can be cut and asked about through its blocks alone, whatever it was written in.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

BlockKind = Literal[
    "heading",  # level 1 is the highest
    "paragraph",  # running text; its lines may be joined
    "item",  # of a list without numbers; level 0 is the outermost
    "step",  # of a numbered list
    "term",  # what the next definition is about
    "definition",  # of the terms right before it
    "code",  # its lines stay as they are
    "row",  # of a table, cells between "|"; level 1 for the header, 0 below it
    "quote",  # running text that somebody else said
    "comment",  # shown to no reader
    "other",  # anything else: nothing is asked about it
]

PROSE: frozenset[str] = frozenset({"paragraph", "item", "step", "definition", "quote"})


@dataclass(frozen=True, slots=True)
class Block:
    """`text[start:end]`, in characters."""

    kind: BlockKind
    start: int
    end: int
    level: int = 0

    def to_json(self) -> list[Any]:
        return [self.kind, self.start, self.end, self.level]

    def moved(self, offset: int) -> Block:
        return Block(self.kind, self.start + offset, self.end + offset, self.level)


def line_spans(text: str) -> list[tuple[int, int]]:
    """(start, end) of every line, the newline left out."""
    spans = []
    start = 0
    for line in text.split("\n"):
        spans.append((start, start + len(line)))
        start += len(line) + 1
    return spans


_JOINT = re.compile(r"(?P<hard>\\| {2,})?[ \t]*\n[ \t]*(?:>[ \t]?)*")


def tidy(text: str, blocks: Sequence[Block]) -> str:
    """The text with comments left out and each stretch of running text on one line.

    Hard-wrapped prose breaks its sentences at a column that means nothing; on one line a sentence can be learnt and
    quoted whole. Line breaks that the author asked for (two blanks or a backslash at the end, in Markdown) stay.
    Blocks other than prose keep every character.
    """
    parts = []
    done = 0
    for block in blocks:
        if block.kind == "comment":
            parts.append(text[done : block.start])
            blank_before = text[: block.start].endswith("\n\n")
            done = block.end + (2 if blank_before and text.startswith("\n\n", block.end) else 1)
        elif block.kind in PROSE and "\n" in text[block.start : block.end]:
            parts.append(text[done : block.start])
            parts.append(_JOINT.sub(lambda m: m[0] if m["hard"] else " ", text[block.start : block.end]))
            done = block.end
    parts.append(text[done:])
    return "".join(parts)


def is_filled(lines: Iterable[str]) -> bool:
    """Whether line breaks stand where a program that fills lines puts them: where the next word no longer fits.

    Verse, addresses, tables and code break earlier than that, so that their lines are kept.
    """
    texts = [line.strip() for line in lines]
    width = max(len(text) for text in texts)
    if len(texts) < 2 or width < _NARROW or any(_TABLE_GAP.search(text) for text in texts):
        return False
    return all(len(text) + 1 + len(after.split(maxsplit=1)[0]) > width for text, after in pairwise(texts))


_NARROW = 45  # lines shorter than this are too short to be filled prose
_TABLE_GAP = re.compile(r"[^.?!:\s][ \t]{2,}\S|\t")  # columns; two blanks after a full stop are an old typing habit
