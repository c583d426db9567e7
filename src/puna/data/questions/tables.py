"""Cells of small tables: the column names what is asked for, the first cell of the row says of what."""

from __future__ import annotations

import re
from collections.abc import Iterator

from puna.core.document import Document
from puna.data.questions.fact import Fact, is_answer, plain
from puna.data.questions.prose import places
from puna.data.questions.words import number_words
from puna.knowledge.structure.block import Block

Cell = tuple[int, int]

_MOST_ROWS = 40
_LONGEST_LABEL = 40
_VERSIONS = re.compile(r"v?\d[\d.]*(?:[ ,]+v?\d[\d.]*)*")  # a history, whose rows nobody asks for


def find(document: Document) -> Iterator[Fact]:
    table: list[Block] = []
    for block in [*(place.block for place in places(document)), None]:
        if block is not None and block.kind == "row" and (not table or block.level == 0):
            table.append(block)
            continue
        yield from _cells(document.text, table)
        table = [block] if block is not None and block.kind == "row" else []


def _cells(text: str, table: list[Block]) -> Iterator[Fact]:
    if not 3 <= len(table) <= _MOST_ROWS or table[0].level != 1:
        return
    header, *rows = [_split(text, block) for block in table]
    names = [_label(text, cell) for cell in header]
    labels = [_label(text, row[0]) if row else "" for row in rows]
    if len(set(names)) < len(names) or any(len(row) != len(header) for row in rows):
        return
    for row, label in zip(rows, labels, strict=True):
        if not label or labels.count(label) > 1:
            continue
        for name, (start, end) in zip(names[1:], row[1:], strict=True):
            if name and is_answer(text[start:end]) and "](" not in text[start:end]:
                slots = {"column": name if name.isupper() else name.lower(), "row": label, **number_words(name)}
                yield Fact("cell", slots, start, end, (table[0].start, end), label)


def _label(text: str, cell: Cell) -> str:
    label = plain(text[cell[0] : cell[1]])
    fits = 2 <= len(label) <= _LONGEST_LABEL and re.search(r"[^\W\d]", label) and not re.search(r"[\[\]{}<>|]", label)
    return label if fits and not _VERSIONS.fullmatch(label) else ""


def _split(text: str, block: Block) -> list[Cell]:
    """Where the cells of a row stand, without the blanks around them."""
    start, end = block.start, block.end
    start += text.startswith("|", start, end)
    end -= text[start:end].endswith("|") and not text[start:end].endswith("\\|")
    cells = []
    for part in re.split(r"(?<!\\)(\|)", text[start:end]):
        if part == "|":
            start += 1
            continue
        inner = part.strip()
        begin = start + len(part) - len(part.lstrip()) if inner else start
        cells.append((begin, begin + len(inner)))
        start += len(part)
    return cells
