"""Source files in other languages than Python."""

from __future__ import annotations

import pytest

from puna.base.errors import InputError
from puna.data.questions.finders import facts
from puna.data.readers.code import LANGUAGES, READER
from puna.data.readers.reader import ReadConfig


@pytest.mark.parametrize(
    ("name", "language"), [("a.c", "c"), ("A.H", "c"), ("x/y.tsx", "typescript"), ("b.R", "r"), ("noname", "")]
)
def test_the_name_tells_the_language(name: str, language: str):
    document = READER.read(b"int x;\r\n", name, ReadConfig())
    assert document.text == "int x;\n"
    assert document.meta == {"kind": "code", "language": language}


def test_no_suffix_has_two_languages():
    suffixes = [suffix for those in LANGUAGES.values() for suffix in those]
    assert len(suffixes) == len(set(suffixes)) == len(READER.suffixes)


def test_nothing_is_asked_about_code_as_if_it_were_prose():
    text = b"// The kea is a parrot. It is defined as a bird.\nint kea(int n) {\n  return n; // Returns n.\n}\n"
    assert facts(READER.read(text, "kea.c", ReadConfig())) == []


def test_binary_and_empty_files_are_refused():
    with pytest.raises(InputError, match="binary"):
        READER.read(b"\0\1\2", "a.c", ReadConfig())
    with pytest.raises(InputError, match="empty"):
        READER.read(b"\n", "a.c", ReadConfig())
