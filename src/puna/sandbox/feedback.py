"""Whether code passes its tests: execution feedback for code tasks (HumanEval, MBPP) and for training on them.

A test is Python that is run after the code and fails by raising, which is the form of both suites: MBPP's assertions
are tests as they are; HumanEval's is its `check` function with the call `check(entry_point)` behind it.
"""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import Literal

from puna.base.errors import ConfigError, ResourceError
from puna.sandbox import harness
from puna.sandbox.program import PYTHON, Limits, Program, Sandbox

START = 5.0  # seconds for the harness itself


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one test."""

    test: str
    outcome: Literal["passed", "failed", "timed out"]
    detail: str
    """The assertion with the values of both sides, the error with its line, or the limit that was met."""
    seconds: float


def run_python(
    sandbox: Sandbox,
    code: str,
    tests: Sequence[str],
    seconds: float = 3.0,
    limits: Limits | None = None,
    stop: threading.Event | None = None,
) -> list[Outcome]:
    """Runs every test against `code`, each in a process of its own that runs the code first.

    Args:
        seconds: for the code and one test together.
        limits: of the whole run; its times are raised to what the tests may take together.
        stop: when set, the run ends, and tests that are not done count as failed.

    Returns:
        one outcome for each test, in their order.

    Raises:
        ResourceError: the sandbox could not be set up.
    """
    if not seconds > 0:
        raise ConfigError(f"A test's time is {seconds} seconds.", hint="Give a number above 0.")
    limits = limits or Limits()
    text = files("puna.sandbox").joinpath("harness.py").read_text(encoding="utf-8")
    outcomes: list[Outcome] = []
    while len(outcomes) < len(tests):
        left = list(tests[len(outcomes) :])
        token = secrets.token_hex(16)
        job = {"code": code, "tests": left, "seconds": seconds, "token": token}
        whole = START + len(left) * (seconds + 1)
        result = sandbox.run(
            Program((PYTHON, "-I", "-S", "-c", text), stdin=json.dumps(job).encode()),
            replace(limits, seconds=max(whole, limits.seconds), cpu_seconds=max(whole, limits.cpu_seconds)),
            stop,
        )
        told = [json.loads(line) for line in result.stdout.splitlines() if line.endswith("}")]
        outcomes += [Outcome(left[each["index"]], each["outcome"], each["detail"], each["seconds"]) for each in told]
        if len(told) < len(left) and not (told and result.exit_code == harness.LEFTOVERS):
            if result.reason == "exited":  # the harness itself, which runs no foreign code, has failed
                raise ResourceError(
                    f"The tests could not be run: {result.stderr.strip()[-500:] or 'the harness said nothing'}.",
                    hint=f"A Python needs memory: the limit is {limits.memory} bytes.",
                )
            # The sandbox ended the run: the test at hand is the one that met a limit, and the others go on.
            reason = f"the run was ended: {result.reason}"
            outcomes.append(Outcome(left[len(told)], "failed", reason, result.seconds))
            if result.reason == "cancelled":
                outcomes += [Outcome(test, "failed", reason, 0.0) for test in left[len(told) + 1 :]]
    return outcomes
