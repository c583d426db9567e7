"""Programs that models write, run in a sandbox: the `Run` that suites of code need.

A program passes where it reaches its own end, of which `puna.sandbox.feedback` is told by a word that the program never
sees: an answer that leaves early, with whatever exit code, has not passed.
"""

from __future__ import annotations

from puna.evals.measures import Run
from puna.sandbox.feedback import run_python
from puna.sandbox.program import Limits, Sandbox


def runner(sandbox: Sandbox, seconds: float = 10.0, limits: Limits | None = None) -> Run:
    """Says of a Python program whether it reaches its end.

    Args:
        sandbox: that it runs in.
        seconds: that it may take.
        limits: beside its time.

    Raises:
        ResourceError: when called, and the sandbox cannot be set up.
    """

    def run(text: str) -> bool:
        (outcome,) = run_python(sandbox, text, ["pass"], seconds, limits)
        return outcome.outcome == "passed"

    return run
