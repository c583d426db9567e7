"""Notebooks as documents."""

from __future__ import annotations

import json

import pytest

from puna.base.errors import InputError
from puna.data.readers.notebook import READER
from puna.data.readers.reader import ReadConfig
from puna.knowledge.structure.outline import outline

NOTEBOOK = {
    "nbformat": 4,
    "cells": [
        {"cell_type": "markdown", "source": ["# Title\n", "\n", "Some\n", "words.\n"]},
        {
            "cell_type": "code",
            "source": "# not a heading\nprint(1)",
            "outputs": [{"text": ["1\n"]}, {"data": {"image/png": "iVBOR", "text/plain": "<Figure>"}}],
        },
        {"cell_type": "raw", "source": ""},
    ],
}


def read(notebook: object, **options: bool):
    return READER.read(json.dumps(notebook).encode(), "a.ipynb", ReadConfig(**options))


def test_cells_are_joined_and_their_kinds_kept():
    document = read(NOTEBOOK)
    assert document.text == "# Title\n\nSome words.\n\n# not a heading\nprint(1)"
    kinds = [(block.kind, document.text[block.start : block.end]) for block in outline(document)]
    assert kinds == [("heading", "Title"), ("paragraph", "Some words."), ("code", "# not a heading\nprint(1)")]


def test_printed_text_is_kept_on_request_and_pictures_never():
    assert "iVBOR" not in read(NOTEBOOK, notebook_outputs=True).text
    assert read(NOTEBOOK, notebook_outputs=True).text.endswith("print(1)\n\n1\n\n<Figure>")


def test_the_old_format_keeps_its_cells_in_worksheets():
    old = {"worksheets": [{"cells": [{"cell_type": "code", "input": "x = 1"}]}]}
    assert read(old).text == "x = 1"


@pytest.mark.parametrize(
    "notebook", [[], {"cells": [{"source": "x"}]}, {"cells": ["x"]}, {"cells": 3}, {"worksheets": 1}]
)
def test_what_is_no_notebook_is_refused(notebook: object):
    with pytest.raises(InputError, match="damaged notebook"):
        read(notebook)


def test_broken_json_is_refused():
    with pytest.raises(InputError, match="damaged notebook"):
        READER.read(b'{"cells": [', "a.ipynb", ReadConfig())
