"""The readers by name, and by the ending of a file's name.

Another package adds a format with an entry point in the group `puna.readers` that names a `Reader`.
"""

from __future__ import annotations

from pathlib import PurePath

from puna.base.registry import Registry
from puna.data.readers import code, csv, docx, html, markdown, notebook, pdf, plain, python, restructured
from puna.data.readers.reader import Reader

READERS: Registry[Reader] = Registry("reader", "puna.readers")
for _name, _reader in (
    ("python", python.READER),
    ("markdown", markdown.READER),
    ("rst", restructured.READER),
    ("html", html.READER),
    ("text", plain.READER),
    ("notebook", notebook.READER),
    ("pdf", pdf.READER),
    ("docx", docx.READER),
    ("csv", csv.READER),
    ("code", code.READER),
):
    READERS.add(_name, _reader)


def readers_by_suffix() -> dict[str, Reader]:
    """Suffix, in lower case, to its reader."""
    return {suffix: READERS.get(name) for name in READERS for suffix in READERS.get(name).suffixes}


def suffix_of(name: str) -> str:
    return PurePath(name).suffix.lower()
