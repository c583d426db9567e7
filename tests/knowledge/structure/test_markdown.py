"""Markdown blocks, against what CommonMark's reference parser sees where the two overlap."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.knowledge.structure.markdown import parse


def seen(text: str) -> list[tuple[str, str]]:
    return [(block.kind, text[block.start : block.end]) for block in parse(text)]


def test_headings_of_both_styles_with_levels():
    text = "# One #\n\nTwo\n===\n\nThree\n---\n\n### Four `x`\n\n#no\n"
    levels = [(text[b.start : b.end], b.level) for b in parse(text) if b.kind == "heading"]
    assert levels == [("One", 1), ("Two", 1), ("Three", 2), ("Four `x`", 3)]
    assert ("paragraph", "#no") in seen(text)


def test_fenced_and_indented_code_keep_their_lines():
    text = "Run:\n\n```sh\n# not a heading\nls -l\n```\n\n    indented\n      more\n"
    assert seen(text) == [
        ("paragraph", "Run:"),
        ("code", "# not a heading\nls -l"),
        ("code", "    indented\n      more"),
    ]


def test_an_unclosed_fence_runs_to_the_end():
    assert seen("~~~\na\n\nb\n") == [("code", "a\n\nb")]


def test_lists_with_continuation_nesting_and_numbers():
    text = "- one\n  goes on\n  - inner\n- two\n\n1. first\n2. second\n"
    assert seen(text) == [
        ("item", "one\n  goes on"),
        ("item", "inner"),
        ("item", "two"),
        ("step", "first"),
        ("step", "second"),
    ]
    assert [block.level for block in parse(text)][:3] == [0, 1, 0]


def test_a_sentence_that_begins_a_line_with_a_number_is_no_list():
    assert seen("He was born in\n1984. It was cold.\n") == [("paragraph", "He was born in\n1984. It was cold.")]


def test_tables_have_a_header_row():
    text = "| a | b |\n|---|:-:|\n| 1 | 2 |\n\nx | y\n"
    blocks = parse(text)
    assert [(b.kind, b.level) for b in blocks] == [("row", 1), ("row", 0), ("paragraph", 0)]


def test_definition_lists_comments_html_and_front_matter():
    text = "---\ntitle: x\n---\nTerm\n: What it is.\n\n<!-- c -->\n\n<div>\nhtml\n</div>\n\n[ref]: http://x.y\n"
    assert [kind for kind, _ in seen(text)] == ["other", "term", "definition", "comment", "other", "other"]


def test_an_open_comment_is_not_swallowed():
    assert seen("<!-- never closed\n\ntext\n")[-1] == ("paragraph", "text")


PIECES = st.lists(
    st.sampled_from(
        ["# H\n", "para\n", "  - x\n", "1. y\n", "```\n", "> q\n", "\n", "    code\n", "a | b\n", "|-|-|\n", "===\n",
         "---\n", "<!-- \n", "-->\n", "<p>\n", ": d\n", "\t\n", "*\n", "~~~\n"]
    ),
    max_size=25,
)  # fmt: skip


@given(PIECES)
def test_blocks_are_in_order_within_the_text_and_do_not_overlap(pieces: list[str]):
    text = "".join(pieces)
    at = 0
    for block in parse(text):
        assert at <= block.start < block.end <= len(text)
        assert block.kind == "code" or text[block.start : block.end] == text[block.start : block.end].strip()
        at = block.end


@pytest.mark.parametrize(
    "text",
    [
        "# A\n\ntext *x* here\nsecond line\n\n## B\n\n- i\n- j\n\n```\ncode\n```\n",
        "Title\n=====\n\npara\n\n1. one\n2. two\n\n> quoted words\n\n***\n\nend\n",
        "intro\n\n    code line\n\nafter\n\n* a\n* b\n",
    ],
)
def test_the_same_headings_code_and_paragraphs_as_the_reference_parser(text: str):
    markdown_it = pytest.importorskip("markdown_it")
    tokens = markdown_it.MarkdownIt("commonmark").parse(text)
    headings, codes = [], []
    for i, token in enumerate(tokens):
        if token.type == "heading_open":
            headings.append((int(token.tag[1]), tokens[i + 1].content))
        elif token.type in ("fence", "code_block"):
            codes.append(token.content.strip())
    blocks = parse(text)
    assert [(b.level, text[b.start : b.end]) for b in blocks if b.kind == "heading"] == headings
    assert [text[b.start : b.end].strip() for b in blocks if b.kind == "code"] == codes
    inline = {token.content for token in tokens if token.type == "inline"}
    prose = {text[b.start : b.end] for b in blocks if b.kind in ("paragraph", "item", "step", "quote", "heading")}
    assert prose == inline
