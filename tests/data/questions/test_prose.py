"""Headings as one says them, and blocks under their headings."""

from __future__ import annotations

import pytest

from puna.data.questions.prose import askable, code_name, following, places, spoken


@pytest.mark.parametrize(
    ("heading", "words"),
    [("7.1. Overview", "Overview"), ("**Bold** `code`:", "Bold code"), ("Chapter 3: The End", "The End"),
     ("A. First", "First"),
     ("Title {#anchor}", "Title"), ("3 little pigs", "little pigs"), ("ix) Nine", "Nine"), ("Install", "Install")],
)  # fmt: skip
def test_spoken(heading: str, words: str):
    assert spoken(heading) == words


@pytest.mark.parametrize(
    ("heading", "name"),
    [("fs.access(path[, mode], cb)", "fs.access"), ("readFile", "readFile"), ("CMAKE_C_FLAGS", "CMAKE_C_FLAGS"),
     ("std::vec::Vec", "std::vec::Vec"), ("--verbose", "--verbose"), ("Installing", ""), ("two words", ""),
     ("new Foo(x)", "")],
)  # fmt: skip
def test_code_names(heading: str, name: str):
    assert code_name(heading) == name


def test_headings_that_can_be_asked_for():
    assert all(map(askable, ["Installing on Linux", "Text encoding"]))
    assert not any(map(askable, ["Examples", "a", "v1.2.3", "x" * 61, "<T> of it", "(aside)"]))


def test_blocks_know_their_heading_and_whether_they_come_first(document):
    doc = document("lead\n\n# A\n\n<!-- c -->\n\none\n\ntwo\n", "markdown")
    rows = [(place.title, place.block.kind, place.first) for place in places(doc)]
    assert rows == [
        ("", "paragraph", False),
        ("A", "comment", True),
        ("A", "paragraph", True),
        ("A", "paragraph", False),
    ]
    pairs = list(following(doc))
    assert pairs[-1][1] is None
    assert [pair[1] for pair in pairs[:-1]] == [pair[0] for pair in pairs[1:]]


def test_source_code_and_lists_of_changes_have_no_places(document):
    assert places(document("# x\n", "python")) == ()
    assert places(document("# A\n\nb\n", "markdown", "docs/CHANGELOG.md")) == ()
    text = "# Guide\n\none\n\n# Release notes\n\ntwo\n\n## Fixed\n\nthree\n\n# After\n\nfour\n"
    titles = [place.title for place in places(document(text, "markdown", "a.md"))]
    assert titles == ["Guide", "After"]
