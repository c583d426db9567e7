"""Cells of tables."""

from __future__ import annotations

import pytest

from puna.data.questions.tables import find

TABLE = "| Type | Size in bits | **Note** |\n|---|---|---|\n| `u8` | 8 | x |\n| u16 | 16 | for \\| ports |\n"


def test_cells_are_asked_for_by_row_and_column(found):
    agreement = {"be": "is", "do": "does"}
    assert found(find, TABLE, "markdown") == [
        ("cell", {"column": "size in bits", "row": "u16", **agreement}, "16"),
        ("cell", {"column": "note", "row": "u16", **agreement}, "for \\| ports"),
    ]


def test_tables_of_web_pages(found):
    text = "Name | Colour\napple | red\nbanana | yellow"
    blocks = [["row", 0, 13, 1], ["row", 14, 25, 0], ["row", 26, len(text), 0]]
    assert [(names["row"], answer) for _, names, answer in found(find, text, "html", blocks=blocks)] == [
        ("apple", "red"),
        ("banana", "yellow"),
    ]


@pytest.mark.parametrize(
    "table",
    [
        "| Name | Colour |\n|---|---|\n| apple | red |\n",  # one row
        "| Name | Colour |\n|---|---|\n| apple | red |\n| apple | green |\n",  # one label twice
        "| Name | Colour |\n|---|---|\n| apple | red |\n| pear |\n",  # uneven
        "| Name | Name |\n|---|---|\n| apple | red |\n| pear | green |\n",
        "| Name | Colour |\n|---|---|\n| 1.0 | red |\n| 2.0 | green |\n",
    ],
)
def test_tables_that_make_no_question(found, table: str):
    assert found(find, table, "markdown") == []
