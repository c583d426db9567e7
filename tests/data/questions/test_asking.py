"""Questions on passages."""

from __future__ import annotations

from puna.data.questions.asking import answerable, is_absent, read, unanswerable
from puna.data.questions.fact import Fact
from puna.knowledge.chunk import Passage
from puna.knowledge.grounding import NOT_IN_TEXT

SOURCE = '''class A:
    def close(self, how=None):
        """Shut the first door."""


class B:
    def close(self, how=False):
        """Shut the second door."""

    def open(self):
        """Make a new opening."""
'''


def test_an_answer_is_quoted_from_the_passage_and_the_document(document):
    doc = document(SOURCE)
    reading = read(doc, 600, 0)
    questions = [answerable(reading, i, fact, 0) for i, found in enumerate(reading.facts) for fact in found]
    assert questions
    for question in questions:
        span = question.span
        assert span is not None
        assert doc.text[span.start : span.end] == question.answer
        assert question.passage.start <= span.start < span.end <= question.passage.end


def test_a_name_with_two_answers_in_a_passage_is_not_asked_for(document):
    together = read(document(SOURCE), 600, 0)
    assert not [fact for found in together.facts for fact in found if fact.names.get("name", "").endswith("close")]
    apart = read(document(SOURCE), 110, 0)
    assert {fact.names["name"] for found in apart.facts for fact in found if fact.kind == "method"} >= {
        "A.close",
        "B.close",
    }


def test_a_fact_whose_name_is_in_another_passage_is_not_asked_for(document):
    text = 'def f(aa):\n    """Do.\n\n' + "    Words of no use.\n" * 20 + '    :param aa: what it is about\n    """\n'
    assert [fact.kind for found in read(document(text), 2000, 0).facts for fact in found if fact.kind == "parameter"]
    assert not [fact.kind for found in read(document(text), 150, 0).facts for fact in found if fact.kind == "parameter"]


def test_one_place_gives_one_question(document):
    text = "# Shard\n\nA shard is a part of a file.\n"
    reading = read(document(text, "markdown"), 600, 0)
    spans = [(fact.start, fact.end) for found in reading.facts for fact in found]
    assert len(spans) == len(set(spans)) == 1


def passage(text: str, heading: str = "") -> Passage:
    return Passage("id", "lib.py", 0, len(text), heading, text)


def fact(kind: str = "function", **names: str) -> Fact:
    return Fact(kind, names, 0, 2, (0, 2))


def test_what_a_passage_mentions_is_not_absent():
    assert is_absent(fact(name="copyfile"), [passage("def move(): pass")])
    assert not is_absent(fact(name="A.copyfile"), [passage("see CopyFile there")])
    assert not is_absent(fact(name="copyfile"), [passage("x", "def copyfile")])
    assert not is_absent(fact(name="copyfile"), [passage("x"), passage("copyfile()")])
    assert not is_absent(fact("module", name="lib"), [passage("x")])


def test_a_phrase_is_absent_where_most_of_its_words_are():
    task = fact("which_function", noun="function", task="returns the product of lengths")
    assert is_absent(task, [passage("this returns something else")])
    assert not is_absent(task, [passage("the product of all lengths")])


def test_an_unanswerable_question_has_no_span():
    question = unanswerable(fact(name="copyfile"), passage("x"), 0)
    assert (question.answer, question.span) == (NOT_IN_TEXT, None)
    assert "copyfile" in question.question
