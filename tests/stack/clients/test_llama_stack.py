"""The real clients of the Llama Stack, unmodified, against a server on a socket.

`PUNA_LLAMA_STACK_CLIENT_PYTHON` names Pythons that have llama-stack-client (0.2.12, 0.3.5, 0.5.4, 0.7.5 were tried), by
colon: they live in environments of their own, for their versions are not those of this project. Without it the test is
skipped.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from puna.stack.providers.provider import Ask, ModelInfo
from puna.stack.testing import ScriptedProvider, live, make_stack
from puna.testing import tiny_checkpoint

HERE = Path(__file__).parent


class Echo(ScriptedProvider):
    """Says the user's last words again; after a tool's result it is content."""

    async def stream(self, ask: Ask):
        if ask.messages and ask.messages[-1].role == "tool":
            self._answers.append("Well done.")
        async for event in super().stream(ask):
            yield event


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    base = tiny_checkpoint(tmp_path / "base")
    provider = Echo(models=[ModelInfo("tiny", context_length=4096, meta={"folder": str(base)})])
    stack = make_stack(tmp_path / "state", provider)
    stack.parts["training_device"] = "cpu"
    with live(stack) as address:
        yield address


PYTHONS = [name for name in os.environ.get("PUNA_LLAMA_STACK_CLIENT_PYTHON", "").split(os.pathsep) if name]
VERSION = "import importlib.metadata as m; print(m.version('llama-stack-client'))"


@pytest.mark.slow
@pytest.mark.skipif(not PYTHONS, reason="PUNA_LLAMA_STACK_CLIENT_PYTHON names no Python with llama-stack-client")
@pytest.mark.parametrize("python", PYTHONS)
def test_everything_that_a_client_has_works(url: str, python: str) -> None:
    version = subprocess.run([python, "-c", VERSION], capture_output=True, text=True, check=True).stdout
    script = HERE / ("llama_stack_0_2.py" if version.startswith("0.2.") else "llama_stack_alpha.py")
    done = subprocess.run(
        [python, "-W", "ignore", script, url], capture_output=True, text=True, check=False, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    assert done.stdout.endswith("OK\n")
