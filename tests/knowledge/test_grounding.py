"""The one form in which passages and questions meet."""

from __future__ import annotations

from puna.knowledge.chunk import Passage
from puna.knowledge.grounding import NOT_IN_TEXT, grounded_prompt, says_not_in_text, title


def passage(text: str = "\nbody\n", heading: str = "class A > def b") -> Passage:
    return Passage("id", "a.py", 0, len(text), heading, text)


def test_passages_come_first_each_under_its_title_and_the_question_last():
    prompt = grounded_prompt("What is b?", [passage(), passage("    other", "")])
    assert prompt == "[a.py > class A > def b]\nbody\n\n[a.py]\n    other\n\nWhat is b?"


def test_without_passages_the_question_stands_alone():
    assert grounded_prompt("And then?", []) == "And then?"


def test_a_title_keeps_the_innermost_headings():
    assert title(passage(heading="Book > Part > Chapter > Section")) == "a.py > Chapter > Section"


def test_the_sentence_for_no_answer_is_recognised():
    assert says_not_in_text(NOT_IN_TEXT)
    assert says_not_in_text(" the text does not say ")
    assert not says_not_in_text("The text does not say much.")
