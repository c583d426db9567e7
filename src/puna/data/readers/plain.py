"""Plain text. Paragraphs that a program or a typist filled to a column are put on one line each."""

from __future__ import annotations

from puna.core.document import Document
from puna.data.readers.decode import decode
from puna.data.readers.reader import ReadConfig, Reader, make_document
from puna.knowledge.structure import plain
from puna.knowledge.structure.block import tidy


def read(data: bytes, source: str, config: ReadConfig) -> Document:
    text = decode(data)
    return make_document(join_paragraphs(text) if config.join_lines else text, source, "text")


def join_paragraphs(text: str) -> str:
    return tidy(text, plain.parse(text))


READER = Reader((".txt", ".text"), read)
