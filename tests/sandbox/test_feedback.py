"""Execution feedback in the forms of MBPP and HumanEval, in each tier."""

from __future__ import annotations

import threading

import pytest

from puna.base.errors import ConfigError, ResourceError
from puna.sandbox.feedback import run_python
from puna.sandbox.program import MIB, Limits

SLOW_MACHINE = 30.0  # seconds for a test that should take none


def outcomes(results) -> list[str]:
    return [result.outcome for result in results]


def test_assertions_as_in_mbpp(sandbox) -> None:
    code = "def larger(a, b):\n    return a if a > b else a"
    tests = ["assert larger(2, 1) == 2", "assert larger(1, 2) == 2", "assert larger(3, 3) == 3"]
    results = run_python(sandbox, code, tests, seconds=SLOW_MACHINE)
    assert [result.test for result in results] == tests
    assert outcomes(results) == ["passed", "failed", "passed"]
    assert "assert larger(1, 2) == 2: left is 1, right is 2" in results[1].detail


def test_a_check_function_as_in_humaneval(sandbox) -> None:
    check = "def check(candidate):\n    assert candidate([1, 2]) == 3\n    assert candidate([]) == 0\n\ncheck(total)"
    right, wrong = "def total(x):\n    return sum(x)", "def total(x):\n    return x[0] + x[1]"
    assert outcomes(run_python(sandbox, right, [check], seconds=SLOW_MACHINE)) == ["passed"]
    (result,) = run_python(sandbox, wrong, [check], seconds=SLOW_MACHINE)
    assert result.outcome == "failed"
    assert result.detail == "IndexError: list index out of range (line 2 of the code: return x[0] + x[1])"


def test_code_that_misbehaves_spoils_no_other_test(sandbox) -> None:
    code = """import os, time
def f(what):
    if what == "loop":
        while True: pass
    if what == "leave": os._exit(0)
    if what == "hoard": return bytearray(1 << 40)
    if what == "flood":
        for _ in range(10 ** 5): print("x" * 100)
    if what == "stay" and os.fork() == 0: time.sleep(600)
    return what"""
    tests = [
        f"assert f({what!r}) == {what!r}" for what in ("loop", "a", "leave", "b", "hoard", "c", "flood", "stay", "d")
    ]
    results = run_python(sandbox, code, tests, seconds=2)
    expected = ["timed out", "passed", "failed", "passed", "failed", "passed", "passed", "passed", "passed"]
    assert outcomes(results) == expected
    assert "MemoryError" in results[4].detail


def test_a_test_that_meets_a_limit_of_the_run_is_named_and_the_others_go_on(sandbox) -> None:
    code = """import os, time
def f(hoard):
    if hoard:
        for _ in range(8):
            if os.fork() == 0:
                held = b"x" * (40 * 2 ** 20)
                time.sleep(600)
        time.sleep(600)
    return 1"""
    tests = ["assert f(0) == 1", "assert f(1) == 1", "assert f(0) == 1"]
    results = run_python(sandbox, code, tests, seconds=SLOW_MACHINE, limits=Limits(memory=150 * MIB))
    assert outcomes(results) == ["passed", "failed", "passed"]
    assert results[1].detail == "the run was ended: memory"


def test_the_code_reaches_nothing_outside(sandbox) -> None:
    (result,) = run_python(sandbox, "import socket\ns = socket.socket()", ["assert True"], seconds=SLOW_MACHINE)
    assert result.detail.startswith("PermissionError")


def test_nothing_to_test_and_no_time_to_test_in(sandbox) -> None:
    assert run_python(sandbox, "x = 1", []) == []
    with pytest.raises(ConfigError, match="0 seconds"):
        run_python(sandbox, "x = 1", ["assert x"], seconds=0)


def test_a_run_that_is_stopped_has_failed_tests(sandbox) -> None:
    stop = threading.Event()
    stop.set()
    results = run_python(sandbox, "while True: pass", ["assert 1", "assert 2"], seconds=SLOW_MACHINE, stop=stop)
    assert outcomes(results) == ["failed", "failed"]
    assert results[0].detail == "the run was ended: cancelled"


def test_too_little_memory_for_python_is_the_settings_fault_and_not_the_codes(sandbox) -> None:
    with pytest.raises(ResourceError):
        run_python(sandbox, "x = 1", ["assert x"], limits=Limits(memory=4 * MIB))
