"""reStructuredText blocks, with Sphinx's directives."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from puna.knowledge.structure.restructured import parse


def seen(text: str) -> list[tuple[str, str]]:
    return [(block.kind, text[block.start : block.end]) for block in parse(text)]


def test_levels_follow_the_order_of_the_adornments():
    text = "=====\nTitle\n=====\n\nOne\n===\n\nSub\n---\n\nTwo\n===\n"
    assert [(text[b.start : b.end], b.level) for b in parse(text)] == [("Title", 1), ("One", 2), ("Sub", 3), ("Two", 2)]


def test_a_short_title_and_its_underline():
    assert seen("if\n--\n\nConditional.\n") == [("heading", "if"), ("paragraph", "Conditional.")]


def test_literal_blocks_and_code_directives():
    text = "Do this::\n\n    ls\n      -l\n\nThen:\n\n.. code-block:: python\n   :linenos:\n\n   print(1)\n\nEnd.\n"
    assert ("code", "    ls\n      -l") in seen(text)
    assert ("code", "   print(1)") in seen(text)
    assert seen(text)[-1] == ("paragraph", "End.")


def test_definition_lists_fields_options_and_glossaries():
    text = (
        "term\n  What it means,\n  in two lines.\n\n:param src: the source\n\n-v, --verbose  print more\n\n"
        ".. glossary::\n\n   shard\n      A part.\n"
    )
    assert seen(text) == [
        ("term", "term"),
        ("definition", "What it means,\n  in two lines."),
        ("term", "param src"),
        ("definition", "the source"),
        ("term", "-v, --verbose"),
        ("definition", "print more"),
        ("term", "shard"),
        ("definition", "A part."),
    ]


def test_a_directive_that_describes_an_object_is_a_term():
    text = ".. function:: copyfile(src, dst)\n\n   Copy the file.\n\n   More words.\n"
    assert seen(text) == [
        ("term", "copyfile(src, dst)"),
        ("definition", "Copy the file."),
        ("paragraph", "More words."),
    ]


def test_notes_are_prose_and_images_are_not():
    text = ".. note:: Be careful.\n\n.. image:: a.png\n   :alt: words\n\n.. a comment\n   on two lines\n"
    assert [kind for kind, _ in seen(text)] == ["paragraph", "other", "other"]


def test_lists_nest_and_keep_their_code():
    text = "- one\n  goes on\n\n  - inner\n\n1. first::\n\n     code\n2. second\n"
    kinds = seen(text)
    assert kinds[0] == ("item", "one\n  goes on")
    assert ("item", "inner") in kinds
    assert kinds[2:] == [("step", "first::"), ("code", "     code"), ("step", "second")]


def test_tables_are_left_alone():
    text = "====  ====\na     b\n====  ====\n1     2\n====  ====\n\n+---+\n| x |\n+---+\n"
    assert {kind for kind, _ in seen(text)} == {"other"}


LINES = st.sampled_from(
    ["Title\n", "=====\n", "---\n", "para\n", "  indented\n", "      deep\n", "\n", ".. note::\n", ".. x:: y\n", "::\n",
     "lead::\n", "- i\n", "1. s\n", ":f: v\n", "-o  opt\n", "| l\n", ">>> 1\n", "+--+\n", "..\n", "\ttab\n"]
)  # fmt: skip


@given(st.lists(LINES, max_size=25))
def test_blocks_are_in_order_within_the_text_and_do_not_overlap(lines: list[str]):
    text = "".join(lines)
    at = 0
    for block in parse(text):
        assert at <= block.start < block.end <= len(text)
        at = block.end
