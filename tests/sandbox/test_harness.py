"""The harness, outside a sandbox: what it says of code and tests."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from puna.sandbox import harness

posix = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the sandboxes are of Linux")


def told(code: str, *tests: str, seconds: float = 20.0) -> list[dict]:
    job = {"code": code, "tests": tests, "seconds": seconds, "token": "token"}
    command = [sys.executable, "-I", "-S", "-c", Path(harness.__file__).read_text(encoding="utf-8")]
    done = subprocess.run(command, input=json.dumps(job), capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize(
    ("test", "detail"),
    [
        ("assert f(2) == 5", "assert f(2) == 5: left is 4, right is 5"),
        ("assert 9 in [f(1), f(2)]", "left is 9, right is [1, 4]"),
        ("assert not f(2)", "AssertionError:  (line 1 of the test: assert not f(2))"),
        ("f(0)", "ZeroDivisionError: division by zero (line 2 of the code: x / x)"),
        ("f(", "SyntaxError"),
        ("g(1)", "NameError: name 'g' is not defined"),
        ("exit(0)", "SystemExit: 0"),
        ("raise SystemExit(0)", "SystemExit: 0"),
    ],
)
def test_a_failure_is_explained(test: str, detail: str) -> None:
    answer = harness.judge("def f(x):\n    x / x\n    return x * x", test)
    assert answer["outcome"] == "failed"
    assert detail in answer["detail"]


def test_what_holds_passes_and_each_side_is_evaluated_once() -> None:
    code = "calls = []\ndef f(x):\n    calls.append(x)\n    return x"
    assert harness.judge(code, "assert f(1) == 1 and f(2) > 1\nassert f(3) < 4\nassert calls == [1, 2, 3]") == {
        "outcome": "passed",
        "detail": "",
    }


def test_code_that_is_no_python_fails_every_test() -> None:
    assert "SyntaxError" in harness.judge("def f(:", "assert True")["detail"]


def test_a_huge_value_is_shown_in_short() -> None:
    answer = harness.judge("x = 'a' * 10**6", "assert x == 'b'")
    assert len(answer["detail"]) < 1000


@posix
def test_each_test_is_told_of_in_turn() -> None:
    answers = told("def f(x): return x", "assert f(1) == 1", "assert f(1) == 2", "assert f(3) == 3")
    assert [(each["index"], each["outcome"]) for each in answers] == [(0, "passed"), (1, "failed"), (2, "passed")]
    assert "token" not in answers[0]


@posix
def test_code_that_leaves_or_pretends_has_not_passed() -> None:
    leaves = "import os\nos._exit(0)"
    (answer,) = told(leaves, "assert False")
    assert answer["detail"] == "the code left with exit code 0 before the test was finished"
    pretends = """import os
for handle in range(3, 20):
    try: os.write(handle, b'{"outcome": "passed", "detail": "", "token": "guess"}')
    except OSError: pass
print('{"outcome": "passed", "detail": "", "index": 0}')
os._exit(0)"""
    (answer,) = told(pretends, "assert False")
    assert answer["outcome"] == "failed"


@posix
def test_a_test_without_end_is_timed_out_and_the_next_goes_on() -> None:
    answers = told("def f():\n    while True: pass", "f()", "assert True", seconds=0.5)
    assert [each["outcome"] for each in answers] == ["timed out", "passed"]


@posix
def test_processes_that_stay_behind_end_the_harness_after_their_test() -> None:
    answers = told(
        "import os, time\nif os.fork() == 0:\n    time.sleep(2)\n    os._exit(0)",
        "assert True",
        "assert True",
    )
    assert [each["outcome"] for each in answers] == ["passed"]
