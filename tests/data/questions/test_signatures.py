"""What the heads of definitions say, against `inspect`."""

from __future__ import annotations

import ast
import inspect
import shutil
import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.core.document import Document
from puna.data.questions.signatures import find


@pytest.mark.parametrize(
    ("head", "answer"),
    [
        ("def f(a, b=1)", "a, b=1"),
        ("def f( a , *args,  **kw )", "a , *args,  **kw"),
        ("def f(a, /, b, *, c=(1, 2))", "a, /, b, *, c=(1, 2)"),
        ("def f(a: dict[str, int] = {}, )", "a: dict[str, int] = {}"),
        ("async def f(self)", "self"),
    ],
)
def test_parameters_are_the_text_between_the_parentheses(found, head: str, answer: str):
    assert ("parameters", {"name": "f"}, answer) in found(find, f"{head}: pass\n")


@pytest.mark.parametrize(
    ("parameters", "answer"),
    [("self, aa", "aa"), ("cls, /, aa", "aa"), ("self, *aa", "*aa"), ("self, *, aa=1", "*, aa=1"), ("self", None)],
)
def test_a_method_is_called_without_its_first_parameter(found, parameters: str, answer: str | None):
    answers = [a for kind, _, a in found(find, f"class C:\n    def m({parameters}): pass\n") if kind == "parameters"]
    assert answers == ([] if answer is None else [answer])


def test_parameters_over_several_lines_make_no_answer(found):
    assert [kind for kind, _, _ in found(find, "def f(aa,\n      bb): pass\n")] == []


def test_defaults_results_and_bases(found):
    text = "class C(A, mod.B):\n    def __init__(self, a, b=None, *, c='x', d): pass\n\ndef g() -> list[int]: ...\n"
    assert found(find, text) == [
        ("bases", {"name": "C"}, "A, mod.B"),
        ("parameters", {"name": "C"}, "a, b=None, *, c='x', d"),
        ("default", {"name": "C", "parameter": "b"}, "None"),
        ("default", {"name": "C", "parameter": "c"}, "'x'"),
        ("return_type", {"name": "g"}, "list[int]"),
    ]
    assert found(find, "class D(Base): pass\nclass E(object): pass\n") == [("base", {"name": "D"}, "Base")]


def test_parameters_and_defaults_are_those_that_inspect_sees(document):
    text = inspect.getsource(shutil)
    checked = 0
    for fact in find(Document(text, "id", "shutil.py", meta={"kind": "python"})):
        function = getattr(shutil, fact.names["name"], None)
        answer = text[fact.start : fact.end]
        if not inspect.isfunction(function) or text.count(f"def {fact.names['name']}(") > 1:
            continue
        signature = inspect.signature(function)
        if fact.kind == "parameters":
            parsed = ast.parse(f"def f({answer}): pass").body[0]
            assert isinstance(parsed, ast.FunctionDef)
            names = [arg.arg for arg in [*parsed.args.posonlyargs, *parsed.args.args, *parsed.args.kwonlyargs]]
            assert names == [name for name, p in signature.parameters.items() if p.kind not in (2, 4)]
            checked += 1
        elif fact.kind == "default":
            default = signature.parameters[fact.names["parameter"]].default
            assert eval(answer, vars(shutil)) == default
            checked += 1
    assert checked > 40


@given(st.lists(st.sampled_from(["aa", "bb=1", "*cc", "dd: 'x)' = ')'", "**ee"]), min_size=1, max_size=5, unique=True))
def test_brackets_in_strings_do_not_end_a_signature(parameters: list[str]):
    text = f"def f({', '.join(parameters)}): return 'x'\n"
    try:
        ast.parse(text)
    except SyntaxError:
        return
    facts = find(Document(text, "id", "a.py", meta={"kind": "python"}))
    (answer,) = [text[fact.start : fact.end] for fact in facts if fact.kind == "parameters"]
    assert answer == ", ".join(parameters)
    assert textwrap.dedent(answer) == answer
