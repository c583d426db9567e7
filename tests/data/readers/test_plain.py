"""Plain text as documents."""

from __future__ import annotations

import textwrap

from puna.data.readers.plain import READER, join_paragraphs
from puna.data.readers.reader import ReadConfig

PROSE = "It was a bright cold day in April and all the clocks of the old town were striking thirteen at once. " * 3


def test_filled_paragraphs_are_joined():
    wrapped = textwrap.fill(PROSE, 70) + "\n\nTABLE\n\na  b\nc  d\n"
    assert join_paragraphs(wrapped) == PROSE.strip() + "\n\nTABLE\n\na  b\nc  d\n"


def test_joining_can_be_switched_off():
    wrapped = textwrap.fill(PROSE, 70) + "\n"
    assert READER.read(wrapped.encode(), "a.txt", ReadConfig(join_lines=False)).text == wrapped
    assert READER.read(wrapped.encode(), "a.txt", ReadConfig()).meta == {"kind": "text"}
