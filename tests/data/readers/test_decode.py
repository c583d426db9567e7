"""Bytes to text: every encoding that says what it is, and no guess that makes garbage."""

from __future__ import annotations

import codecs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.base.errors import InputError
from puna.data.readers.decode import decode

PRINTABLE = st.text(st.characters(exclude_categories=("Cs", "Cc", "Cn")), min_size=1)


@given(PRINTABLE.filter(lambda text: not text.startswith("\ufeff")))
def test_utf8_comes_back_with_and_without_a_mark(text: str):
    assert decode(text.encode()) == text
    assert decode(codecs.BOM_UTF8 + text.encode()) == text


@pytest.mark.parametrize(("mark", "name"), [
    (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"),
    (codecs.BOM_UTF32_LE, "utf-32-le"), (codecs.BOM_UTF32_BE, "utf-32-be"),
])  # fmt: skip
def test_other_marks_are_obeyed(mark: bytes, name: str):
    assert decode(mark + "schön 本".encode(name)) == "schön 本"


def test_newlines_become_one_kind():
    assert decode(b"a\r\nb\rc\n") == "a\nb\nc\n"


def test_a_declared_encoding_comes_before_utf8_and_a_false_one_is_passed_over():
    assert decode("ö".encode("cp437") * 9, "cp437") == "ö" * 9
    assert decode("schön".encode(), "ascii") == "schön"
    assert decode("schön".encode(), "no-such-codec") == "schön"
    assert decode("schön".encode(), "rot13") == "schön"


def test_old_encodings_are_detected_in_running_text():
    text = "Les élèves français étudient à l'école où ils ont été reçus, très tôt, près de la forêt. " * 4
    assert decode(text.encode("latin-1")) == text
    text = "Привет, как дела? Мы читаем книги и пишем письма друзьям каждый день. " * 4
    assert decode(text.encode("cp1251")) == text


@pytest.mark.parametrize("data", [b"\x89PNG\r\n\0\0", b"text\0text", "text".encode("utf-16-le")])
def test_binary_files_are_told_apart(data: bytes):
    with pytest.raises(InputError, match=r"^binary$"):
        decode(data)


@pytest.mark.parametrize("data", [bytes(range(1, 256)) * 4, b"\xff\xfe\xff", b"\x01\x02\x03\x04" * 50])
def test_what_decodes_to_no_text_is_refused(data: bytes):
    with pytest.raises(InputError, match=r"undecodable|binary"):
        decode(data)


@given(st.binary(max_size=200))
def test_any_bytes_give_text_or_a_reason(data: bytes):
    try:
        assert "\r" not in decode(data)
    except InputError as error:
        assert error.message in ("binary", "undecodable")
