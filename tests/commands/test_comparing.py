"""`puna compare`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from puna.core.verdict import Task
from puna.evals.harness import HarnessConfig, Subject, evaluate
from puna.evals.suites import Suite
from puna.testing import ScriptedChatModel


def test_two_folders_are_compared(puna, tmp_path: Path) -> None:
    suite = Suite("sums", "number", tuple(Task(str(i), "1 + 1?", "#### 2") for i in range(9)))
    for name, answer in (("worse", "#### 3"), ("better", "#### 2")):
        model = ScriptedChatModel(lambda messages, answer=answer: answer)
        evaluate(Subject(name, model), [suite], HarnessConfig(), tmp_path / name)
    code, out, _ = puna("compare", tmp_path / "worse", tmp_path / "better")
    assert code == 0
    assert "sums: strict 0.0% to 100.0%: +100.0%" in out and "won 9, lost 0, p = 0.00391 (McNemar, exact)" in out
    code, out, _ = puna("compare", tmp_path / "better", tmp_path / "worse", "--json")
    assert json.loads(out)["sums"]["strict"]["p_value"] == pytest.approx(2 / 2**9)
    assert json.loads(out)["sums"]["strict"]["difference"] == -1


def test_a_folder_without_results_is_an_error(puna, tmp_path: Path) -> None:
    code, _, errors = puna("compare", tmp_path, tmp_path)
    assert code != 0 and "results.json" in errors
