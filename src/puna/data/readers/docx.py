"""Word files (.docx) to plain text, with their structure beside it.

A .docx is a ZIP of XML parts. Headings (by the outline level of a paragraph or its style), list items, tables and
paragraphs are read from the body, in its order, as is the text of boxes. What was deleted with changes tracked is
left out, and what was inserted stays. Headers, footers, notes, comments and pictures are left out: they interrupt.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterator, Mapping
from xml.etree import ElementTree

from puna.base.errors import InputError
from puna.core.document import Document
from puna.data.readers.reader import ReadConfig, Reader, make_document
from puna.knowledge.structure.block import Block, BlockKind

_MOST_BYTES = 64 << 20  # of one part, unpacked: a small file may claim to hold very much
_SPACES = (
    "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}",
    "{http://purl.oclc.org/ooxml/wordprocessingml/main}",
)
_OTHER_READING = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"
_HEADING = re.compile(r"heading (\d)$", re.I)
_BLANK = re.compile(r"[ \t\u00a0]+")
_TIGHT = {("item", "item"), ("row", "row")}

Node = ElementTree.Element


def read(data: bytes, source: str, config: ReadConfig) -> Document:
    del config
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            body = _part(archive, "word/document.xml")
            names = archive.namelist()
            levels = _levels(_part(archive, "word/styles.xml")) if "word/styles.xml" in names else {}
    except (zipfile.BadZipFile, KeyError, RuntimeError, NotImplementedError, EOFError, OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError("damaged Word file") from error
    page = _Page(levels)
    page.walk(body)
    meta: dict[str, object] = {"blocks": [block.to_json() for block in page.blocks]}
    return make_document("".join(page.parts), source, "docx", meta)


def _part(archive: zipfile.ZipFile, name: str) -> Node:
    """An XML part as a tree, with the names of its elements brought to the older of the two namespaces."""
    with archive.open(name) as file:
        data = file.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise InputError("a Word file that unpacks to very much")
    if b"<!DOCTYPE" in data or b"<!ENTITY" in data:
        raise InputError("a Word file with entities")
    try:
        return ElementTree.fromstring(data.replace(_SPACES[1][1:-1].encode(), _SPACES[0][1:-1].encode()))
    except ElementTree.ParseError as error:
        raise InputError("damaged Word file") from error


def _w(name: str) -> str:
    return _SPACES[0] + name


def _value(node: Node | None, path: str) -> str | None:
    """The value of a setting below a node."""
    found = node.find("/".join(_w(part) for part in path.split("/"))) if node is not None else None
    return None if found is None else found.get(_w("val"))


def _levels(styles: Node) -> dict[str, int]:
    """The outline level, from 1, of each style that has one: its own, by its name, or of the style it is based on."""
    own: dict[str, int] = {}
    based: dict[str, str] = {}
    for style in styles.iter(_w("style")):
        id = style.get(_w("styleId")) or ""
        outline, name = _value(style, "pPr/outlineLvl"), _value(style, "name") or ""
        if outline is not None and outline.isdigit():
            own[id] = int(outline) + 1
        elif name.lower() == "title":
            own[id] = 1
        elif found := _HEADING.match(name):
            own[id] = int(found[1])
        based[id] = _value(style, "basedOn") or ""
    levels = {}
    for id in based:
        at, steps = id, 0
        while at and at not in own and steps < 20:  # a damaged file may go in circles
            at, steps = based.get(at, ""), steps + 1
        if 1 <= own.get(at, 10) <= 9:
            levels[id] = own[at]
    return levels


class _Page:
    """The text and blocks while the body is walked."""

    def __init__(self, levels: Mapping[str, int]) -> None:
        self.levels = levels
        self.parts: list[str] = []
        self.length = 0
        self.blocks: list[Block] = []

    def walk(self, root: Node) -> None:
        """Paragraphs and tables in the order of the text, without recursion into what is nested deeply."""
        stack = [root]
        while stack:
            node = stack.pop()
            if node.tag == _w("p"):
                self.paragraph(node)
                stack += list(reversed(list(_boxes(node))))
            elif node.tag == _w("tbl"):
                self.table(node)
            elif node.tag not in (_OTHER_READING, _w("sectPr")):
                stack += reversed(list(node))

    def paragraph(self, node: Node) -> None:
        text = "\n".join(line for line in (part.strip() for part in _text(node).split("\n")) if line)
        if not text:
            return
        settings = node.find(_w("pPr"))
        outline = _value(settings, "outlineLvl")
        level = self.levels.get(_value(settings, "pStyle") or "", 0)
        if outline is not None and outline.isdigit():
            level = int(outline) + 1 if int(outline) < 9 else 0
        number = _value(settings, "numPr/numId")
        if level:
            self.emit("heading", text.replace("\n", " "), min(level, 6))
        elif number not in (None, "0") or "list" in (_value(settings, "pStyle") or "").lower():
            depth = _value(settings, "numPr/ilvl") or "0"
            self.emit("item", text, int(depth) if depth.isdigit() else 0)
        else:
            self.emit("paragraph", text)

    def table(self, node: Node) -> None:
        """A row a line; the first is a header. A table in a cell is read as that cell's text."""
        for number, row in enumerate(node.findall(_w("tr"))):
            cells = [_BLANK.sub(" ", " ".join(_text(cell).split())) for cell in row.findall(_w("tc"))]
            if any(cells):
                self.emit("row", " | ".join(cell.replace("|", "\\|") for cell in cells), int(number == 0))

    def emit(self, kind: BlockKind, text: str, level: int = 0) -> None:
        before = self.blocks[-1].kind if self.blocks else None
        gap = "" if before is None else "\n" if (before, kind) in _TIGHT else "\n\n"
        mark = "  " * min(level, 8) + "- " if kind == "item" else ""
        self.parts.append(f"{gap}{mark}{text}")
        self.length += len(self.parts[-1])
        self.blocks.append(Block(kind, self.length - len(text), self.length, level))


_SILENT = {_w("moveFrom"), _w("pPr"), _w("rPr"), _w("txbxContent"), _w("instrText"), _OTHER_READING}
_CHARS = {_w("tab"): "\t", _w("br"): "\n", _w("cr"): "\n", _w("noBreakHyphen"): "-", _w("p"): "\n"}


def _text(root: Node) -> str:
    """The words below a node, in order."""
    parts: list[str] = []
    stack = [root]
    while stack:
        node = stack.pop()
        if node.tag in _SILENT:
            continue
        if node.tag == _w("t"):
            parts.append(node.text or "")
        else:
            parts.append(_CHARS.get(node.tag, ""))
            stack += reversed(list(node))
    return _BLANK.sub(" ", "".join(parts))


def _boxes(root: Node) -> Iterator[Node]:
    """Text boxes below a paragraph, which are paragraphs of their own."""
    stack = list(root)
    while stack:
        node = stack.pop(0)
        if node.tag == _w("txbxContent"):
            yield node
        elif node.tag != _OTHER_READING:
            stack = [*node, *stack]


READER = Reader((".docx",), read)
