"""Passages: they cover the text, fit, and are cut where an author would."""

from __future__ import annotations

import inspect
import textwrap

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from puna.base.errors import ConfigError
from puna.core.document import Document
from puna.knowledge.chunk import chunk, titled

MODULE = '''import os


def short(a):
    """Says a."""
    return a


class Long:
    """A class."""

    def one(self):
        """First."""
        value = "............................................................"
        return value

    @property
    def two(self):
        """Second."""
        value = "............................................................"
        return value
'''


@given(st.text(alphabet="ab #-=*\n\t.:`'\"()", max_size=400), st.integers(1, 80),
       st.sampled_from(["python", "markdown", "rst", "text"]))  # fmt: skip
@settings(deadline=None)
def test_passages_cover_the_text_in_order_and_fit(text: str, limit: int, kind: str):
    passages = chunk(Document(text, "id", "s", meta={"kind": kind}), limit)
    assert "".join(passage.text for passage in passages) == text
    assert all(text[p.start : p.end] == p.text and 0 < len(p.text) <= limit for p in passages)


@pytest.mark.parametrize("limit", [120, 300, 800])
def test_a_real_module_is_covered(limit: int):
    text = inspect.getsource(textwrap)
    passages = chunk(Document(text, "id", "textwrap.py", meta={"kind": "python"}), limit)
    assert "".join(passage.text for passage in passages) == text
    assert max(len(passage.text) for passage in passages) <= limit


def test_python_is_cut_at_definitions_and_headings_tell_where(document):
    passages = chunk(document(MODULE), 200)
    headings = [passage.heading for passage in passages]
    assert headings == ["", "class Long > def one", "class Long > def two"] or "class Long > def two" in headings
    two = next(passage for passage in passages if passage.heading.endswith("two"))
    assert two.text.strip().startswith("@property")


def test_signature_and_docstring_are_not_cut_apart_where_they_fit(document):
    for limit in range(90, 260, 10):
        for name, doc in (("one", "First."), ("two", "Second."), ("short", "Says a.")):
            (passage,) = [p for p in chunk(document(MODULE), limit) if f"def {name}(" in p.text]
            assert doc in passage.text


def test_sections_are_joined_while_they_fit_and_named_by_their_path(document):
    text = "# Install\n\nIntro words.\n\n## Linux\n\nUse apt.\n\n## Windows\n\n" + "Click next. " * 12 + "\n"
    assert [p.heading for p in chunk(document(text, "markdown"), 1000)] == [""]
    cut = chunk(document(text, "markdown"), 160)
    assert [p.heading for p in cut] == ["Install", "Install > Windows"]
    assert cut[1].text.startswith("## Windows\n\nClick next.")


def test_a_line_is_cut_only_where_it_is_too_long_and_then_after_a_sentence(document):
    text = "First sentence here. Second sentence here. Third one.\nnext line\n"
    passages = chunk(document(text, "text"), 50)
    assert [p.text for p in passages] == [
        "First sentence here. Second sentence here. ",
        "Third one.\nnext line\n",
    ]


def test_a_limit_of_nothing_is_refused(document):
    with pytest.raises(ConfigError, match="at most 0 characters"):
        chunk(document("x"), 0)


@given(st.text(alphabet="ab .\n", max_size=300), st.integers(2, 60), st.integers(0, 30))
@settings(deadline=None)
def test_overlapping_passages_fit_and_leave_no_gap(text: str, limit: int, overlap: int):
    passages = chunk(Document(text, "id", "s", meta={"kind": "text"}), limit, min(overlap, limit // 2))
    assert all(text[p.start : p.end] == p.text and 0 < len(p.text) <= limit for p in passages)
    ends = [0, *(passage.end for passage in passages)]
    assert all(before - overlap <= p.start <= before for p, before in zip(passages, ends, strict=False))
    assert ends[-1] == len(text)


def test_an_overlap_begins_after_a_line_or_a_blank(document):
    lines = "".join(f"line number {i}\n" for i in range(20))
    starts = [p.start for p in chunk(document(lines, "text"), 60, 25)]
    assert all(lines[start - 1] == "\n" for start in starts[1:])


def test_an_overlap_of_more_than_half_is_refused(document):
    for overlap in (-1, 6):
        with pytest.raises(ConfigError, match="overlap"):
            chunk(document("x"), 10, overlap)


def test_titles_of_a_passage_are_its_heading_and_what_begins_in_it(document):
    made = document(MODULE)
    passages = chunk(made, 200)
    for passage, titles in zip(passages, titled(made, passages), strict=True):
        assert titles.startswith(passage.heading)
        assert ("def short" in titles) == ("def short" in passage.text)
