"""What a general compressor needs for the same text: the yardstick beside a model's bits per byte.

`given` is the fair one for a trained model: what the held-out text adds to the training text when both are compressed
together, in one window large enough for both.
"""

from __future__ import annotations

import lzma
from collections.abc import Iterable
from dataclasses import dataclass

from puna.core.document import Document

# The dictionary of `xz -9`.
XZ_DICTIONARY = 64 << 20


@dataclass(frozen=True, slots=True)
class XzBits:
    """Bits per byte of held-out text under `xz -9e`.

    Attributes:
        alone: the held-out text by itself.
        given: size of xz(training + held-out) minus xz(training).
        covered: whether training and held-out text fit the 64 MiB dictionary; if not, `given` flatters the model.
    """

    alone: float
    given: float
    covered: bool


def xz_bits(train: Iterable[Document], held_out: Iterable[Document]) -> XzBits:
    """Compresses; takes about a second a megabyte."""
    before, text = _bytes(train), _bytes(held_out)
    if not text:
        return XzBits(0.0, 0.0, True)
    alone, together = _xz(text), _xz(before + text) - _xz(before)
    return XzBits(8 * alone / len(text), 8 * together / len(text), len(before) + len(text) <= XZ_DICTIONARY)


def _bytes(documents: Iterable[Document]) -> bytes:
    return b"".join(document.text.encode() for document in documents)


def _xz(data: bytes) -> int:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": XZ_DICTIONARY}]
    return len(lzma.compress(data, format=lzma.FORMAT_XZ, filters=filters))
