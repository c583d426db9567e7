"""Tables in text files."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.base.errors import InputError
from puna.data.readers.csv import READER
from puna.data.readers.reader import ReadConfig
from puna.knowledge.structure.outline import outline

BIRDS = 'Bird,Length,Home\nKea,48 cm,mountains\nOwl,"30, or 40 cm","woods\nand fields"\n'


def read(text: str):
    return READER.read(text.encode(), "a.csv", ReadConfig())


def rows(text: str) -> list[tuple[int, str]]:
    document = read(text)
    return [(block.level, document.text[block.start : block.end]) for block in outline(document)]


def test_rows_are_lines_of_cells_below_a_header():
    assert rows(BIRDS) == [
        (1, "Bird | Length | Home"),
        (0, "Kea | 48 cm | mountains"),
        (0, "Owl | 30, or 40 cm | woods and fields"),
    ]
    assert read(BIRDS).meta["kind"] == "table"


@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_the_separator_is_seen(separator: str):
    text = BIRDS.replace('"30, or 40 cm"', "30").replace('"woods\nand fields"', "woods").replace(",", separator)
    assert rows(text)[2] == (0, "Owl | 30 | woods")


@pytest.mark.parametrize("first", ["1,2,3", "a,,c", "a,a,b"])
def test_a_first_row_that_names_nothing_is_no_header(first: str):
    assert rows(f"{first}\nx,y,z\n")[0][0] == 0


def test_a_bar_in_a_cell_is_marked():
    assert rows('a,b\n"x|y",z\n')[1] == (0, r"x\|y | z")


def test_an_empty_file_is_refused():
    for text in ("", "\n\n", ",,\n,,\n"):
        with pytest.raises(InputError, match="empty"):
            read(text)


def test_a_cell_of_megabytes_is_refused():
    with pytest.raises(InputError, match="damaged table"):
        read("a,b\n" + "x" * (1 << 21) + ",y\n")


@given(
    st.lists(
        st.lists(st.text(alphabet="ab\"',; \n1", min_size=1, max_size=6), min_size=2, max_size=4),
        min_size=1,
        max_size=6,
    )
)
def test_every_word_of_a_table_is_read(table: list[list[str]]):
    file = io.StringIO()
    csv.writer(file).writerows(table)
    try:
        document = read(file.getvalue())
    except InputError as error:
        assert error.message == "empty"
        return
    assert all(block.end <= len(document.text) for block in outline(document))
    letters = [char for row in table for cell in row for char in cell if char in "ab1"]
    assert [char for char in document.text if char in "ab1"] == letters
