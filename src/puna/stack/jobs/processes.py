"""Child processes that may outlast the server which started them, by the identity that `state.holder` gives them."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from puna.base.errors import storage_errors
from puna.stack.state.holder import identity, is_alive

_GRACE_SECONDS = 10.0
_POLL_SECONDS = 0.2


async def run_child(
    command: Sequence[str],
    log: Path,
    started: Callable[[str], Awaitable[None]],
) -> int:
    """Runs a command in a group of its own, its output added to `log`; ends the group when this task is cancelled.

    Args:
        command: what to run.
        log: gets what it writes.
        started: is told its identity.
    """
    with storage_errors(log):
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as file:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
    name = identity(process.pid)
    try:
        await started(name)
        return await process.wait()
    finally:
        if process.returncode is None:
            await asyncio.shield(_end(process))


async def _end(process: asyncio.subprocess.Process) -> None:
    _signal_group(process.pid, signal.SIGTERM)
    try:
        await asyncio.wait_for(process.wait(), _GRACE_SECONDS)
    except TimeoutError:
        _signal_group(process.pid, signal.SIGKILL)
        await process.wait()


async def outlast(name: str) -> None:
    """Waits for a process that an earlier server left; cancelled, it ends the process's group."""
    try:
        while is_alive(name):
            await asyncio.sleep(_POLL_SECONDS)
    except asyncio.CancelledError:
        pid = int(name.partition(":")[0])
        _signal_group(pid, signal.SIGTERM)
        for _ in range(int(_GRACE_SECONDS / _POLL_SECONDS)):
            if not is_alive(name):
                break
            await asyncio.sleep(_POLL_SECONDS)
        else:
            _signal_group(pid, signal.SIGKILL)
        raise


def _signal_group(pid: int, number: signal.Signals) -> None:
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        return
