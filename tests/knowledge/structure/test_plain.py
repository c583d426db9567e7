"""Blocks of plain text."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from puna.knowledge.structure.plain import parse

FILLED = (
    "The quick brown fox jumps over the lazy dog and then it\nsleeps for a while in the shade of the oldest oak tree\n"
    "of the wood.\n"
)


def seen(text: str) -> list[tuple[str, str]]:
    return [(block.kind, text[block.start : block.end]) for block in parse(text)]


def test_filled_lines_are_a_paragraph_and_other_lines_are_kept_apart():
    assert seen(FILLED) == [("paragraph", FILLED.strip())]
    assert seen("Roses are red\nViolets are blue\n") == [("other", "Roses are red\nViolets are blue")]


def test_headings_only_beyond_doubt():
    text = "INSTALLATION NOTES\n\n1.2 The Second Part\n\nUnderlined\n----------\n\nShort line\n\nWAIT, NO.\n"
    assert [kind for kind, _ in seen(text)] == ["heading", "heading", "heading", "paragraph", "paragraph"]
    assert [block.level for block in parse(text)][:3] == [1, 2, 2]


def test_lists():
    assert seen("* one\n* two\n\n1. first\n2) second\n") == [
        ("item", "one"),
        ("item", "two"),
        ("step", "first"),
        ("step", "second"),
    ]


@given(st.text(alphabet="ab .*-=1\n\t", max_size=80))
def test_blocks_are_in_order_within_the_text_and_do_not_overlap(text: str):
    at = 0
    for block in parse(text):
        assert at <= block.start < block.end <= len(text)
        at = block.end
