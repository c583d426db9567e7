"""What docstrings say of what they document."""

from __future__ import annotations

import pytest

from puna.data.questions.docstrings import find


def function(docstring: str) -> str:
    return f"def area(w, h):\n    {docstring}\n    return w * h\n"


def test_a_function_is_asked_for_by_name_and_by_deed(found):
    assert found(find, function('"""Return the product of two lengths. More."""')) == [
        ("function", {"name": "area"}, "Return the product of two lengths."),
        ("returns", {"name": "area"}, "Return the product of two lengths."),
        ("which_function", {"noun": "function", "task": "returns the product of two lengths"}, "area"),
    ]


@pytest.mark.parametrize(
    "docstring",
    [
        '"""area(w, h) -> number"""',  # a signature
        '"""Return the product of a width\n    and a height."""',  # over a line's end
        '"""Area function."""',  # says nothing
        '"""TODO write me now."""',
        '"""The following holds:"""',
        '"""A tab \\t in the sentence here."""',  # the source is not what the string says
        '"""Return "half of it." and more""" """implicitly joined text"""',
        "42",
    ],
)
def test_docstrings_that_make_no_answer(found, docstring: str):
    assert found(find, function(docstring)) == []


def test_raw_docstrings_keep_their_backslashes(found):
    assert found(find, function('r"""Match \\\\d in the text."""'))[0][2] == "Match \\\\d in the text."


def test_classes_methods_properties_and_modules(found):
    text = (
        '"""lib.py -- a set of small tools."""\n\nclass Box(Base):\n    """A container of sized things."""\n\n'
        '    @property\n    def size(self):\n        """Number of things inside."""\n\n'
        '    def put(self, x):\n        """Add one more thing."""\n'
    )
    assert found(find, text) == [
        ("module", {"name": "lib"}, "a set of small tools."),
        ("class", {"name": "Box"}, "A container of sized things."),
        ("which_class", {"task": "a container of sized things"}, "Box"),
        ("property", {"name": "Box.size"}, "Number of things inside."),
        ("method", {"name": "Box.put"}, "Add one more thing."),
        ("which_function", {"noun": "method", "task": "adds one more thing"}, "put"),
    ]


@pytest.mark.parametrize(
    ("docstring", "task"),
    [
        ("Base class for sized things.", "the base class for sized things"),
        ("An error that is raised too late.", "an error that is raised too late"),
        ("A requested option was not found.", None),
        ("The server didn't accept the data.", None),
    ],
)
def test_a_class_is_asked_for_by_what_it_is_and_not_by_what_happened(found, docstring: str, task: str | None):
    facts = found(find, f'class Box:\n    """{docstring}"""\n')
    assert [names["task"] for kind, names, _ in facts if kind == "which_class"] == ([task] if task else [])


def test_a_name_is_not_asked_for_by_words_that_hold_it(found):
    text = 'def copy(a):\n    """Copy the first thing."""\n'
    assert [kind for kind, _, _ in found(find, text)] == ["function"]
