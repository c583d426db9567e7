"""The real client of OGX (formerly Llama Stack), unmodified, against a server on a socket.

`PUNA_OGX_CLIENT_PYTHON` names a Python that has ogx-client (1.5.0 was tried), which needs Python 3.12: without it the
test is skipped.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from puna.stack.testing import live, make_stack

PYTHON = os.environ.get("PUNA_OGX_CLIENT_PYTHON", "")


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    with live(make_stack(tmp_path)) as address:
        yield address


@pytest.mark.slow
@pytest.mark.skipif(not PYTHON, reason="PUNA_OGX_CLIENT_PYTHON names no Python with ogx-client")
def test_everything_that_the_client_has_works(url: str) -> None:
    script = Path(__file__).with_name("ogx.py")
    done = subprocess.run(
        [PYTHON, "-W", "ignore", script, url], capture_output=True, text=True, check=False, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    assert done.stdout.endswith("OK\n")
