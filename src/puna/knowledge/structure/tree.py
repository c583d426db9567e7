"""A document as a tree whose nodes tile the text: what may be cut apart, and in which order.

For Python the nodes are statements: a definition with the comments and decorators above it, its head (signature and
docstring in one piece), and the statements of its body. For other code they are what it declares. For prose they are
sections and, below them, paragraphs; a definition stays with its term, and code with the sentence that announces it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from puna.core.document import Document
from puna.knowledge.structure import code, python
from puna.knowledge.structure.block import Block
from puna.knowledge.structure.outline import outline


@dataclass(slots=True)
class Unit:
    """`text[start:end]`.

    Attributes:
        title: the node's part of a heading path; "" for a node that is no definition and no section.
        children: they tile the node from its start to its end, or there are none.
    """

    start: int
    end: int
    title: str = ""
    children: list[Unit] = field(default_factory=list)

    def __len__(self) -> int:
        return self.end - self.start


def tree(document: Document) -> Unit:
    """The root, which covers the whole text."""
    if document.meta.get("kind") == "python":
        source = python.parse(document.text)
        if source is not None:
            return _python_tree(source)
    if document.meta.get("kind") == "code":
        found = code.units(document.text, str(document.meta.get("language", "")))
        return Unit(0, len(document.text), children=_code_units(document.text, found, 0, len(document.text)))
    return _section_tree(document.text, outline(document))


def _tiled(units: list[Unit], start: int, end: int) -> list[Unit]:
    """The units, whose starts are set, each stretched to the next one; before the first stands one of its own."""
    if not units or units[0].start > start:
        units = [Unit(start, end), *units]
    for unit, after in pairwise(units):
        unit.end = after.start
    units[-1].end = end
    return units


# Python ---------------------------------------------------------------------------------------------------------------

_BLOCKS = ("body", "handlers", "orelse", "finalbody", "cases")


def _python_tree(source: python.Source) -> Unit:
    root = Unit(0, len(source.text))
    root.children = _statements(source, source.tree.body, 0, root.end)
    return root


def _statements(source: python.Source, body: Sequence[ast.stmt], start: int, end: int) -> list[Unit]:
    """One unit a statement, with the comments above it; what shares a line with the statement before belongs to it."""
    units: list[Unit] = []
    nodes: list[ast.stmt] = []
    last_line = 0
    for node in body:
        if python.first_line(node) > last_line:
            cut = source.line_start(last_line + 1) if units else start
            units.append(Unit(cut, cut, _title(node)))
            nodes.append(node)
        last_line = node.end_lineno or node.lineno
    tiled = _tiled(units, start, end)
    for unit, node in zip(units, nodes, strict=True):
        unit.children = _parts(source, node, unit)
    return tiled


def _title(node: ast.stmt) -> str:
    if isinstance(node, ast.ClassDef):
        return f"class {node.name}"
    return f"def {node.name}" if isinstance(node, python.DEFINITIONS) else ""


def _parts(source: python.Source, node: ast.stmt, unit: Unit) -> list[Unit]:
    """A compound statement as its head, with a docstring, and the statements below it."""
    inner: list[ast.stmt] = []
    for name in _BLOCKS:
        for item in getattr(node, name, []):
            inner.extend(getattr(item, "body", [item]) if not isinstance(item, ast.stmt) else [item])
    inner = [item for item in inner if python.first_line(item) > node.lineno]
    if not inner:
        return []
    if isinstance(node, python.DEFINITIONS) and python.docstring(node) is not None:
        head = inner.pop(0)
        cut = source.line_start((head.end_lineno or head.lineno) + 1)
    else:
        cut = source.line_start(python.first_line(inner[0]))
    return [Unit(unit.start, cut), *_statements(source, inner, cut, unit.end)]


# Other code -----------------------------------------------------------------------------------------------------------


def _code_units(text: str, found: Sequence[code.CodeUnit], start: int, end: int) -> list[Unit]:
    """The units, and what stands between them; they tile the text from `start` to `end`, or there are none."""
    tiles: list[tuple[int, str, Sequence[code.CodeUnit]]] = []  # (first character, title, what is in it)
    at = start
    for unit in found:
        if text[at : unit.start].strip():
            tiles.append((at, "", ()))
        tiles.append((unit.start if tiles else start, unit.title, unit.inner))
        at = min(unit.end + 1, end)
    if tiles and text[at:end].strip():
        tiles.append((at, "", ()))
    ends = [*(tile[0] for tile in tiles[1:]), end]
    return (
        [
            Unit(first, last, title, _code_units(text, inner, first, last))
            for (first, title, inner), last in zip(tiles, ends, strict=True)
        ]
        if tiles
        else []
    )


# Prose ----------------------------------------------------------------------------------------------------------------


def _section_tree(text: str, blocks: Sequence[Block]) -> Unit:
    """Sections by the levels of their headings; a section's children are its lead and the sections in it."""
    root = Unit(0, len(text))
    stack: list[tuple[int, Unit]] = [(0, root)]
    leads: list[tuple[Unit, list[Block]]] = [(root, [])]
    for block in blocks:
        if block.kind == "heading":
            cut = _line_start(text, block.start)
            while stack[-1][0] >= block.level:
                stack.pop()[1].end = cut
            unit = Unit(cut, len(text), " ".join(text[block.start : block.end].split()))
            stack[-1][1].children.append(unit)
            stack.append((block.level, unit))
            leads.append((unit, []))
        else:
            leads[-1][1].append(block)
    for unit, own in leads:
        end = unit.children[0].start if unit.children else unit.end
        lead = Unit(unit.start, end, children=_paragraphs(text, own, unit.start, end))
        unit.children = [lead, *unit.children] if unit.children else lead.children
    return root


def _line_start(text: str, at: int) -> int:
    return text.rfind("\n", 0, at) + 1


_ANNOUNCES = re.compile(r":\s*$")


def _paragraphs(text: str, blocks: Sequence[Block], start: int, end: int) -> list[Unit]:
    """A unit for each block that can stand alone: not a definition without its term, nor code without its lead-in."""
    units: list[Unit] = []
    before: Block | None = None
    for block in blocks:
        cut = start if before is None else _line_start(text, block.start)  # a heading stays with what follows it
        if before is None or (cut > units[-1].start and not _belongs(text, before, block)):
            units.append(Unit(cut, cut))
        before = block
    return _tiled(units, start, end)


def _belongs(text: str, before: Block, block: Block) -> bool:
    if before.kind == "term" and block.kind in ("definition", "term"):
        return True
    return block.kind in ("code", "item", "step") and bool(_ANNOUNCES.search(text[before.start : before.end]))
