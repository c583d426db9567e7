"""Documents, a small checkpoint and a helper to run commands in process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from puna.cli import run
from puna.testing import tiny_checkpoint

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def puna(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command line; gives its exit code, output and errors."""

    def call(*arguments: str | Path) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    folder = tmp_path / "documents"
    folder.mkdir()
    for i, word in enumerate(("north", "south", "east", "west", "up", "down")):
        (folder / f"{word}.py").write_text(
            f'"""Ways to the {word}."""\n\n\ndef go_{word}(steps, speed={i}):\n'
            f'    """Walk to the {word} until a wall is met."""\n    return steps * speed\n'
        )
    return folder


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return tiny_checkpoint(tmp_path / "checkpoint", max_position_embeddings=512)
