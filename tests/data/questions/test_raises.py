"""Exceptions that functions raise."""

from __future__ import annotations

import pytest

from puna.data.questions.raises import find


def body(*lines: str) -> str:
    return "def f(x):\n" + "".join(f"    {line}\n" for line in lines)


def test_the_only_exception_is_the_answer(found):
    text = body("if x:", "    raise ValueError('no')", "raise ValueError")
    assert found(find, text) == [("raises", {"name": "f"}, "ValueError")]
    assert found(find, body("raise errors.Bad(x)")) == [("raises", {"name": "f"}, "errors.Bad")]


@pytest.mark.parametrize(
    "lines",
    [
        ("return x",),
        ("raise ValueError", "raise KeyError"),
        ("try: g()", "except OSError: raise"),
        ("raise error",),
        ("def g():", "    raise ValueError"),
    ],
)
def test_several_or_unknown_exceptions_make_no_question(found, lines: tuple[str, ...]):
    assert [answer for _, names, answer in found(find, body(*lines)) if names["name"] == "f"] == []


def test_the_whole_function_is_needed_to_answer(document):
    text = body("raise ValueError", "return 1")
    (fact,) = find(document(text))
    assert text[fact.scope[0] : fact.scope[1]] == text.rstrip("\n")
