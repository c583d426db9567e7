"""How a question becomes a query, and what its score is worth."""

from __future__ import annotations

import pytest

from puna.knowledge.words import any_of, ceiling, folded, rarest, terms


def test_words_of_questions_are_left_out_and_each_word_is_kept_once():
    assert terms("What is copyfile, and why is Copyfile used?") == ["Copyfile"]
    assert terms("?!") == []


def test_a_name_with_an_underscore_is_one_word():
    assert terms("copy_file(source)") == ["copy_file", "source"]


def test_a_query_names_words_and_never_operators():
    assert any_of(terms("a AND b* NEAR")) == '"b" OR "NEAR"'
    assert any_of(["near", "x"]) == '"near" OR "x"'


@pytest.mark.parametrize("word", ["Żółw", "ŻÓŁW", "żo\u0301łw"])
def test_words_are_folded_as_the_index_folds_them(word: str):
    assert folded(word) == "zołw"


def test_a_rare_word_is_worth_more_and_one_that_is_nowhere_most():
    assert ceiling([1000], 1000) < ceiling([500], 1000) + 1e-9 < ceiling([10], 1000) < ceiling([0], 1000)
    assert ceiling([], 1000) == 0
    assert ceiling([5, 7], 100) == pytest.approx(ceiling([5], 100) + ceiling([7], 100))


def test_words_that_are_everywhere_do_not_choose_what_is_scored():
    assert rarest(["self", "copyfile", "nobody"], [90_000, 12, 0]) == ["nobody", "copyfile"]
    assert rarest(["a1", "b1"], [1500, 2000]) == ["a1", "b1"]
    assert rarest(["self"], [90_000]) == ["self"]
    assert rarest(["nobody", "self"], [0, 90_000]) == ["nobody", "self"]
    assert rarest([], []) == []
