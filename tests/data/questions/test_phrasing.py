"""Facts in a user's words."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.data.questions.fact import Fact
from puna.data.questions.finders import facts
from puna.data.questions.phrasing import CODE_KINDS, ask, draw, phrasings, pick

SLOTS = {
    "name": "copyfile", "module": "shutil", "parameter": "src", "noun": "function", "task": "copies",
    "heading": "Linux", "title": "Linux", "question": "Why?", "lower": "why", "ordinal": "first", "number": "1",
    "column": "size", "row": "small", "be": "is", "do": "does",
}  # fmt: skip


def fact(kind: str = "function", start: int = 0) -> Fact:
    return Fact(kind, SLOTS, start, start + 5, (start, start + 5), "copyfile")


@pytest.mark.parametrize("kind", sorted(phrasings()))
def test_every_phrasing_can_be_filled_and_reads_as_one_line(kind: str):
    forms = phrasings()[kind]
    assert len(set(forms["ask"])) >= 2
    for template in (*forms["ask"], *forms.get("again", ())):
        assert {name for _, name, _, _ in string.Formatter().parse(template) if name} <= set(SLOTS)
        question = template.format(**SLOTS)
        assert question == question.strip() and "\n" not in question


@given(st.integers(0, 10_000))
def test_draws_are_even_and_the_same_for_the_same_key(key: int):
    assert draw("seed", key) == draw("seed", key) != draw("other", key)
    assert 0 <= draw(key) < 1
    assert pick("abc", key) in "abc"


def test_draws_fill_their_range_evenly():
    counts = [0] * 10
    for key in range(5000):
        counts[int(10 * draw(key))] += 1
    assert min(counts) > 400 and max(counts) < 600


def test_names_are_written_as_users_write_them():
    asked = {ask(fact(start=start), 0) for start in range(300)}
    assert len(asked) > 20
    for written in ("copyfile", "copyfile()", "`copyfile`", "shutil.copyfile"):
        assert any(written in question for question in asked)
    assert not any("copyfile()" in ask(fact("class", start), 0) for start in range(300))


def test_a_follow_up_need_not_name_its_subject():
    assert "copyfile" not in ask(fact("parameters"), 0, again=True)


def test_every_kind_that_a_finder_yields_has_phrasings(document):
    text = (
        '"""Does a thing."""\nX = 10  # how many of them\nclass C(B):\n    """Make a new thing."""\n'
        '    def f(self, a=None) -> int:\n        """Return a thing."""\n        raise ValueError\n'
    )
    kinds = {found.kind for found in facts(document(text))}
    assert len(kinds) >= 8
    assert kinds <= set(phrasings())
    assert set(phrasings()) >= CODE_KINDS
