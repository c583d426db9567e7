"""Programs, limits, and the seam's asynchronous face."""

from __future__ import annotations

import asyncio
import secrets

import pytest

from puna.base.errors import ConfigError, InputError
from puna.sandbox.probe import processes_with
from puna.sandbox.program import PYTHON, Limits, Program


@pytest.mark.parametrize("setting", ["seconds", "memory", "processes", "output", "files"])
def test_a_limit_of_nothing_is_refused_by_name(setting: str) -> None:
    with pytest.raises(ConfigError, match=setting):
        Limits(**{setting: 0})


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x", "", ".", "a\0b"])
def test_a_file_outside_the_work_folder_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="work folder"):
        Program(("python",), files={name: b""})


def test_a_command_without_words_and_a_strange_variable_are_refused() -> None:
    with pytest.raises(InputError, match="command"):
        Program(())
    with pytest.raises(InputError, match="A=B"):
        Program(("python",), environment={"A=B": "c"})


def test_a_task_waits_without_holding_the_loop(sandbox) -> None:
    async def together() -> list[str]:
        program = Program((PYTHON, "-I", "-S", "-c", "print(input())"), stdin=b"word")
        results = await asyncio.gather(*(sandbox.run_async(program) for _ in range(5)))
        return [result.stdout for result in results]

    assert asyncio.run(together()) == ["word\n"] * 5


def test_cancelling_a_task_ends_its_program_first(sandbox) -> None:
    token = secrets.token_hex(16)

    async def cancel() -> list[int]:
        program = Program((PYTHON, "-I", "-S", "-c", "import time; time.sleep(60)", token))
        task = asyncio.create_task(sandbox.run_async(program, Limits(seconds=60)))
        while not processes_with(token):
            await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return processes_with(token)

    assert asyncio.run(cancel()) == []


def test_an_error_of_the_sandbox_reaches_the_task(sandbox) -> None:
    program = Program((PYTHON, "-c", ""), files={"a": b"x" * 100})
    with pytest.raises(InputError, match="100 bytes"):
        asyncio.run(sandbox.run_async(program, Limits(disk=10)))
