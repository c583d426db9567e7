from __future__ import annotations

from pathlib import Path

import pytest

from puna.base.errors import ResourceError
from puna.core.verdict import Task
from puna.evals.harness import HarnessConfig, Subject, evaluate
from puna.evals.programs import runner
from puna.evals.suites import Suite
from puna.sandbox import probe
from puna.sandbox.program import Sandbox
from puna.testing import ScriptedChatModel


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    try:
        return probe.best()
    except ResourceError as error:
        pytest.skip(error.message)


@pytest.mark.parametrize(
    ("text", "passes"),
    [
        ("assert 1 + 1 == 2", True),
        ("assert 1 + 1 == 3", False),
        ("def f(:", False),
        ("import sys\nsys.exit(0)", False),
        ("import os\nprint('passed', flush=True)\nos._exit(0)", False),
        ("while True: pass", False),
    ],
)
def test_a_program_passes_where_it_reaches_its_own_end(sandbox: Sandbox, text: str, passes: bool) -> None:
    assert runner(sandbox, seconds=2.0)(text) == passes


def test_suites_of_code_are_judged_by_running_the_answers(sandbox: Sandbox, tmp_path: Path) -> None:
    tasks = tuple(
        Task(str(i), f"Write f that adds {i}.", "", meta={"test": f"assert f(1) == {i + 1}\n"}) for i in (1, 2)
    )
    model = ScriptedChatModel(lambda messages: "```python\ndef f(x):\n    return x + 2\n```")
    suite = Suite("adders", "code", tasks)
    results = evaluate(Subject("m", model), [suite], HarnessConfig(), tmp_path, runner(sandbox))
    assert results["suites"]["adders"]["scores"]["passed"]["value"] == 0.5
