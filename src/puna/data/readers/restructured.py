"""reStructuredText, kept as it is but for roles and hard line breaks.

A role, as in :ref:`the guide <guide>`, is an instruction to a renderer; what a reader sees is "the guide".
"""

from __future__ import annotations

import re

from puna.core.document import Document
from puna.data.readers.decode import decode
from puna.data.readers.reader import ReadConfig, Reader, make_document
from puna.knowledge.structure import restructured
from puna.knowledge.structure.block import tidy

_TITLED_ROLE = re.compile(r"(?<![\w:`]):[A-Za-z][\w:+.-]*:`([^`<]*[^`<\s])\s*<[^`]*>`")
_ROLE = re.compile(r"(?<![\w:`]):[A-Za-z][\w:+.-]*:`[~!]?([^`]+)`")
_LOCAL_LINK = re.compile(r"(?<![\w`])`([^`<>]+)`__?(?!\w)")


def read(data: bytes, source: str, config: ReadConfig) -> Document:
    text = _TITLED_ROLE.sub(r"\1", decode(data))
    text = _LOCAL_LINK.sub(r"\1", _ROLE.sub(r"`\1`", text))
    if config.join_lines:
        text = tidy(text, restructured.parse(text))
    return make_document(text, source, "rst")


READER = Reader((".rst", ".rest"), read)
