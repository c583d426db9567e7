"""HTML pages to plain text, with their structure beside it.

A walk over the parsed page writes headings, paragraphs, lists, definition lists, code and tables as readable text
without markup, and leaves where each stands in `meta["blocks"]`. Scripts, forms, navigation and other furniture are
left out: by element, by role and class name, and where a list is nothing but links. If that leaves next to nothing of
a page, the page is read again with only scripts and forms left out, because losing a page is worse than a menu in it.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from typing import Any

from resiliparse.parse.encoding import detect_encoding
from resiliparse.parse.html import HTMLTree, NodeType

from puna.base.errors import InputError
from puna.core.document import Document
from puna.data.readers.decode import decode
from puna.data.readers.reader import ReadConfig, Reader, make_document
from puna.knowledge.structure.block import Block, BlockKind

Node = Any  # of resiliparse, whose major versions name the classes of their nodes differently

_TABLE = tomllib.loads((resources.files("puna.data") / "assets/html.toml").read_text(encoding="utf-8"))
_DROPPED, _FURNITURE, _ROLES, _NAMES, _ANCHORS, _INLINE = (
    frozenset(_TABLE[name])
    for name in ("dropped", "furniture", "furniture_roles", "furniture_names", "anchors", "inline")
)
_SLOTS: dict[str, BlockKind] = {"dt": "term", "dd": "definition", "blockquote": "quote"}
_LAYOUT = "table, pre, ul, ol, dl, h1, h2, h3, h4, blockquote"
_SPACE = re.compile(r"[ \t\n\r\f\u00a0]+")
_LEFT_OF_PAGE = 0.1  # less than this share of a page's text means that the rules for furniture misjudged it


def read(data: bytes, source: str, config: ReadConfig) -> Document:
    del config
    declared = detect_encoding(data, from_html_meta=True) if b"charset" in data[:1024].lower() else ""
    tree = HTMLTree.parse(decode(data, declared or ""))
    if tree.body is None:
        raise InputError("empty")
    page = _Page(strict=True)
    page.walk(_main(tree.body))
    if page.length < _LEFT_OF_PAGE * len(_SPACE.sub(" ", tree.body.text or "")):
        loose = _Page(strict=False)
        loose.walk(tree.body)
        page = loose if page.length < _LEFT_OF_PAGE * loose.length else page
    meta: dict[str, Any] = {"blocks": [block.to_json() for block in page.blocks]}
    if title := _SPACE.sub(" ", tree.title or "").strip():
        meta["title"] = title
    return make_document("".join(page.parts) + "\n", source, "html", meta)


def _main(body: Node) -> Node:
    """The element that holds the page's own content, where the page says which."""
    for selector in ("main, [role=main]", "article"):
        found = body.query_selector_all(selector)
        if len(found) == 1:
            return found[0]
    return body


def _children(node: Node) -> Iterator[Node]:
    child = node.first_child
    while child is not None:
        yield child
        child = child.next


@dataclass(frozen=True, slots=True)
class _Mark:
    """How much of a page was written, and how many links read, when a list began."""

    parts: int
    blocks: int
    length: int
    links: int
    linked: int


class _Page:
    """The text and blocks of a page while it is walked.

    `inline` gathers words until a block ends; `slots` holds what kind of block the next words make, innermost last.
    """

    def __init__(self, strict: bool) -> None:
        self.strict = strict
        self.parts: list[str] = []
        self.length = 0
        self.blocks: list[Block] = []
        self.inline: list[str] = []
        self.slots: list[tuple[BlockKind, int, str]] = []
        self.lists: list[int] = []  # the number of the next item; -1 in a list without numbers
        self.cells: list[str] | None = None  # of the row that is open
        self.marks: list[_Mark] = []  # where the open lists and tables began
        self.links = 0  # how many links have begun, and how many characters they hold
        self.linked = 0
        self.link_depth = 0
        self.turns = 0  # links of the open block that turn the page

    def walk(self, root: Node) -> None:
        """Visits the tree without recursion: a page may nest deeper than Python's stack."""
        stack: list[tuple[Node, bool]] = [(root, False)]
        while stack:
            node, leaving = stack.pop()
            if leaving:
                self.leave(node)
            elif node.type == NodeType.TEXT:
                self.inline.append(_SPACE.sub(" ", node.value or ""))
                self.linked += len(self.inline[-1]) if self.link_depth else 0
            elif node.type == NodeType.ELEMENT and self.enter(node):
                stack.append((node, True))
                stack.extend((child, False) for child in reversed(list(_children(node))))
        self.flush()

    def enter(self, node: Node) -> bool:
        """Whether to go on to the element's children."""
        tag = node.tag
        if tag in _DROPPED or self.is_furniture(node, tag):
            return False
        if tag in _INLINE:
            return self.enter_inline(node, tag)
        if self.cells is not None and tag not in ("tr", "td", "th"):
            self.inline.append(" ")
            return True
        self.flush()
        if tag == "pre":
            self.emit("code", (node.text or "").strip("\n").rstrip())
            return False
        if tag in _LISTS:
            self.open_list()
        if tag in ("ul", "ol"):
            start = node.getattr("start") or "1"
            self.lists.append((int(start) if start.isdigit() else 1) if tag == "ol" else -1)
        elif tag == "li":
            self.open_item()
        elif tag[0] == "h" and tag[1:].isdigit():
            self.slots.append(("heading", min(int(tag[1:]), 6), ""))
        elif tag in _SLOTS:
            self.slots.append((_SLOTS[tag], 0, ""))
        elif tag == "tr" and not self.in_layout(node):
            self.cells = []
        return True

    def enter_inline(self, node: Node, tag: str) -> bool:
        if tag == "br":
            self.inline.append("\n")
        elif tag == "img":
            self.inline.append(f" {(node.getattr('alt') or '').strip()} ")
        elif tag == "math" and node.getattr("alttext"):
            self.inline.append(node.getattr("alttext"))
        elif tag == "a":
            if (node.text or "").strip() in _ANCHORS and not node.query_selector("img[alt]"):
                return False
            self.links += 1
            self.link_depth += 1
            self.turns += (node.getattr("rel") or "") in ("next", "prev", "up")
            return True
        else:
            return True
        return False

    def leave(self, node: Node) -> None:
        tag = node.tag
        if tag in _INLINE:
            self.link_depth -= tag == "a"
            return
        if self.cells is not None:
            if tag in ("td", "th"):
                self.cells.append(_SPACE.sub(" ", "".join(self.inline)).strip())
                self.inline = []
            elif tag == "tr":
                self.end_row(node)
            else:
                self.inline.append(" ")
            return
        self.flush()
        if tag in ("ul", "ol"):
            self.lists.pop()
        elif tag == "li" or tag in _SLOTS or (tag[0] == "h" and tag[1:].isdigit()):
            self.slots.pop()
        if tag in _LISTS:
            self.close_list()

    def open_item(self) -> None:
        number = self.lists[-1] if self.lists else -1
        level = max(len(self.lists) - 1, 0)
        if number < 0:
            self.slots.append(("item", level, "- "))
        else:
            self.lists[-1] += 1
            self.slots.append(("step", level, f"{number}. "))

    def end_row(self, node: Node) -> None:
        cells, self.cells, self.inline = self.cells or [], None, []
        if any(cells):
            header = node.first_child is not None and all(
                child.tag == "th" for child in _children(node) if child.type == NodeType.ELEMENT
            )
            self.emit("row", " | ".join(cells), level=int(header))

    def in_layout(self, row: Node) -> bool:
        """Whether the row's table arranges parts of the page, and is no table of facts."""
        return bool(row.query_selector(_LAYOUT)) or (row.getattr("role") or "") in ("presentation", "none")

    def is_furniture(self, node: Node, tag: str) -> bool:
        if node.hasattr("hidden") or node.getattr("aria-hidden") == "true":
            return tag not in ("span", "math")
        if not self.strict:
            return False
        if tag in _FURNITURE or (node.getattr("role") or "") in _ROLES:
            return True
        names = f"{node.getattr('class') or ''} {node.getattr('id') or ''}".lower().split()
        return any(name in _NAMES for name in names) and tag not in ("body", "main", "article")

    def open_list(self) -> None:
        self.marks.append(_Mark(len(self.parts), len(self.blocks), self.length, self.links, self.linked))

    def close_list(self) -> None:
        """Takes back what a list or table added if it is a menu: short links and next to nothing else."""
        mark = self.marks.pop()
        links, linked = self.links - mark.links, self.linked - mark.linked
        written = sum(block.end - block.start for block in self.blocks[mark.blocks :])
        if self.strict and links >= 4 and linked < 60 * links and linked >= 0.8 * written:
            del self.parts[mark.parts :], self.blocks[mark.blocks :]
            self.length = mark.length

    def flush(self) -> None:
        """Ends the block whose words are gathered."""
        lines = [_SPACE.sub(" ", line).strip() for line in "".join(self.inline).split("\n")]
        turns, self.inline, self.turns = self.turns, [], 0
        text = "\n".join(line for line in lines if line)
        if not text or (self.strict and turns >= 2):
            return
        if not self.slots:
            self.emit("paragraph", text)
            return
        kind, level, prefix = self.slots[-1]
        self.slots[-1] = ("paragraph", level, "")
        self.emit(kind, text.replace("\n", " ") if kind == "heading" else text, level, prefix)

    def emit(self, kind: BlockKind, text: str, level: int = 0, prefix: str = "") -> None:
        if not text:
            return
        before = self.blocks[-1].kind if self.blocks else None
        tight = (before, kind) in _TIGHT
        gap = "" if before is None else "\n" if tight else "\n\n"
        indent = "  " * level if kind in ("item", "step") else ""
        self.parts.append(f"{gap}{indent}{prefix}{text}")
        self.length += len(self.parts[-1])
        self.blocks.append(Block(kind, self.length - len(text), self.length, level))


_LISTS = ("ul", "ol", "dl", "table")
_LIST: tuple[BlockKind, ...] = ("item", "step")
_TIGHT = {(a, b) for a in _LIST for b in _LIST} | {("row", "row"), ("term", "definition"), ("term", "term")}


READER = Reader((".html", ".htm", ".xhtml"), read)
