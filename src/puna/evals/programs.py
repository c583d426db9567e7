"""Programs that models write, run in a sandbox: the `Run` that suites of code need.

A program passes where it reaches its own end: a word drawn for the run is printed after the test, so that an answer
that leaves early, with whatever exit code, has not passed.
"""

from __future__ import annotations

import secrets

from puna.evals.measures import Run
from puna.sandbox.program import PYTHON, Limits, Program, Sandbox


def runner(sandbox: Sandbox, limits: Limits | None = None) -> Run:
    """Says of a Python program whether it ends well within the limits.

    Raises:
        ResourceError: when called, and the sandbox cannot be set up.
    """

    def run(text: str) -> bool:
        word = secrets.token_hex(16)
        source = f"{text}\nprint()\nprint({word!r})\n"
        result = sandbox.run(Program((PYTHON, "answer.py"), {"answer.py": source.encode()}), limits)
        return result.ok and result.stdout.rstrip().endswith(f"\n{word}")

    return run
