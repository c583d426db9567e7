"""What every reader hands over."""

from __future__ import annotations

import pytest

from puna.base.errors import ConfigError, InputError
from puna.data.readers.reader import ReadConfig, make_document


def test_a_document_is_named_by_its_text_alone():
    one, other = make_document("words", "a.txt", "text"), make_document("words", "b.txt", "text", {"pages": [0]})
    assert one.id == other.id != make_document("Words", "a.txt", "text").id
    assert other.meta == {"kind": "text", "pages": [0]}


def test_blanks_are_no_document():
    with pytest.raises(InputError, match=r"^empty$"):
        make_document(" \n\t", "a.txt", "text")


def test_halves_of_surrogate_pairs_are_replaced_without_moving_the_rest():
    document = make_document("a\ud800b", "a.ipynb", "notebook")
    assert document.text == "a\ufffdb"
    document.text.encode()


@pytest.mark.parametrize(("field", "value"), [("max_bytes", 0), ("suffixes", ("md",))])
def test_a_config_out_of_range_is_refused(field: str, value: object):
    with pytest.raises(ConfigError, match=field):
        ReadConfig(**{field: value})
