"""Constants and remarks beside names."""

from __future__ import annotations

import pytest

from puna.data.questions.constants import find


def test_values_of_constants(found):
    text = "LIMIT = 8 * 1024\n__version__ = '1.2'\nNAMES = ('a', 'b')\nclass C:\n    port: int = 80\n    _hidden = 99\n"
    assert found(find, text) == [
        ("constant", {"name": "LIMIT"}, "8 * 1024"),
        ("constant", {"name": "__version__"}, "'1.2'"),
        ("constant", {"name": "NAMES"}, "('a', 'b')"),
        ("constant", {"name": "C.port"}, "80"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "A_ = 10\nA_ = 20\n",  # which one
        "lower = 10\n",
        "FLAG = True\nNOTHING = None\n",
        "CALLED = make(10)\n",
        "ROUND_UP = 'ROUND_UP'\n",  # it says its own name
        "LONG = '" + "x" * 90 + "'\n",
        "WRAPPED = (10,\n  20)\n",
        "EMPTY = ()\n",
    ],
)
def test_values_that_say_nothing_or_not_one_thing(found, text: str):
    assert found(find, text) == []


def test_remarks_beside_names_and_attributes(found):
    text = (
        "size = read()  # number of bytes in a block\n"
        "class C:\n    def __init__(self):\n        self.speed = 0.5  # metres in a second\n"
    )
    assert found(find, text) == [
        ("remark", {"name": "size"}, "number of bytes in a block"),
        ("remark", {"name": "C.speed"}, "metres in a second"),
    ]


@pytest.mark.parametrize(
    "comment",
    [
        "type: ignore[assignment] of it",
        "noqa because of this",
        "XXX is this right here",
        "short one",
        "see the other file",
        "initialized below in reset",
        "need for that thing",
        "match a whole word?",
    ],
)
def test_comments_that_explain_nothing(found, comment: str):
    assert found(find, f"size = read()  # {comment}\n") == []


def test_a_remark_that_goes_on_is_cut_off_and_left_out(found):
    assert found(find, "size = read()  # number of bytes in\n               # a block\n") == []
