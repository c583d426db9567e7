"""Tables in text files (CSV, TSV) as lines of cells between "|", the form that all readers give tables.

What separates the cells is seen from the first lines. The first line is the header where no cell of it is empty or a
number, and no two are alike. Line breaks in a cell become blanks, so that a row stays a line.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable

from puna.base.errors import InputError
from puna.core.document import Document
from puna.data.readers.decode import decode
from puna.data.readers.reader import ReadConfig, Reader, make_document
from puna.knowledge.structure.block import Block

_SEPARATORS = ",;\t|"
_SAMPLE = 20  # rows by which the separator is chosen
_LONGEST_CELL = 1 << 20
_NUMBER = re.compile(r"[-+]?[\d.,]+(?:[eE][-+]?\d+)?%?")


def read(data: bytes, source: str, config: ReadConfig) -> Document:
    del config
    text = decode(data)
    rows = [cells for row in _rows(text, _separator(text)) if any(cells := [" ".join(cell.split()) for cell in row])]
    parts: list[str] = []
    blocks: list[Block] = []
    at = 0
    for number, cells in enumerate(rows):
        line = " | ".join(cell.replace("|", "\\|") for cell in cells)
        blocks.append(Block("row", at, at + len(line), int(number == 0 and _is_header(cells))))
        parts.append(line)
        at += len(line) + 1
    return make_document("\n".join(parts), source, "table", {"blocks": [block.to_json() for block in blocks]})


def _rows(text: str, separator: str) -> Iterable[list[str]]:
    before = csv.field_size_limit(_LONGEST_CELL)
    try:
        return list(csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True))
    except csv.Error as error:
        raise InputError("damaged table") from error
    finally:
        csv.field_size_limit(before)


def _separator(text: str) -> str:
    """The one that cuts the first rows into most cells, if all rows have as many; else the one that cuts at all."""

    def worth(separator: str) -> tuple[bool, int]:
        lines = text.split("\n", _SAMPLE)[:_SAMPLE]
        counts = [len(row) for row in csv.reader(lines, delimiter=separator, skipinitialspace=True) if row]
        return len(set(counts)) == 1 and counts[0] > 1, max(counts, default=0)

    try:
        return max(_SEPARATORS, key=worth)
    except csv.Error:
        return ","


def _is_header(cells: list[str]) -> bool:
    return len(set(cells)) == len(cells) and all(cell and not _NUMBER.fullmatch(cell) for cell in cells)


READER = Reader((".csv", ".tsv"), read)
