from __future__ import annotations

from typing import Any

import pytest

from puna.base.errors import InputError
from puna.evals.instructions import CHECKS, followed, followed_loosely, sentences_in, words_in

# id, arguments, an answer that follows, one that does not
CASES: list[tuple[str, dict[str, Any], str, str]] = [
    ("keywords:existence", {"keywords": ["alpha", "C++"]}, "ALPHA and c++.", "alpha and C."),
    ("keywords:frequency", {"keyword": "red", "frequency": 2, "relation": "at least"}, "Red, redder.", "Red."),
    ("keywords:frequency", {"keyword": "red", "frequency": 2, "relation": "less than"}, "Red.", "Red, redder."),
    ("keywords:forbidden_words", {"forbidden_words": ["cat"]}, "A category.", "A Cat!"),
    ("keywords:letter_frequency", {"letter": "E", "let_frequency": 2, "let_relation": "at least"}, "Eve", "He"),
    ("keywords:letter_frequency", {"letter": "e", "let_frequency": 2, "let_relation": "less than"}, "He", "Eve"),
    ("language:response_language", {"language": "de"}, "Das ist nicht der Hund.", "This is not the dog."),
    ("length_constraints:number_sentences", {"num_sentences": 3, "relation": "less than"}, "A b. C?", "A b. It is. D!"),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "a\n***\nb\n***\n", "a\n***\n***\nb"),
    ("length_constraints:number_words", {"num_words": 3, "relation": "at least"}, "one, two three", "one two"),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "now"},
        "a\n\n\"Now, b.",
        "a\n\nnowhere",
    ),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, "[name] of [town]", "[name] of town"),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "Bye.\nP. S. More.", "Bye. PS more"),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, "Bye.\nP.P.S more", "Bye.\nP.S. more"),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "* a\n- b", "* a\n** b **\n c"),
    ("detectable_format:constrained_response", {}, "Well: My answer is no.", "No."),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, "*a* and **b**", "*a* and * *"),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "Section", "num_sections": 2},
        "Section 1\na\nSection 2\nb",
        "Section one\nSection 2",
    ),
    ("detectable_format:json_format", {}, '```json\n{"a": [1]}\n```', "{a: 1}"),
    ("detectable_format:title", {}, "<<Ode>>\nO joy", "<< >>\n<Ode>"),
    ("combination:two_responses", {}, "a******b", "a******a"),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Say it."}, "say it. It.", "It. Say it."),
    ("startend:end_checker", {"end_phrase": "The end."}, '"All is said. the end."', "The end. Or not."),
    ("startend:quotation", {}, ' "a" ', '"a'),
    ("change_case:capital_word_frequency", {"capital_frequency": 2, "capital_relation": "at least"}, "A BIG", "A big"),
    ("change_case:english_capital", {}, "THIS IS THE WAY.", "THIS is THE WAY."),
    ("change_case:english_lowercase", {}, "this is the way.", "This is the way."),
    ("punctuation:no_comma", {}, "a b; c", "a, b"),
]  # fmt: skip


@pytest.mark.parametrize(("id", "arguments", "good", "bad"), CASES)
def test_each_instruction_tells_an_answer_that_follows_from_one_that_does_not(
    id: str, arguments: dict[str, Any], good: str, bad: str
) -> None:
    assert followed(id, arguments, good)
    assert not followed(id, arguments, bad)


def test_all_25_instructions_have_a_case() -> None:
    assert len(CHECKS) == 25
    assert {case[0] for case in CASES} == set(CHECKS)


def test_an_empty_answer_follows_nothing() -> None:
    assert not any(followed(id, arguments, " \n", "") for id, arguments, _, _ in CASES)


def test_loose_judging_takes_off_asterisks_and_the_first_or_last_line() -> None:
    answer = "Sure, here it is:\n*so be it, then* The end.\nHope that helps!"
    assert not followed("startend:end_checker", {"end_phrase": "the end."}, answer)
    assert followed_loosely("startend:end_checker", {"end_phrase": "the end."}, answer)
    quoted = 'Of course.\n**"yes"**'
    assert not followed("startend:quotation", {}, quoted) and followed_loosely("startend:quotation", {}, quoted)
    assert not followed_loosely("punctuation:no_comma", {}, "a, b\nc, d\ne, f")


def test_the_question_is_repeated_where_no_other_text_is_given() -> None:
    assert followed("combination:repeat_prompt", {}, "Why? Because.", "Why?")


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("One. Two! Three?", 3),
        ("Mr. Smith met Dr. Jones at 3.5 km.", 1),
        ("No full stop", 1),
        ('"Is it so?" he said. "Yes."', 3),
        ("J. S. Bach wrote it, e.g. in Leipzig.", 1),
        ("これはペンです。それは本です。", 2),
    ],
)
def test_sentences_are_counted(text: str, count: int) -> None:
    assert sentences_in(text) == count


def test_words_are_runs_of_letters_and_digits() -> None:
    assert words_in("it's 2_b, naïve") == ["it", "s", "2_b", "naïve"]


def test_faults_in_the_file_are_named() -> None:
    with pytest.raises(InputError, match="no instruction 'keywords:existance'") as caught:
        followed("keywords:existance", {}, "a")
    assert "keywords:existence" in str(caught.value)
    with pytest.raises(InputError, match="needs the argument 'keywords'"):
        followed("keywords:existence", {}, "a")
    with pytest.raises(InputError, match="relation is 'more'"):
        followed("length_constraints:number_words", {"num_words": 1, "relation": "more"}, "a")


def test_words_that_nothing_tells_are_no_proof_of_a_language() -> None:
    answer = "Sure!\nHenry took the pills and he paid for all of them."
    assert not followed_loosely("language:response_language", {"language": "de"}, answer)
    assert followed_loosely("language:response_language", {"language": "en"}, answer)
    assert followed("language:response_language", {"language": "de"}, "12 + 3 = 15")
