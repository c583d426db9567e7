"""Python source, kept as it is: the syntax tells its structure.

A module that is nothing but a table of long texts, as programs write them (`topics = {"assert": "The assert ..."}`),
is read as these texts: in source form they are quotes and escapes at every line end.
"""

from __future__ import annotations

import ast
import re

from puna.core.document import Document
from puna.data.readers.decode import decode
from puna.data.readers.plain import join_paragraphs
from puna.data.readers.reader import ReadConfig, Reader, make_document
from puna.knowledge.structure import python

_COOKIE = re.compile(rb"^[ \t\f]*#.*?coding[:=][ \t]*([-\w.]+)")  # PEP 263
_MEAN_TEXT = 400  # characters: a table of texts, and not of messages
_TEXT_SHARE = 0.6  # of the source


def read(data: bytes, source: str, config: ReadConfig) -> Document:
    text = decode(data, _declared(data))
    if (texts := _table_of_texts(text)) is not None:
        joined = "\n\n\n".join(texts)
        return make_document(join_paragraphs(joined) if config.join_lines else joined, source, "text")
    return make_document(text, source, "python")


def _declared(data: bytes) -> str:
    """The encoding named in a comment in the first two lines."""
    for line in data.splitlines()[:2]:
        if found := _COOKIE.match(line):
            return found[1].decode("ascii")
        if line.strip() and not line.lstrip().startswith(b"#"):
            break
    return ""


def _table_of_texts(text: str) -> list[str] | None:
    parsed = python.parse(text) if text.count("\\n") * 200 > len(text) or text.count("'''") > 4 else None
    if parsed is None:
        return None
    body = [node for node in parsed.tree.body if not isinstance(node, ast.Expr)]
    if len(body) != 1 or not isinstance(body[0], ast.Assign) or not isinstance(body[0].value, ast.Dict):
        return None
    values = [node.value for node in body[0].value.values if isinstance(node, ast.Constant)]
    texts = [value for value in values if isinstance(value, str)]
    size = sum(map(len, texts))
    if len(texts) < len(body[0].value.values) or size < max(_MEAN_TEXT * len(texts), _TEXT_SHARE * len(text)):
        return None
    return texts


READER = Reader((".py", ".pyw", ".pyi"), read)
