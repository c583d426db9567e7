"""Canaries: sound models are left alone, degraded ones are shut out, and let in again when they are sound."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from puna.base.errors import ConfigError, RemoteError
from puna.core.chat import Message
from puna.core.completion import Completion, TokenLogprob
from puna.stack.routing.canaries import Question, Sequential, Watch, put, read_questions, reference, to_toml
from puna.stack.routing.config import CanaryConfig
from puna.stack.testing import ScriptedProvider

QUESTION = Question("times", "What is 17 times 23?", ("391",))
SCORED = Question("times", "What is 17 times 23?", ("391",), logprob=-0.10, deviation=0.02)


def said(text: str, logprob: float | None = None) -> Completion:
    logprobs = () if logprob is None else (TokenLogprob(1, logprob), TokenLogprob(2, logprob))
    return Completion(Message("assistant", text), logprobs=logprobs)


@pytest.mark.parametrize(("reply", "right"), [
    ("391", True), ("The answer is **391**.", True), ("3,91", True), ("3910", False), ("1391", False), ("", False),
])  # fmt: skip
def test_an_answer_is_right_where_it_holds_the_known_one_as_a_word(reply: str, right: bool) -> None:
    assert QUESTION.is_right(reply) == right


def test_the_built_in_questions_are_distinct_and_read() -> None:
    questions = read_questions()
    assert len(questions) >= 20
    assert len({question.id for question in questions}) == len(questions)
    assert all(question.is_right(question.answers[0]) for question in questions)
    assert not any(
        question.is_right(question.prompt) for question in questions if question.id not in ("order", "odd", "logic")
    )


def test_a_file_of_ones_own_is_checked(tmp_path: Path) -> None:
    (tmp_path / "q.toml").write_text('format = 1\n[[questions]]\nid = "a"\nprompt = "?"\nanswers = []\n')
    with pytest.raises(ConfigError, match="has no answers"):
        read_questions(str(tmp_path / "q.toml"))
    with pytest.raises(ConfigError, match="deviation"):
        Question("a", "?", ("b",), logprob=-1.0)


def verdicts(share: float, seed: int, questions: int) -> list[str]:
    """What is found of a model that answers this share, as the findings come."""
    watch, drawn = Watch(CanaryConfig()), random.Random(seed)
    found = (watch.add(QUESTION, said("391" if drawn.random() < share else "401")) for _ in range(questions))
    return [finding for finding in found if finding]


def test_the_errors_of_the_test_are_as_promised() -> None:
    sound = [finding for seed in range(20) for finding in verdicts(0.95, seed, 2000)]
    degraded = [finding for seed in range(20) for finding in verdicts(0.75, seed, 500)]
    assert len(sound) > 500
    assert sound.count("degraded") / len(sound) <= 0.003
    assert degraded.count("sound") / len(degraded) <= 0.02


def test_a_wrong_model_is_shut_out_within_a_few_questions_and_one_slip_is_forgiven() -> None:
    watch = Watch(CanaryConfig())
    assert watch.add(QUESTION, said("401")) is None
    findings = [watch.add(QUESTION, said("401")) for _ in range(6)]
    assert "degraded" in findings
    assert watch.quarantine.startswith("quarantined: 0 of its last ")
    assert "95%" in watch.quarantine


def test_it_is_let_in_again_by_the_same_test() -> None:
    watch = Watch(CanaryConfig(), quarantine="quarantined: ...")
    for _ in range(19):
        watch.add(QUESTION, said("391"))
    assert watch.quarantine
    watch.add(QUESTION, said("391"))
    assert not watch.quarantine


@pytest.mark.parametrize(("logprob", "found"), [(-0.10, ""), (-0.16, "lower"), (-0.04, "higher")])
def test_coarser_weights_show_in_the_probabilities_of_right_answers(logprob: float, found: str) -> None:
    watch = Watch(CanaryConfig())
    for _ in range(12):
        watch.add(SCORED, said("391", logprob))
    assert watch.quarantine == (f"quarantined: the log-probabilities of its answers are {found} than the reference's"
                                if found else "")  # fmt: skip


def test_a_reference_is_measured_and_read_again(tmp_path: Path) -> None:
    other = Question("sky", "Is the sky green?", ("no",))
    answers = [said("391", -0.1), said("391", -0.2), said("No", -0.5), said("Yes", -0.5)]
    measured = asyncio.run(reference(ScriptedProvider(answers=answers), "tiny", [QUESTION, other], rounds=2))
    (kept,) = measured  # what it does not answer right every time tells nothing
    assert kept.logprob == pytest.approx(-0.15)
    assert kept.deviation == pytest.approx(0.05)
    (tmp_path / "q.toml").write_text(to_toml(measured))
    assert list(read_questions(str(tmp_path / "q.toml"))) == measured
    with pytest.raises(RemoteError, match="no log-probabilities"):
        asyncio.run(reference(ScriptedProvider(answers=[said("391")] * 2), "tiny", [QUESTION], rounds=2))


def test_the_quality_is_the_share_of_right_answers() -> None:
    watch = Watch(CanaryConfig())
    for i in range(10):
        assert watch.quality is None
        watch.add(QUESTION, said("391" if i else "7"))
    assert watch.quality == 0.9
    again = Watch.from_json(watch.config, watch.to_json())
    assert (again.quality, again.next, again.quarantine) == (0.9, 0, "")


def test_evidence_begins_anew_after_a_finding() -> None:
    test = Sequential(0.01, 0.01)
    assert test.add(100.0) == "degraded"
    assert test.evidence == 0.0
    assert test.add(-100.0) == "sound"
    assert test.add(0.1) is None


def test_a_canary_is_asked_like_any_request() -> None:
    provider = ScriptedProvider(answers=["391"])
    completion = asyncio.run(put(provider, SCORED.ask("tiny", logprobs=True)))
    assert completion.message.content == "391"
    (ask,) = provider.asked
    assert (ask.model, ask.params.temperature, ask.params.logprobs) == ("tiny", 0.0, 0)
    assert QUESTION.ask("tiny", logprobs=True).params.logprobs is None  # there is nothing to compare with
    with pytest.raises(RemoteError):
        asyncio.run(put(ScriptedProvider(answers=[RemoteError("gone")]), QUESTION.ask("tiny", False)))
