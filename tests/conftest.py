"""Settings of all tests: where the shared data lies, and one thread for torch.

The models of the tests are so small that handing work to a second thread takes longer than the work.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

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
