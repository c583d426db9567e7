"""Where first sentences end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.data.questions.sentence import first_sentence


def first(text: str) -> str | None:
    span = first_sentence(text, 0, len(text))
    return text[slice(*span)] if span else None


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("One here. Two there.", "One here."),
        ("  Leading blanks. More.", "Leading blanks."),
        ("Is it so? Yes.", "Is it so?"),
        ("No full stop", "No full stop"),
        ("A line\n\nanother", "A line"),
        ("Use e.g. this one. Then stop.", "Use e.g. this one."),
        ("Files, etc. Then more.", "Files, etc."),
        ("By J. Smith in May. End.", "By J. Smith in May."),
        ("Version 3.11 is out. Yes.", "Version 3.11 is out."),
        ("Call os.path.join. It works.", "Call os.path.join."),
        ('He said "stop." Then left.', 'He said "stop."'),
        ("(In brackets.) After.", "(In brackets.)"),
        ("Wait... there is more. End.", "Wait... there is more."),
        ("这是一句话。第二句。", "这是一句话。"),
        ("One sentence.\nAnother line.", "One sentence."),
    ],
)
def test_sentences_end_where_a_reader_ends_them(text: str, sentence: str):
    assert first(text) == sentence


@pytest.mark.parametrize("text", ["It runs on\nto the next line. Yes.", "", "  \n ", "No stop here\nbut it goes on"])
def test_a_sentence_that_is_not_on_one_line_is_none(text: str):
    assert first(text) is None


def test_only_the_given_stretch_is_looked_at():
    text = "aaa. bbb ccc. ddd"
    assert first_sentence(text, 5, len(text)) == (5, 13)
    assert first_sentence(text, 5, 8) == (5, 8)


@given(st.text(alphabet="aB.?! \n\"')e", max_size=60))
def test_a_sentence_is_a_stretch_of_one_line(text: str):
    sentence = first(text)
    assert sentence is None or ("\n" not in sentence and sentence in text and sentence == sentence.strip())
