"""Jupyter notebooks: the words and the code, in the order of the cells.

What cells printed is left out unless it is asked for, and pictures always are. Which lines are code is told by
`meta["blocks"]`, because the joined text has no marks for it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from puna.base.errors import InputError
from puna.core.document import Document
from puna.data.readers.decode import decode
from puna.data.readers.markdown import clean
from puna.data.readers.reader import ReadConfig, Reader, make_document
from puna.knowledge.structure import markdown
from puna.knowledge.structure.block import Block


def read(data: bytes, source: str, config: ReadConfig) -> Document:
    blocks: list[Block] = []
    parts: list[str] = []
    at = 0
    for kind, text in _cells(_parsed(data), config):
        if kind == "markdown":
            text = clean(text, config.join_lines).strip("\n")
            blocks += [block.moved(at) for block in markdown.parse(text)]
        else:
            text = text.strip("\n")
            blocks.append(Block("code" if kind == "code" else "other", at, at + len(text)))
        parts.append(text)
        at += len(text) + 2
    return make_document("\n\n".join(parts), source, "notebook", {"blocks": [block.to_json() for block in blocks]})


def _parsed(data: bytes) -> Mapping[str, Any]:
    try:
        notebook = json.loads(decode(data))
    except (json.JSONDecodeError, RecursionError):
        raise InputError("damaged notebook") from None
    if not isinstance(notebook, dict):
        raise InputError("damaged notebook")
    return notebook


def _cells(notebook: Mapping[str, Any], config: ReadConfig) -> Iterator[tuple[str, str]]:
    """(kind, text) of every cell that says something; format 3 keeps its cells in worksheets."""
    try:
        sheets = [notebook, *notebook.get("worksheets", [])]
        for cell in (cell for sheet in sheets for cell in sheet.get("cells", [])):
            text = _joined(cell.get("source", cell.get("input", "")))
            if text.strip():
                yield cell["cell_type"], text
            if config.notebook_outputs:
                for output in cell.get("outputs", []):
                    printed = _joined(output.get("text") or output.get("data", {}).get("text/plain", ""))
                    if printed.strip():
                        yield "output", printed
    except (AttributeError, KeyError, TypeError):
        raise InputError("damaged notebook") from None


def _joined(lines: str | list[str]) -> str:
    text = lines if isinstance(lines, str) else "".join(lines)
    return text.replace("\r\n", "\n")


READER = Reader((".ipynb",), read)
