"""All finders together."""

from __future__ import annotations

import inspect
import textwrap
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from puna.core.document import Document
from puna.data.questions import finders
from puna.data.questions.finders import FINDERS, facts
from puna.data.questions.phrasing import phrasings


def test_every_module_of_the_room_that_finds_is_registered():
    folder = Path(inspect.getfile(finders)).parent
    finding = {path.stem for path in folder.glob("*.py") if "\ndef find(document" in path.read_text()}
    assert finding == set(FINDERS)


def test_facts_come_in_the_order_of_their_answers(document):
    found = facts(document(inspect.getsource(textwrap), source="textwrap.py"))
    assert [fact.start for fact in found] == sorted(fact.start for fact in found)
    assert len(found) > 30


PARTS = ["# Head *x*\n", "A b is a c.\n", "- **t**: what it is now.\n", "1. Do the thing.\n", "`\n",
         "|a|b|\n|-|-|\n|c|d|\n",
         "To go on, run:\n\n    x y\n", "Why is it so?\n", "K: v\n", "\n", "  -v  be more loud now\n", "é𝄞 ",
         "term\n  def of it.\n",
         ".. f:: x\n\n   does it well.\n", "{x} {", "\t"]  # fmt: skip


@given(st.lists(st.sampled_from(PARTS), max_size=14), st.sampled_from(["markdown", "rst", "text", "python"]))
@settings(deadline=None)
def test_any_text_gives_facts_whose_answers_stand_in_it(parts: list[str], kind: str):
    text = "".join(parts)
    for fact in facts(Document(text, "id", "a", meta={"kind": kind})):
        answer = text[fact.start : fact.end]
        assert answer == answer.strip() and 2 <= len(answer) <= 200 and "\n" not in answer
        assert fact.scope[0] <= fact.start and fact.end <= fact.scope[1] <= len(text)
        assert fact.kind in phrasings()
