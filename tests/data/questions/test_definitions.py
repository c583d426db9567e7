"""Sentences that define."""

from __future__ import annotations

import pytest

from puna.data.questions.definitions import find


@pytest.mark.parametrize(
    ("sentence", "name", "be"),
    [
        ("A shard is a part of a file.", "a shard", "is"),
        ("An *open* file is one that can be read.", "an open file", "is"),
        ("The `fs` module is used to read files.", "the fs module", "is"),
        ("HTTP is the protocol of the web.", "HTTP", "is"),
        ("Threads are the units of work.", "threads", "are"),
        ("MinHash (MH) is an estimate of overlap.", "MinHash", "is"),
    ],
)
def test_definitions(found, sentence: str, name: str, be: str):
    assert found(find, sentence + " More.\n", "markdown") == [("definition", {"name": name, "be": be}, sentence)]


@pytest.mark.parametrize(
    "sentence",
    [
        "This is a sentence about nothing.",
        "The following is a list of names.",
        "A common cause is a missing file.",
        "Adding a file is a way to do it.",
        "The result is a list of names.",
        'Return "True" if the string is a title.',
        "A shard is a part of what is described below.",
        "A shard is the part, and",
        "1 Jan is a holiday in the north.",
    ],
)
def test_sentences_that_define_nothing(found, sentence: str):
    assert found(find, sentence + "\n", "markdown") == []


def test_the_heading_makes_a_subject_plain(found):
    text = "# Ownership of values\n\nOwnership is a set of rules.\n"
    assert found(find, text, "markdown") == [
        ("definition", {"name": "ownership", "be": "is"}, "Ownership is a set of rules.")
    ]
