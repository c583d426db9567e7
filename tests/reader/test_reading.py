"""Cited answers: every one is a span of a passage, whoever chose it, or says that the text does not say."""

from __future__ import annotations

import json

import pytest

from puna.base.errors import ConfigError
from puna.core.chat import Message
from puna.core.completion import SamplingParams
from puna.core.document import Span
from puna.engine.local import LocalModel
from puna.knowledge.chunk import Passage
from puna.knowledge.grounding import NOT_IN_TEXT, grounded_prompt
from puna.reader.ranker import Example, Ranker, RankerConfig, fit
from puna.reader.reading import CitedAnswer, Reader
from puna.testing import ScriptedChatModel, tiny_model, tiny_tokenizer

TEXT = 'def copyfile(src, dst):\n    """Copy data from src\n    to dst."""\n    raise SameFileError\n'
PASSAGE = Passage("d1", "shutil.py", 1000, 1000 + len(TEXT), "def copyfile", TEXT)
OTHER = Passage("d2", "os.py", 0, 20, "", "import sys\nUMASK = 2\n")
DEED = TEXT.index("Copy")
DEED_END = TEXT.index('."""') + 1


@pytest.fixture(scope="module")
def ranker() -> Ranker:
    """Knows two questions, and that OTHER answers neither."""
    whole = (0, PASSAGE.start + DEED, PASSAGE.start + DEED_END)
    error = (0, PASSAGE.start + TEXT.index("Same"), PASSAGE.start + TEXT.index("Same") + len("SameFileError"))
    examples = [
        Example("What does copyfile do?", "", (PASSAGE,), whole),
        Example("What does it do?", "Which exception does copyfile raise?", (PASSAGE,), whole),
        Example("Which exception does copyfile raise?", "", (PASSAGE,), error),
        Example("What does copyfile do?", "", (OTHER,), None),
        Example("Which exception does copyfile raise?", "", (OTHER,), None),
    ]
    fitted = fit(examples * 8, RankerConfig(epochs=8))
    assert fitted is not None
    return fitted


class Shelf:
    """A look-up that notes what it was asked."""

    def __init__(self, *passages: Passage) -> None:
        self.passages, self.asked = passages, []

    def __call__(self, question: str) -> tuple[Passage, ...]:
        self.asked.append(question)
        return self.passages


def test_an_answer_is_a_span_of_the_document_with_its_passage(ranker: Ranker) -> None:
    answer = Reader(None, Shelf(OTHER, PASSAGE), ranker).answer("What does copyfile do?")
    assert answer.text == "Copy data from src to dst."
    assert answer.spans == (Span("d1", 1000 + DEED, 1000 + DEED_END),)
    assert answer.passages == (PASSAGE,)
    assert 0.3 < answer.confidence <= 1
    assert " ".join(TEXT[DEED:DEED_END].split()) == answer.text


def test_what_the_passages_do_not_say_is_not_said(ranker: Ranker) -> None:
    answer = Reader(None, Shelf(OTHER), ranker).answer("What does copyfile do?")
    assert (answer.text, answer.spans, answer.passages) == (NOT_IN_TEXT, (), ())
    assert not answer.found


def test_an_answer_that_is_less_likely_than_the_least_is_not_given(ranker: Ranker) -> None:
    reader = Reader(None, Shelf(PASSAGE), ranker)
    sure = reader.answer("What does copyfile do?").confidence
    assert Reader(None, Shelf(PASSAGE), ranker, least=sure).answer("What does copyfile do?").found
    unsure = Reader(None, Shelf(PASSAGE), ranker, least=sure + 1e-6).answer("What does copyfile do?")
    assert (unsure.text, unsure.spans) == (NOT_IN_TEXT, ())
    assert unsure.trace["candidates"][0]["text"] == "Copy data from src to dst."


def test_the_trace_tells_what_was_considered(ranker: Ranker) -> None:
    answer = Reader(None, Shelf(PASSAGE), ranker).answer("What does copyfile do?")
    trace = json.loads(json.dumps(answer.trace))
    assert trace["question"] == "What does copyfile do?"
    assert [place["source"] for place in trace["passages"]] == ["shutil.py"]
    assert trace["candidates"][0]["text"] == answer.text
    assert len(trace["candidates"]) == 5


def test_a_question_that_points_back_is_looked_up_with_the_one_before(ranker: Ranker) -> None:
    shelf = Shelf(PASSAGE)
    first = grounded_prompt("Which exception does copyfile raise?", [PASSAGE])
    history = [Message("user", first), Message("assistant", "SameFileError")]
    answer = Reader(None, shelf, ranker).answer("What does it do?", history)
    assert shelf.asked == ["Which exception does copyfile raise? What does it do?"]
    assert answer.text == "Copy data from src to dst."


def test_the_passage_that_defines_what_is_asked_about_is_read_first(ranker: Ranker) -> None:
    uses = [Passage("d3", "x.py", i, i + 14, "def copyfile", "copyfile(a, b)") for i in range(9)]
    answer = Reader(None, Shelf(*uses, PASSAGE), ranker, count=2).answer("What does copyfile do?")
    assert [place["source"] for place in answer.trace["passages"]] == ["shutil.py", "x.py"]
    assert answer.passages == (PASSAGE,)


def test_where_nothing_is_found_nothing_is_read(ranker: Ranker) -> None:
    answer = Reader(None, Shelf(), ranker).answer("What does copyfile do?")
    assert (answer.text, answer.trace["passages"]) == (NOT_IN_TEXT, [])


def test_a_reader_needs_somebody_who_answers() -> None:
    with pytest.raises(ConfigError, match="ranker"):
        Reader(None, Shelf(PASSAGE))


# Written under a grammar ----------------------------------------------------------------------------------------------


def test_a_model_that_writes_is_cited_where_its_words_stand() -> None:
    model = ScriptedChatModel(["SameFileError"])
    answer = Reader(model, Shelf(PASSAGE, OTHER)).answer("What does it raise?")
    start = PASSAGE.start + TEXT.index("Same")
    assert answer == CitedAnswer("SameFileError", (Span("d1", start, start + 13),), (PASSAGE,), 0.0, answer.trace)
    params = model.asked[0].params
    assert isinstance(params, SamplingParams)
    assert params.constraint is not None
    assert params.constraint.value == {"texts": [TEXT], "or": [NOT_IN_TEXT]}


@pytest.mark.parametrize("words", [NOT_IN_TEXT, "", "what no passage holds"])
def test_a_model_that_finds_nothing_is_not_cited(words: str) -> None:
    answer = Reader(ScriptedChatModel([words]), Shelf(PASSAGE)).answer("What is it?")
    assert (answer.text, answer.spans) == (NOT_IN_TEXT, ())


@pytest.mark.parametrize("seed", range(6))
def test_whatever_a_model_wants_to_say_it_says_a_span(seed: int) -> None:
    reader = Reader(LocalModel(tiny_model(seed), tiny_tokenizer()), Shelf(PASSAGE, OTHER))
    answer = reader.answer("What does copyfile do?")
    if answer.found:
        (span,), (passage,) = answer.spans, answer.passages
        assert passage.text[span.start - passage.start : span.end - passage.start] == answer.text
    else:
        assert answer.text == NOT_IN_TEXT


def test_an_answer_as_json_holds_the_words_of_its_citations(ranker: Ranker) -> None:
    told = Reader(None, Shelf(PASSAGE), ranker).answer("What does copyfile do?").to_json()
    (citation,) = told["citations"]
    assert told["text"] == "Copy data from src to dst."
    assert citation["text"] == "Copy data from src\n    to dst."
    assert citation["text"] == TEXT[citation["start"] - 1000 : citation["end"] - 1000]
    assert (citation["source"], citation["document_id"], citation["heading"]) == ("shutil.py", "d1", "def copyfile")
    assert json.loads(json.dumps(told)) == told
    assert CitedAnswer(NOT_IN_TEXT).to_json() == {"text": NOT_IN_TEXT, "citations": [], "confidence": 0.0}
