"""The blocks of a document, whatever it was written in.

A reader whose text keeps its notation (Markdown, reStructuredText, plain text) lets the text be read again; a reader
that drops the notation (HTML, notebooks) leaves the blocks in `meta["blocks"]`.
"""

from __future__ import annotations

from functools import lru_cache

from puna.base.errors import InputError
from puna.core.document import Document
from puna.knowledge.structure import code, markdown, plain, restructured
from puna.knowledge.structure.block import Block

_PARSERS = {"markdown": markdown.parse, "rst": restructured.parse, "code": code.parse}


def outline(document: Document) -> list[Block]:
    """Blocks in text order that do not overlap; offsets are characters of `document.text`.

    Raises:
        InputError: `meta["blocks"]` does not fit the text.
    """
    if "blocks" in document.meta:
        return _checked(document)
    return list(_parse(document.text, str(document.meta.get("kind", ""))))


@lru_cache(maxsize=4)
def _parse(text: str, kind: str) -> tuple[Block, ...]:
    return tuple(_PARSERS.get(kind, plain.parse)(text))


def _checked(document: Document) -> list[Block]:
    blocks = [Block(*row) for row in document.meta["blocks"]]
    at = 0
    for block in blocks:
        if not at <= block.start <= block.end <= len(document.text):
            raise InputError(
                f"The document {document.source or document.id} has a block at {block.start}-{block.end}, "
                f"after {at} and within {len(document.text)} characters of text.",
                hint="Its structure belongs to another text: read the documents again.",
            )
        at = block.end
    return blocks
