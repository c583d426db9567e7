"""Every attack is real: it succeeds outside, and fails in each tier."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from puna.sandbox import attacks, probe
from puna.sandbox.program import PYTHON, Program

NAMES = [attack.__name__ for attack in attacks.ATTACKS]
SOURCE = Path(attacks.__file__).read_text(encoding="utf-8")
# What an ordinary user of this machine may not do either, or what its administrator may have switched off.
OF_ROOT = {"write_system", "trace_a_process", "make_a_user_namespace"}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the sandboxes are of Linux")
def test_outside_a_sandbox_every_attack_succeeds(tmp_path: Path) -> None:
    with probe.targets() as target:
        command = [sys.executable, "-I", "-S", "-c", SOURCE, json.dumps(target)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert set(NAMES) - set(json.loads(done.stdout)) <= (OF_ROOT if os.geteuid() else {"make_a_user_namespace"})


@pytest.mark.parametrize("name", NAMES)
def test_in_a_sandbox_it_fails(sandbox, name: str) -> None:
    """Alone, so that no attack hides behind what an earlier one changed."""
    code = SOURCE.replace('if __name__ == "__main__":', "if False:")
    code += f"\nATTACKS = ({name},)\nprint(json.dumps(succeeded(json.loads(sys.argv[1]))))"
    with probe.targets() as target:
        result = sandbox.run(Program((PYTHON, "-I", "-S", "-c", code, json.dumps(target))))
        assert Path(target["outside"]).read_text() == "secret"
    assert (result.stdout, result.stderr) == ("[]\n", "")
