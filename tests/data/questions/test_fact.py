"""What may stand as an answer."""

from __future__ import annotations

import pytest

from puna.data.questions.fact import is_answer, is_sentence, plain, says_more


@pytest.mark.parametrize("text", ["ok", "x" * 200, "Copy the file."])
def test_answers(text: str):
    assert is_answer(text)


@pytest.mark.parametrize("text", ["", "x", "x" * 201, "two\nlines", " padded", "TODO: write this", "see FIXME"])
def test_no_answers(text: str):
    assert not is_answer(text)


@pytest.mark.parametrize(
    "text", ["Copy the file.", "`f` returns both (a, b).", "“Quoted” words are fine.", "3 days are enough."]
)
def test_sentences(text: str):
    assert is_sentence(text)


@pytest.mark.parametrize(
    "text",
    [
        "Two words", "- a list item", "It ends with a colon:", "Half a (bracket is open.", "See [this](url) for more.",
        "An odd `mark is open.", "Visit https://a.b for it.", "::= is a sign of grammar", "a {file}`x` role here.",
        "1 2 3 4 5", "if x ::= y then",
    ],
)  # fmt: skip
def test_no_sentences(text: str):
    assert not is_sentence(text)


def test_an_answer_must_say_more_than_the_name():
    assert not says_more("Read file function.", "readFile")
    assert not says_more("The http client module", "http.client")
    assert says_more("Reads a file from disk.", "readFile")


@pytest.mark.parametrize(
    ("marked", "name"),
    [("**Shard**", "Shard"), ("``-v``", "-v"), ('the "global" statement', "the global statement"), ("*width*", "width"),
     ("__init__", "__init__"), ("_private", "_private"), ("", "")],
)  # fmt: skip
def test_names_without_marks(marked: str, name: str):
    assert plain(marked) == name
