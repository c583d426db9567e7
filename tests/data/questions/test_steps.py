"""Numbered steps."""

from __future__ import annotations

import pytest

from puna.data.questions.steps import find


def test_steps_and_points_are_numbered_under_their_heading(found):
    text = "# Baking bread\n\n1. Mix the flour.\n2. The dough has to rest.\n"
    assert found(find, text, "markdown") == [
        ("step", {"ordinal": "first", "number": "1", "heading": '"Baking bread"'}, "Mix the flour."),
        ("point", {"ordinal": "second", "number": "2", "heading": '"Baking bread"'}, "The dough has to rest."),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "1. Mix the flour.\n2. Let it rest.\n",  # no heading
        "# Baking bread\n\n1. Mix the flour.\n",
        "# Baking bread\n\n3. Mix the flour.\n4. Let it rest.\n",
        "# Baking bread\n\n1. Mix the flour.\n2. Let it rest.\n\nOr:\n\n1. Buy the bread.\n2. Eat the bread.\n",
        "# Examples\n\n1. Mix the flour.\n2. Let it rest.\n",
    ],
)
def test_lists_that_make_no_question(found, text: str):
    assert found(find, text, "markdown") == []
