"""Where syntax nodes stand, in characters."""

from __future__ import annotations

import ast
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.knowledge.structure.python import docstring, first_line, module_name, parse


@given(st.lists(st.sampled_from(["x = 'é𝄞'\n", "y = 1\n", "\n", "z = 'ü' + '本'  # ñ\n", "\x0c\n"]), max_size=12))
def test_offsets_are_those_of_asts_own_segments(lines: list[str]):
    text = "".join(lines)
    source = parse(text)
    assert source is not None
    for node in ast.walk(source.tree):
        if isinstance(node, (ast.expr, ast.stmt)):
            assert text[source.start(node) : source.end(node)] == ast.get_source_segment(text, node)


@pytest.mark.parametrize("text", ["print 'two'", "def f(:", "x = '\0'", "(" * 300])
def test_what_is_no_python_gives_none(text: str):
    assert parse(text) is None


def test_a_dubious_escape_is_not_reported():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert parse("pattern = '\\d'\n") is not None


def test_decorators_belong_to_a_definition_and_docstrings_are_found():
    source = parse('@a\n@b\ndef f():\n    "doc"\n')
    assert source is not None
    (function,) = source.tree.body
    assert isinstance(function, ast.FunctionDef)
    assert first_line(function) == 1
    string = docstring(function)
    assert string is not None and string.value == "doc"
    assert docstring(source.tree) is None


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("shutil.py", "shutil"),
        ("email/mime/text.py", "email.mime.text"),
        ("email/__init__.py", "email"),
        ("src/pkg/mod.py", "pkg.mod"),
        ("__init__.py", "__init__"),
    ],
)
def test_module_names(document, source: str, name: str):
    assert module_name(document("", source=source)) == name
