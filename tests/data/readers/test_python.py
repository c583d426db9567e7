"""Python sources as documents."""

from __future__ import annotations

import sysconfig
from pathlib import Path

import pytest

from puna.data.readers.python import READER
from puna.data.readers.reader import ReadConfig

CONFIG = ReadConfig()


def test_source_is_kept_as_it_is():
    document = READER.read(b"def f():\r\n    return 1\r\n", "f.py", CONFIG)
    assert (document.text, document.meta["kind"], document.source) == ("def f():\n    return 1\n", "python", "f.py")


@pytest.mark.parametrize(
    "head", ["# -*- coding: latin-1 -*-\n", "#!/usr/bin/python\n# vim: set fileencoding=latin-1 :\n"]
)
def test_an_encoding_cookie_is_obeyed(head: str):
    text = head + "name = 'schön'\n"
    assert READER.read(text.encode("latin-1"), "f.py", CONFIG).text == text


def test_a_cookie_after_code_is_none():
    text = "x = 1\n# coding: latin-1\ny = 'ö'\n"
    assert READER.read(text.encode(), "f.py", CONFIG).text == text


def test_a_table_of_texts_is_read_as_these_texts():
    texts = {
        name: f"The {name} statement\n" + "*" * 20 + "\n\n" + "Some words about it.\n" * 30 for name in ("if", "for")
    }
    lines = ["topics = {"]
    for name, text in texts.items():
        lines.append(f"{name!r}: " + "\n  ".join(repr(line + "\n") for line in text.splitlines()) + ",")
    source = "\n".join([*lines, "}\n"])
    document = READER.read(source.encode(), "topics.py", CONFIG)
    assert document.meta["kind"] == "text"
    assert "The if statement\n****" in document.text
    assert "\\n" not in document.text


def test_a_table_of_short_strings_stays_source():
    source = "messages = {\n" + "".join(f"  {i}: 'line\\n',\n" for i in range(400)) + "}\n"
    assert READER.read(source.encode(), "m.py", CONFIG).meta["kind"] == "python"


def test_the_language_reference_of_this_python_is_readable_text():
    topics = Path(sysconfig.get_path("stdlib"), "pydoc_data", "topics.py")
    if not topics.is_file():
        pytest.skip("this Python has no pydoc_data/topics.py")
    document = READER.read(topics.read_bytes(), "topics.py", CONFIG)
    assert document.meta["kind"] == "text"
    assert 'The "assert" statement\n*****' in document.text
