"""Citations point at the words themselves, or there are none."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.core.document import Document
from puna.knowledge.citations import cite, find, quote, verify
from puna.knowledge.grounding import NOT_IN_TEXT
from puna.knowledge.search import Hit

TEXT = "Start.\nThe kea is a parrot\nof the mountains. It opens `bins`, and cars too.\nEnd."
DOCUMENT = Document(TEXT, "doc", "birds.txt")


def hit(start: int = 7, end: int = len(TEXT), id: str = "c1") -> Hit:
    return Hit(id, "doc", "birds.txt", TEXT[start:end], start, end, "")


def test_words_are_found_across_line_breaks_and_only_as_words():
    assert find(TEXT, "a  parrot of the\tmountains") == (TEXT.index("a parrot"), TEXT.index("mountains") + 9)
    assert find(TEXT, "par") is None
    assert find(TEXT, "rrot") is None
    assert find(TEXT, "The Kea") is None
    assert find("f(x) = (1)", "(1)") == (7, 10)
    assert find(TEXT, " ") is None


def test_a_quotation_has_its_place_in_the_document():
    made = quote(hit(), "It opens `bins`")
    assert made is not None
    assert TEXT[made.start : made.end] == made.text == "It opens `bins`"
    assert (made.chunk_id, made.document_id, made.source) == ("c1", "doc", "birds.txt")
    assert quote(hit(end=20), "mountains") is None


def test_a_whole_answer_is_one_citation_with_or_without_its_full_stop():
    for answer in ("The kea is a parrot of the mountains.", "a parrot", " a parrot. "):
        (made,) = cite(answer, [hit()])
        assert answer[made.answer_start : made.answer_end].strip(" .") == made.text.replace("\n", " ").strip(".")


def test_sentences_and_quotations_are_cited_and_the_rest_is_not():
    answer = 'Keas are clever. It opens `bins`, and cars too. One calls it "a parrot", or “bins”.'
    made = cite(answer, [hit()])
    assert [one.text for one in made] == ["It opens `bins`, and cars too.", "a parrot", "bins"]
    for one in made:
        assert answer[one.answer_start : one.answer_end] == one.text


def test_the_first_hit_that_holds_it_is_cited():
    made = cite("a parrot", [hit(end=15, id="no"), hit(id="first"), hit(0, id="second")])
    assert [one.chunk_id for one in made] == ["first"]


@pytest.mark.parametrize("answer", ["", " ", NOT_IN_TEXT, "Penguins swim.", "mountain", '"penguin"'])
def test_what_does_not_occur_has_no_citation(answer: str):
    assert cite(answer, [hit()]) == []
    assert cite("a parrot", []) == []


def test_a_citation_is_verified_by_the_document_as_it_is():
    (made,) = cite("a parrot", [hit()])
    assert verify(made, DOCUMENT)
    assert not verify(replace(made, start=made.start + 1), DOCUMENT)
    assert not verify(replace(made, text="a penguin"), DOCUMENT)
    assert not verify(made, replace(DOCUMENT, id="other"))
    assert not verify(made, replace(DOCUMENT, text="changed since"))
    assert not verify(replace(made, start=900, end=900, text=""), DOCUMENT)


@given(st.text(alphabet='ab .\n"`', max_size=60), st.text(alphabet='ab .\n"`', max_size=30), st.integers(0, 60))
def test_every_citation_holds(text: str, answer: str, start: int):
    document = Document(text, "d", "s")
    for one in cite(answer, [Hit("c", "d", "s", text[start:], min(start, len(text)), len(text), "")]):
        assert verify(one, document)
        assert answer[one.answer_start : one.answer_end].split() == one.text.split()
