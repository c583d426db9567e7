"""Settings of all tests: where the shared data lies, one thread for torch, and no deadline for Hypothesis.

The models of the tests are so small that handing work to a second thread takes longer than the work.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("puna", deadline=None)  # a busy machine is no fault
settings.load_profile("puna")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real inputs, which a user's machine does not have."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the folder ../shared/data with real inputs is not on this machine")
    return SHARED_DATA


@pytest.fixture(scope="session")
def llama3_vocabulary(shared_data: Path) -> Path:
    """Llama 3's real `tokenizer.model`."""
    path = shared_data / "llama3" / "tokenizer.model"
    if not path.is_file():
        pytest.skip("Llama 3's tokenizer.model is not in ../shared/data/llama3")
    return path


@pytest.fixture
def small_filesystem(tmp_path: Path) -> Callable[..., None]:
    """Runs Python code with the path of a file system of one MiB, which no other process sees, as its argument."""

    def run(code: str, read_only: bool = False) -> None:
        if shutil.which("unshare") is None:
            pytest.skip("the program unshare is not installed")
        mount = 'mount -t tmpfs -o size=1m tmpfs "$0"' + (' && mount -o remount,ro "$0"' if read_only else "")
        shell = f'{mount} || exit 77; exec "$1" -c "$2" "$0"'
        command = ["unshare", "--map-root-user", "--mount", "sh", "-c", shell, tmp_path, sys.executable, code]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 77 or done.stderr.startswith("unshare:"):
            pytest.skip(f"this system lets no user mount a file system: {done.stderr.strip()}")
        assert done.returncode == 0, done.stderr

    return run
