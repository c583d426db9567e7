from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.core.chat import Message
from puna.core.completion import SamplingParams
from puna.core.verdict import Task
from puna.evals.answers import ask, exact_match, normalized, score, token_f1
from puna.testing import ScriptedChatModel

WORDS = st.text("ab '\".\n", max_size=12)


@pytest.mark.parametrize(
    ("answer", "reference", "same"),
    [
        ("int", "int", True),
        ("  a\n b\t", "a b", True),
        ("'a b'", "a b", True),
        ("`os.path`.", "os.path", True),
        ("“yes”", "yes", True),
        ('"', "", True),
        ("Int", "int", False),
        ("the int", "int", False),
        ("a-b", "a b", False),
        ("a.b", "ab", False),
        ("it's", "its", False),
        ("", "int", False),
    ],
)
def test_exact_match_folds_blanks_and_drops_quotes_at_the_edges_alone(answer: str, reference: str, same: bool):
    assert exact_match(answer, reference) == exact_match(reference, answer) == float(same)


@pytest.mark.parametrize(
    ("answer", "reference", "f1"),
    [
        ("a b c", "a b c", 1.0),
        ("c b a", "a b c", 1.0),
        ("a b", "c d", 0.0),
        ("a b c d", "a b", 2 * (0.5 * 1) / 1.5),
        ("a a a", "a", 2 * (1 / 3) / (4 / 3)),
        ("a a", "a a b", 0.8),
        ("f(x)", "f(y)", 0.75),
        ("'a b'", "a b", 1.0),
        ("a b.", "a b", 1.0),
        ("", "", 1.0),
        (".", "", 1.0),
        ("a", "", 0.0),
        ("", "a", 0.0),
    ],
)
def test_f1_counts_words_and_signs_as_often_as_they_stand(answer: str, reference: str, f1: float):
    assert token_f1(answer, reference) == pytest.approx(f1)


@given(WORDS, WORDS)
def test_f1_is_symmetric_within_0_and_1_and_1_for_an_exact_match(answer: str, reference: str):
    f1 = token_f1(answer, reference)
    assert f1 == token_f1(reference, answer)
    assert 0 <= f1 <= 1
    assert not exact_match(answer, reference) or f1 == 1


@given(st.text(max_size=20))
def test_normalizing_twice_changes_nothing(text: str):
    assert normalized(normalized(text)) == normalized(text)


def test_each_task_is_asked_by_itself_and_scored_under_its_kind():
    tasks = [Task("1", "one?", "1", "number"), Task("2", "two?", "2", "number"), Task("3", "name?", "a b", "name")]
    model, params = ScriptedChatModel(["1.", "3", "a c"]), SamplingParams(temperature=0)
    scores = ask(model, tasks, params)
    assert [(asked.messages, asked.params) for asked in model.asked] == [
        ((Message("user", task.prompt),), params) for task in tasks
    ]
    assert [(s.task.id, s.answer, s.exact, s.f1) for s in scores.samples] == [
        ("1", "1.", 1.0, 1.0), ("2", "3", 0.0, 0.0), ("3", "a c", 0.0, 0.5)
    ]  # fmt: skip
    assert (scores.exact.name, scores.exact.value, scores.exact.count) == ("exact_match", pytest.approx(1 / 3), 3)
    assert (scores.f1.name, scores.f1.value) == ("token_f1", pytest.approx(0.5))
    assert {kind: (score.value, score.count) for kind, score in scores.by_kind.items()} == {
        "name": (0.0, 1), "number": (0.5, 2)
    }  # fmt: skip


def test_a_sample_is_written_as_json():
    scores = ask(ScriptedChatModel(["a"]), [Task("1", "one?", "a b c", "number")], SamplingParams())
    assert json.loads(json.dumps(scores.samples[0].to_json())) == {
        "id": "1", "kind": "number", "prompt": "one?", "reference": "a b c", "answer": "a", "exact": 0.0, "f1": 0.5
    }  # fmt: skip


def test_no_tasks_give_no_scores():
    scores = ask(ScriptedChatModel([]), [], SamplingParams())
    assert (scores.exact.count, scores.f1.count, scores.by_kind, scores.samples) == (0, 0, {}, [])


def test_answers_from_elsewhere_are_scored_as_a_models_are():
    tasks = [Task("1", "one?", "1", "number"), Task("2", "name?", "a b", "name")]
    model = ScriptedChatModel(["1", "a c"])
    assert score(tasks, ["1", "a c"]) == ask(model, tasks, SamplingParams())
    with pytest.raises(ValueError, match="shorter"):
        score(tasks, ["1"])
