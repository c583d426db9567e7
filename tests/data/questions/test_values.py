"""Keys and values."""

from __future__ import annotations

import pytest

from puna.data.questions.values import find


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Version: 1.2\nHome Page: https://a.b/c\nURL: x.y\n", "text"),
        ("---\nVersion: 1.2\nHome Page: https://a.b/c\nURL: x.y\n---\n", "markdown"),
    ],
)
def test_values_of_keys_that_stand_together(found, text: str, kind: str):
    assert found(find, text, kind) == [
        ("value", {"name": "version"}, "1.2"),
        ("value", {"name": "home page"}, "https://a.b/c"),
        ("value", {"name": "URL"}, "x.y"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "Version: 1.2\n",  # alone
        "Note: this one\nTip: that one\n",
        "Key: one\nKey: two\n",
        "stmt: expr\nexpr: term\n",  # a grammar
        "Name: ok\nfree words that are no pair\nmore words here\n",
    ],
)
def test_lines_that_are_no_pairs(found, text: str):
    assert found(find, text, "text") == []
