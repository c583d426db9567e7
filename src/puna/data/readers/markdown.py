"""Markdown, kept as Markdown, but for what its renderer would not show.

Comments go, the lines of a paragraph are joined, and a link to another file of the same folder or to a heading becomes
its words: such a target leads nowhere outside that folder. Links to the web stay.
"""

from __future__ import annotations

import re

from puna.core.document import Document
from puna.data.readers.decode import decode
from puna.data.readers.reader import ReadConfig, Reader, make_document
from puna.knowledge.structure import markdown
from puna.knowledge.structure.block import PROSE, Block, tidy

_LOCAL_LINK = re.compile(
    r"(?<![!\\])\[((?:[^\[\]\n]|\[[^\[\]\n]*\])+)\]\((?![a-z][a-z0-9+.-]*:|//)[^()\s]*(?: \"[^\"\n]*\")?\)"
)
_REFERENCE = re.compile(r"(?<![!\\\]])\[([^\[\]\n]+)\]\[[^\[\]\n]*\]")


def read(data: bytes, source: str, config: ReadConfig) -> Document:
    return make_document(clean(decode(data), config.join_lines), source, "markdown")


def clean(text: str, join_lines: bool) -> str:
    """The text without comments and local links; with `join_lines`, each paragraph on one line."""
    blocks = markdown.parse(text)
    if not join_lines:
        blocks = [block for block in blocks if block.kind == "comment"]
    text = tidy(text, blocks)
    return _without_links(text, markdown.parse(text))


def _without_links(text: str, blocks: list[Block]) -> str:
    parts = []
    done = 0
    for block in blocks:
        if block.kind in PROSE or block.kind in ("heading", "term", "row"):
            words = _LOCAL_LINK.sub(r"\1", text[block.start : block.end])
            parts += [text[done : block.start], _REFERENCE.sub(r"\1", words)]
            done = block.end
    return "".join([*parts, text[done:]])


READER = Reader((".md", ".markdown", ".mkd", ".mdx"), read)
