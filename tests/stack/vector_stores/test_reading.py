"""Uploaded bytes as text, by the ending of their name, or the reason why not."""

from __future__ import annotations

import json

import pytest

from puna.stack.vector_stores.reading import UnreadableError, read_text


def test_a_document_bears_the_files_id_and_name() -> None:
    document = read_text("Grüße".encode(), "file-1", "Notes.TXT")
    assert (document.text, document.id, document.source) == ("Grüße", "file-1", "Notes.TXT")


def test_the_ending_of_the_name_says_how_to_read() -> None:
    page = b"<html><body><h1>Title</h1><p>Text of the page.</p><script>x()</script></body></html>"
    text = read_text(page, "file-1", "page.html").text
    assert "Text of the page." in text
    assert "<p>" not in text
    assert "x()" not in text
    notebook = {
        "cells": [{"cell_type": "markdown", "metadata": {}, "source": ["A cell."]}],
        "metadata": {},
        "nbformat": 4,
    }
    assert "A cell." in read_text(json.dumps(notebook).encode(), "file-1", "a.ipynb").text


@pytest.mark.parametrize("name", ["README", "a.log", "a.unknown", ""])
def test_an_unknown_ending_is_read_as_plain_text(name: str) -> None:
    assert read_text(b"plain words", "file-1", name).text == "plain words"


@pytest.mark.parametrize(
    ("data", "name", "code"),
    [
        (b"\x00\x01\x02", "a.txt", "unsupported_file"),
        (b"", "a.txt", "invalid_file"),
        (b"not a pdf", "a.pdf", "invalid_file"),
        (b"{", "a.ipynb", "invalid_file"),
    ],
)
def test_a_file_without_text_is_refused_with_a_reason(data: bytes, name: str, code: str) -> None:
    with pytest.raises(UnreadableError) as caught:
        read_text(data, "file-1", name)
    assert caught.value.code == code
    assert name in caught.value.message
