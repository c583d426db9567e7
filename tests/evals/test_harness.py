from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path

import pytest

from puna.base.errors import ArtifactError, ConfigError, InputError
from puna.core.chat import Message
from puna.core.completion import Completion
from puna.core.verdict import Task
from puna.evals.harness import HarnessConfig, Subject, compare_folders, evaluate, samples_path, scores_of
from puna.evals.suites import Suite
from puna.testing import ScriptedChatModel

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "data"
SUMS = Suite(
    "sums", "number", tuple(Task(str(i), f"{i} + 1?", f"#### {i + 1}", "odd" if i % 2 else "even") for i in range(6))
)


def adder(messages) -> str:
    return f"#### {int(messages[-1].content.split()[0]) + 1}"


def half(messages) -> str:
    number = int(messages[-1].content.split()[0])
    return f"#### {number + 1}" if number < 3 else "I cannot say"


def test_results_have_intervals_kinds_and_a_row_for_each_question(tmp_path: Path) -> None:
    results = evaluate(Subject("half", ScriptedChatModel(half)), [SUMS], HarnessConfig(batch=4), tmp_path / "r")
    score = results["suites"]["sums"]["scores"]["strict"]
    assert (score["value"], score["count"]) == (0.5, 6) and 0.1 < score["low"] < 0.2 < 0.8 < score["high"]
    assert results["suites"]["sums"]["by_kind"]["even"]["strict"]["value"] == pytest.approx(2 / 3)
    rows = [json.loads(line) for line in samples_path(tmp_path / "r", "sums").read_text().splitlines()]
    assert [row["id"] for row in rows] == list("012345")
    assert rows[4] == {
        "number": 4, "id": "4", "kind": "even", "prompt": "4 + 1?", "reference": "#### 5", "answer": "I cannot say",
        "scores": {"flexible": 0.0, "strict": 0.0}, "found": {"flexible": None, "strict": None},
    }  # fmt: skip
    assert json.loads((tmp_path / "r" / "results.json").read_text()) == results


def test_an_evaluation_that_was_cut_off_asks_only_what_is_missing(tmp_path: Path) -> None:
    answers = ["#### 1", "#### 2", RuntimeError("power cut")]
    with pytest.raises(RuntimeError):
        evaluate(Subject("m", ScriptedChatModel(answers)), [SUMS], HarnessConfig(batch=2), tmp_path / "r")
    path = samples_path(tmp_path / "r", "sums")
    assert len(path.read_text().splitlines()) == 2
    path.write_text(path.read_text() + '{"number": 2, "id": "2", "sco')  # a kill in the middle of a line
    model = ScriptedChatModel(adder)
    results = evaluate(Subject("m", model), [SUMS], HarnessConfig(batch=3), tmp_path / "r")
    assert [asked.messages[-1].content for asked in model.asked] == ["2 + 1?", "3 + 1?", "4 + 1?", "5 + 1?"]
    assert results["suites"]["sums"]["scores"]["strict"]["value"] == 1.0
    whole = evaluate(Subject("m", ScriptedChatModel(adder)), [SUMS], HarnessConfig(), tmp_path / "other")
    assert whole == results and path.read_text() == samples_path(tmp_path / "other", "sums").read_text()


def test_a_folder_of_another_evaluation_is_refused(tmp_path: Path) -> None:
    evaluate(Subject("m", ScriptedChatModel(adder)), [SUMS], HarnessConfig(), tmp_path)
    for subject, suite, config in (
        ("other", SUMS, HarnessConfig()),
        ("m", SUMS.limited(2), HarnessConfig()),
        ("m", SUMS, HarnessConfig(seed=1)),
    ):
        with pytest.raises(InputError, match="results of another evaluation"):
            evaluate(Subject(subject, ScriptedChatModel(adder)), [suite], config, tmp_path)


def test_multiple_choice_asks_for_likelihoods_or_for_the_letter(tmp_path: Path) -> None:
    task = Task("1", "Question: 1 + 1?\nAnswer:", "2", meta={"choices": ["3", "2"], "gold": 1})
    suite = Suite("c", "choice", (task,))
    chat = ScriptedChatModel(["B"])
    found = evaluate(Subject("m", chat), [suite], HarnessConfig(), tmp_path / "a")["suites"]["c"]["scores"]
    assert found["acc"]["value"] == 1.0 and "B. 2" in chat.asked[0].messages[-1].content
    by_likelihood = Subject("m", ScriptedChatModel([]), lambda pairs: [-1.0, -2.0])
    found = evaluate(by_likelihood, [suite], HarnessConfig(), tmp_path / "b")["suites"]["c"]["scores"]
    assert (found["acc"]["value"], found["acc_norm"]["value"]) == (0.0, 0.0)


def test_plain_text_is_continued_with_the_suites_stops(tmp_path: Path) -> None:
    asked = []

    def generate(prompts, params):
        asked.append((prompts, params.stop))
        return [Completion(Message("assistant", "#### 1")) for _ in prompts]

    suite = Suite("s", "number", SUMS.tasks[:1], SUMS.tasks[2:], stop=("Question:",))
    config = HarnessConfig(plain=True, shots=1)
    evaluate(Subject("m", ScriptedChatModel([]), generate=generate), [suite], config, tmp_path / "a")
    assert asked == [(["2 + 1? #### 3\n\n0 + 1?"], ("Question:",))]
    with pytest.raises(InputError, match="answers conversations only"):
        evaluate(Subject("m", ScriptedChatModel([])), [suite], config, tmp_path / "b")


def test_tools_are_offered_with_the_questions_that_have_them(tmp_path: Path) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    meta = {"tools": [tool], "expected": [{"f": {}}], "messages": [{"role": "user", "content": "Call f."}]}
    model = ScriptedChatModel(["[f()]"])
    suite = Suite("calls", "calls", (Task("1", "Call f.", "", meta=meta),))
    results = evaluate(Subject("m", model), [suite], HarnessConfig(), tmp_path)
    assert [spec.name for spec in model.asked[0].tools] == ["f"]
    assert results["suites"]["calls"]["scores"]["match"]["value"] == 1.0


def test_several_values_of_a_question_are_all_counted() -> None:
    rows = [{"scores": {"a": [1.0, 0.0]}}, {"scores": {"a": [1.0]}}]
    assert (scores_of(rows)["a"].value, scores_of(rows)["a"].count) == (pytest.approx(2 / 3), 3)


def test_two_folders_are_compared_question_by_question(tmp_path: Path) -> None:
    suite = Suite("sums", "number", tuple(Task(str(i), f"{i} + 1?", f"#### {i + 1}") for i in range(20)))
    evaluate(Subject("half", ScriptedChatModel(half)), [suite], HarnessConfig(), tmp_path / "a")
    evaluate(Subject("adder", ScriptedChatModel(adder)), [suite], HarnessConfig(), tmp_path / "b")
    found = compare_folders(tmp_path / "a", tmp_path / "b")["sums"]["strict"]
    assert (found.first, found.second, found.won, found.lost) == (0.15, 1.0, 17, 0)
    assert found.p_value == pytest.approx(2 / 2**17)
    evaluate(Subject("adder", ScriptedChatModel(adder)), [suite.limited(5)], HarnessConfig(), tmp_path / "c")
    with pytest.raises(InputError, match="other questions under the name sums"):
        compare_folders(tmp_path / "a", tmp_path / "c")
    with pytest.raises(ArtifactError, match="no file"):
        compare_folders(tmp_path / "a", tmp_path / "missing")


def test_faulty_settings_are_refused(tmp_path: Path) -> None:
    for change in ({"shots": -1}, {"limit": 0}, {"batch": 0}):
        with pytest.raises(ConfigError, match="must be at least"):
            HarnessConfig(**change)
    with pytest.raises(InputError, match="Two suites have one name"):
        evaluate(Subject("m", ScriptedChatModel([])), [SUMS, SUMS], HarnessConfig(), tmp_path)
    with pytest.raises(ConfigError, match="asks for programs, and nothing runs them"):
        evaluate(Subject("m", ScriptedChatModel([])), [Suite("s", "code", SUMS.tasks)], HarnessConfig(), tmp_path)


@pytest.mark.skipif(not SHARED.exists(), reason="shared/data is not there")
def test_every_decision_is_that_of_lm_evaluation_harness(tmp_path: Path) -> None:
    python = os.environ.get("PUNA_LM_EVAL_PYTHON", "")
    if not python:
        pytest.skip("PUNA_LM_EVAL_PYTHON names no Python that has lm_eval")
    spec = importlib.util.spec_from_file_location("eval_parity", ROOT / "benchmarks" / "eval_parity.py")
    assert spec and spec.loader
    parity = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(parity)
    for name, found in parity.measure(python, tmp_path, 8)["tasks"].items():
        least = parity.IFEVAL_LEAST if name == "ifeval" else 1.0
        assert found["samples"] >= 2
        assert found["agree"] >= int(least * found["samples"]), (name, found["differ"])
