"""Parameters and results in docstrings, in the styles of Sphinx, of Google and of the standard library."""

from __future__ import annotations

import pytest

from puna.data.questions.parameters import find

SPHINX = '''def f(a, b):
    """Do it.

    :param a: the first one of two
    :param int b: how many there
        are of them
    :returns: a sum of both.
    """
'''
GOOGLE = '''def f(a, b):
    """Do it.

    Args:
        a: The first one of two.
        b (int): How many there are. They
            are counted.
        *rest: What else is given.

    Returns:
        int: A sum of both numbers.
    """
'''
DASHES = '''def f(a):
    """Do it.

    Arguments:

        a -- the first one of two

    Return value is none
    """
'''


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (SPHINX, [("a", "the first one of two"), ("", "a sum of both.")]),
        (GOOGLE, [("a", "The first one of two."), ("b", "How many there are."), ("rest", "What else is given."),
                  ("", "A sum of both numbers.")]),
        (DASHES, [("a", "the first one of two")]),
        ('def f(a):\n    """Args: none of note here."""\n', []),
    ],
)  # fmt: skip
def test_descriptions_on_one_line(found, text: str, expected: list[tuple[str, str]]):
    results = found(find, text)
    assert [(names.get("parameter", ""), answer) for _, names, answer in results] == expected
    assert {kind for kind, _, _ in results} <= {"parameter", "returns"}


def test_a_class_is_asked_for_in_place_of_its_init(found):
    docstring = '"""Make it.\n\n        :param a: what it is made of\n        """'
    text = f"class C:\n    def __init__(self, a):\n        {docstring}\n"
    assert found(find, text) == [("parameter", {"name": "C", "parameter": "a"}, "what it is made of")]
