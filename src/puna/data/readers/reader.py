"""The seam of the readers: bytes in, a `Document` out.

A reader knows nothing of folders. It says why it cannot read some bytes by raising `InputError` whose message is the
reason in a few words ("undecodable"), because the walk over a folder counts files by that reason and goes on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from puna.base.config import require
from puna.base.errors import InputError
from puna.base.files import hash_bytes
from puna.core.document import Document


@dataclass(frozen=True, slots=True)
class ReadConfig:
    """Which files of a folder are read, and how.

    Attributes:
        max_bytes: larger files are skipped.
        exclude: glob patterns. One without "/" is matched with the name of every file and folder, another with the
            path below the root: "test_*", "docs/old/*".
        suffixes: only files with these, such as ".md"; empty for all that a reader knows.
        generated: read also files whose first lines say that a program wrote them.
        join_lines: put each paragraph of hard-wrapped Markdown, reStructuredText or plain text on one line.
        notebook_outputs: keep the text that a notebook's cells printed.
    """

    max_bytes: int = 8 * 2**20
    exclude: tuple[str, ...] = ()
    suffixes: tuple[str, ...] = ()
    generated: bool = True
    join_lines: bool = True
    notebook_outputs: bool = False

    def __post_init__(self) -> None:
        require(self.max_bytes >= 1, f"max_bytes is {self.max_bytes}, and must be at least 1.")
        for suffix in self.suffixes:
            require(suffix.startswith("."), f"suffixes holds {suffix!r}.", 'Write it with its dot, such as ".md".')


@dataclass(frozen=True, slots=True)
class Reader:
    """One family of formats.

    Attributes:
        suffixes: endings of file names, in lower case, with the dot.
        read: (bytes, source, config) to a document; raises `InputError` with the reason where it cannot.
    """

    suffixes: tuple[str, ...]
    read: Callable[[bytes, str, ReadConfig], Document]


_HALVES = re.compile("[\ud800-\udfff]")  # halves of surrogate pairs, which JSON may hold and UTF-8 may not


def make_document(text: str, source: str, kind: str, meta: Mapping[str, Any] | None = None) -> Document:
    """A document named by the hash of its text.

    Raises:
        InputError: there is nothing but blanks in it ("empty").
    """
    if not text.strip():
        raise InputError("empty")
    text = _HALVES.sub("\ufffd", text)
    return Document(text=text, id=hash_bytes(text.encode())[:32], source=source, meta={"kind": kind, **(meta or {})})
