"""Every test that takes `sandbox` runs in each tier, and is skipped where this machine does not offer it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from puna.base.errors import ResourceError
from puna.sandbox.probe import TIERS
from puna.sandbox.program import PYTHON, Limits, Program, Result, Sandbox

Run = Callable[..., Result]


@pytest.fixture(params=TIERS, ids=lambda tier: tier.name)
def sandbox(request: pytest.FixtureRequest) -> Sandbox:
    tier = request.param
    if missing := tier.missing():
        pytest.skip(f"{tier.name}: {missing}")
    try:
        result = tier.run(Program((PYTHON, "-I", "-S", "-c", "print(1)")))
    except ResourceError as error:
        pytest.skip(f"{tier.name}: {error.message}")
    if not result.ok:
        pytest.skip(f"{tier.name}: Python does not run in it: {result.stderr}")
    return tier


@pytest.fixture
def run(sandbox: Sandbox) -> Run:
    """Runs Python code in the sandbox."""

    def python(code: str, *arguments: str, limits: Limits | None = None, **program: object) -> Result:
        return sandbox.run(Program((PYTHON, "-I", "-c", code, *arguments), **program), limits)  # type: ignore[arg-type]

    return python
