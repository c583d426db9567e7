"""Bytes to text, or a refusal: a wrong guess would teach a model garbage.

In order: a byte-order mark, what the file declares, UTF-8, and then detection (uchardet through resiliparse). What is
decoded must hold next to no control characters. Newlines become "\\n".
"""

from __future__ import annotations

import codecs
import re

from resiliparse.parse.encoding import detect_encoding

from puna.base.errors import InputError

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_CONTROL = re.compile("[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f-\x9f\ufffe\uffff]")
_MOST_CONTROL = 0.002  # of all characters; a stray escape sequence does not make a text binary
_SAMPLE = 1 << 16


def decode(data: bytes, declared: str = "") -> str:
    """The text of a file.

    Args:
        data: the bytes.
        declared: the name of the encoding that the file itself gives; "" for none.

    Raises:
        InputError: "binary" for bytes that no text holds, or "undecodable".
    """
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return _text(data[len(mark) :], encoding)
    if b"\0" in data[:_SAMPLE]:
        raise InputError("binary")
    failure = InputError("undecodable")
    for encoding in (declared, "utf-8", detect_encoding(data, html5_compatible=False) or ""):
        try:
            return _text(data, codecs.lookup(encoding).name)
        except LookupError:
            continue  # no name, or one that Python does not know
        except InputError as error:
            failure = error
    raise failure


def _text(data: bytes, encoding: str) -> str:
    """Strict decoding; `LookupError` for a codec that does not make text."""
    try:
        text = data.decode(encoding)
    except UnicodeError:
        raise InputError("undecodable") from None
    if len(_CONTROL.findall(text[:_SAMPLE])) > _MOST_CONTROL * min(len(text), _SAMPLE):
        raise InputError("undecodable")
    return text.replace("\r\n", "\n").replace("\r", "\n")
