"""Joining lines: only prose changes, and only where a program broke its lines."""

from __future__ import annotations

import textwrap

from hypothesis import given
from hypothesis import strategies as st

from puna.knowledge.structure import markdown
from puna.knowledge.structure.block import Block, is_filled, line_spans, tidy

WORDS = st.lists(st.text(alphabet="abcdefgh", min_size=1, max_size=9), min_size=30, max_size=80)


def test_line_spans_cover_every_line():
    text = "a\n\nbcd\n"
    assert [text[start:end] for start, end in line_spans(text)] == ["a", "", "bcd", ""]


def test_prose_is_joined_and_code_is_not():
    text = "One two\nthree.\n\n```\na\nb\n```\n\n- item goes\n  on here\n"
    assert tidy(text, markdown.parse(text)) == "One two three.\n\n```\na\nb\n```\n\n- item goes on here\n"


def test_a_break_that_the_author_asked_for_stays():
    text = "roses  \nviolets\\\nsugar\nis sweet\n"
    assert tidy(text, markdown.parse(text)) == "roses  \nviolets\\\nsugar is sweet\n"


def test_comments_go_with_their_lines():
    text = "before\n\n<!-- hidden\n  words -->\n\nafter\n"
    joined = tidy(text, markdown.parse(text))
    assert "hidden" not in joined
    assert "before" in joined and "after" in joined


def test_quote_marks_inside_a_joined_quote_go():
    text = "> one two\n> three\n"
    assert tidy(text, markdown.parse(text)) == "> one two three\n"


def test_joining_again_changes_nothing():
    text = "# T\n\nlong\nlines\n\n1. a\n   b\n2. c\n"
    once = tidy(text, markdown.parse(text))
    assert tidy(once, markdown.parse(once)) == once


def test_a_block_survives_its_json_form():
    block = Block("heading", 3, 9, 2)
    assert Block(*block.to_json()) == block
    assert block.moved(4) == Block("heading", 7, 13, 2)


@given(WORDS, st.integers(50, 90))
def test_what_textwrap_fills_is_filled(words: list[str], width: int):
    lines = textwrap.wrap(" ".join(words), width)
    # Only the widest line is known, not the column: filling to that line's width gives the same lines again.
    lines = textwrap.wrap(" ".join(words), max(map(len, lines)))
    assert is_filled(lines) == (len(lines) > 1 and max(map(len, lines)) >= 45)


def test_verse_tables_and_addresses_are_not_filled():
    assert not is_filled(["Shall I compare thee to a summer's day?", "Thou art more lovely and more temperate:"])
    assert not is_filled(["name       meaning of the name as it is given there", "other      another meaning of it"])
    assert not is_filled(["a single line that is long enough to be a filled one, but alone"])
