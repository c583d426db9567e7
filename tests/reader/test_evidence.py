"""How questions and passages are read: what a question is about, and whose line a candidate stands on."""

from __future__ import annotations

import pytest

from puna.knowledge.chunk import Passage
from puna.reader.evidence import NAME, arrange, look, read_question, signs, stems

TEXT = '''class Box(dict):
    """Hold things."""

    def open(self, lid=None):
        """Lift the lid."""
        raise KeyError(lid)

    def close(self, lid=1):
        """Press the lid down."""
'''
PASSAGE = Passage("d", "crates/box.py", 100, 100 + len(TEXT), "class Box", TEXT)


@pytest.mark.parametrize(
    ("question", "names"),
    [
        ("What does shutil.copyfile do?", {"copyfile"}),
        ("What does `copyfile` do?", {"copyfile"}),
        ("what does copyfile() do", {"copyfile"}),
        ("What is the default of lid in Box.open?", {"lid", "open"}),
        ("What does --dry-run do?", {"run"}),
        ("What does it do?", set()),
    ],
)
def test_a_question_is_about_its_names(question: str, names: set[str]) -> None:
    assert read_question(question).names == names


def test_two_questions_of_one_form_have_the_same_grams() -> None:
    first, second = (read_question(f"What is the default of {names}?") for names in ("lid in open", "x in y"))
    assert first.grams == second.grams
    assert "default of" in first.grams
    assert NAME in first.grams
    assert first.grams != read_question("What is the type of lid in open?").grams


def test_a_question_that_points_back_is_about_what_was_asked_before() -> None:
    again = read_question("What does it return?", "What does copyfile do?")
    assert again.names == {"copyfile"}
    assert again.grams == read_question("What does copyfile return?").grams
    assert read_question("What does copytree do?", "What does copyfile do?").names == {"copytree"}


@pytest.mark.parametrize(("question", "number"), [("What is the third step?", 3), ("What is step 12 of x?", 12)])
def test_the_number_of_a_step_is_read(question: str, number: int) -> None:
    assert read_question(question).ordinal == number


def test_words_meet_whatever_their_endings() -> None:
    assert stems(["copies"]) & stems(["copy"])
    assert stems(["copied"]) == stems(["copies"])
    assert stems(["opened"]) & stems(["opening"])
    assert stems(["readFile"]) & stems(["read_file"]) >= {"read", "fil"}
    assert not stems(["the"])


def of(question: str, text: str) -> set[str]:
    """The signs of the first candidate with this text."""
    every, _ = signs(read_question(question), PASSAGE, 0, 1)
    place = [TEXT[c.start : c.end] for c in look(PASSAGE).found].index(text)
    return set(every[place])


def test_a_candidate_belongs_to_the_definition_around_it() -> None:
    question = "What does Box.open do?"
    assert "owner:inner+outer" in of(question, "Lift the lid.")
    assert "owner:other" in of(question, "Press the lid down.")
    assert "owner:outer" in of("What is Box?", "Press the lid down.")
    assert "owner:unknown" in of("What does crate do?", "Lift the lid.")


def test_a_value_meets_the_name_that_is_asked_for() -> None:
    assert "key:hit" in of("What is the default of lid in open?", "None")
    assert "key:miss" in of("What is the default of size in open?", "None")


def test_a_passage_that_does_not_name_the_subject_says_so() -> None:
    _, absent = signs(read_question("What does copyfile do?"), PASSAGE, 0, 1)
    _, present = signs(read_question("What does open do?"), PASSAGE, 0, 1)
    assert "absent names:0" in absent
    assert "absent names:1" in present


def test_passages_that_define_the_name_rise_and_the_right_class_first() -> None:
    uses = [Passage("u", "use.py", i, i + 6, "def open", "open()") for i in range(3)]
    lid = Passage("l", "lid.py", 0, 20, "class Lid > def open", "    def open(self): ...")
    box = Passage("b", "box.py", 0, 20, "class Box > def open", "    def open(self): ...")
    found = [*uses, lid, box]
    assert arrange(read_question("What does Box.open do?"), found, 2) == [box, lid]
    assert arrange(read_question("What does open do?"), found, 9) == [lid, box, *uses]
    assert arrange(read_question("What does it do?"), found, 9) == found
