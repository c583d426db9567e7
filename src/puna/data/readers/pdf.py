"""PDF files that hold text, page by page (pypdf). A scan holds pictures of text, and is skipped as empty.

`meta["pages"]` gives the offset at which each page begins.
"""

from __future__ import annotations

import io
import logging
import re

from puna.base.errors import InputError, missing_extra
from puna.core.document import Document
from puna.data.readers.plain import join_paragraphs
from puna.data.readers.reader import ReadConfig, Reader, make_document

_HYPHENATED = re.compile(r"(?<=[a-z])-\n(?=[a-z])")


def read(data: bytes, source: str, config: ReadConfig) -> Document:
    pages: list[str] = []
    for page in _pages(data):
        text = _HYPHENATED.sub("", page.replace("\r\n", "\n").replace("\0", "")).strip()
        pages.append(join_paragraphs(text) if config.join_lines else text)
    starts = [0]
    for page in pages:
        starts.append(starts[-1] + len(page) + 2)
    return make_document("\n\n".join(pages), source, "pdf", {"pages": starts[:-1]})


def _pages(data: bytes) -> list[str]:
    try:
        import pypdf
        from pypdf.errors import PyPdfError
    except ImportError as error:
        raise missing_extra("pypdf", "pdf", "Reading PDF files") from error
    logging.getLogger("pypdf").setLevel(logging.ERROR)  # it warns of every oddity that it can repair
    try:
        file = pypdf.PdfReader(io.BytesIO(data))
        if file.is_encrypted and not file.decrypt(""):
            raise InputError("encrypted PDF")
        return [page.extract_text() for page in file.pages]
    except (PyPdfError, ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError("damaged PDF") from error


READER = Reader((".pdf",), read)
