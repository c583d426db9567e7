"""Markdown as documents."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from puna.data.readers.markdown import READER, clean
from puna.data.readers.reader import ReadConfig
from puna.knowledge.structure import markdown


def read(text: str, config: ReadConfig | None = None) -> str:
    return READER.read(text.encode(), "a.md", config or ReadConfig()).text


def test_paragraphs_are_joined_and_comments_go():
    assert read("One\ntwo.\n\n<!-- no -->\n\n    code\n    more\n") == "One two.\n\n    code\n    more\n"


def test_hard_wraps_stay_on_request_and_comments_go_all_the_same():
    text = read("One\ntwo.\n<!-- no -->\n", ReadConfig(join_lines=False))
    assert text.startswith("One\ntwo.")
    assert "no" not in text


def test_links_within_the_folder_become_their_words_and_links_to_the_web_stay():
    text = 'See [the `guide`](guide.md#top "t"), [here](#x), [ref][r], [x[0]](y.md).\n'
    assert read(text) == "See the `guide`, here, ref, x[0].\n"
    text = "See [web](https://a.b/c), [mail](mailto:a@b.c) and ![img](i.png).\n"
    assert read(text) == text


def test_code_is_not_taken_for_links():
    text = "```\na = [b](c)\n```\n"
    assert read(text) == text


@given(
    st.lists(
        st.sampled_from(["# H\n", "text\n", "- x\n", "  y\n", "```\n", "\n", "> q\n", "a|b\n-|-\n", "1. s\n"]),
        max_size=15,
    )
)
def test_joining_keeps_the_kinds_of_blocks(parts: list[str]):
    text = "".join(parts)
    kinds = [block.kind for block in markdown.parse(text)]
    assert [block.kind for block in markdown.parse(clean(text, join_lines=True))] == kinds
