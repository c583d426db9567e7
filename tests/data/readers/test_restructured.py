"""reStructuredText as documents."""

from __future__ import annotations

from puna.data.readers.reader import ReadConfig
from puna.data.readers.restructured import READER


def read(text: str, config: ReadConfig | None = None) -> str:
    return READER.read(text.encode(), "a.rst", config or ReadConfig()).text


def test_roles_and_references_become_what_a_reader_sees():
    text = "Use :func:`~os.path.join`, :ref:`the guide <guide>`, `Reading`_ or ``:x:`y```.\n"
    assert read(text) == "Use `os.path.join`, the guide, Reading or ``:x:`y```.\n"


def test_a_link_to_the_web_stays():
    assert read("See `Python <https://python.org>`_ for more.\n") == "See `Python <https://python.org>`_ for more.\n"


def test_prose_is_joined_and_literal_blocks_are_not():
    text = "Title\n=====\n\nOne\ntwo::\n\n    a\n    b\n\n- item\n  more\n"
    assert read(text) == "Title\n=====\n\nOne two::\n\n    a\n    b\n\n- item more\n"
    assert read(text, ReadConfig(join_lines=False)) == text
