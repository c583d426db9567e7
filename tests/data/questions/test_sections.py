"""Sections and questions that texts ask themselves."""

from __future__ import annotations

import pytest

from puna.data.questions.sections import find


def test_a_section_is_asked_for_by_its_heading(found):
    text = (
        "# The Heap\n\nMemory is taken from the heap. More.\n\n## Rules of good conduct in public\n\nBe kind to all.\n"
    )
    assert found(find, text, "markdown") == [
        ("section", {"heading": "the Heap", "title": '"The Heap"'}, "Memory is taken from the heap."),
        ("section", dict.fromkeys(("heading", "title"), '"Rules of good conduct in public"'), "Be kind to all."),
    ]


def test_a_name_from_a_program_is_asked_for_by_its_first_paragraph(found):
    text = "### `fs.access(path)`\n\n* `path` {string}\n\nTests the rights of a user.\n"
    assert found(find, text, "markdown") == [("symbol", {"name": "fs.access"}, "Tests the rights of a user.")]


@pytest.mark.parametrize(
    "text",
    [
        "# Examples\n\nSome words are here.\n",
        "# The Heap\n\nThis is described elsewhere.\n",
        "# The Heap\n\n- a list comes first\n\nThen come some words.\n",
        "# The Heap\n\nno full stop at all\n",
        "# The Heap\n\nThe heap.\n",
        "# 1.2.3\n\nSome words are here.\n",
    ],
)
def test_sections_that_make_no_question(found, text: str):
    assert found(find, text, "markdown") == []


def test_questions_in_headings_and_lines(found):
    text = (
        "## 1. How do I install it?\n\nUse the installer for it.\n\n"
        "**Q: Is it free of charge?**\n\nA: Yes, it is free.\n"
    )
    assert found(find, text, "markdown") == [
        ("faq", {"question": "How do I install it?", "lower": "how do I install it"}, "Use the installer for it."),
        ("faq", {"question": "Is it free of charge?", "lower": "is it free of charge"}, "Yes, it is free."),
    ]


def test_a_question_that_is_followed_by_another_is_not_answered(found):
    assert found(find, "Is it free of charge?\n\nWhat does it cost then?\n", "markdown") == []
