"""Children and their groups."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

from puna.stack.jobs.processes import outlast, run_child
from puna.stack.state.holder import identity, is_alive

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


async def ignore(name: str) -> None:
    del name


def test_a_childs_output_is_added_to_its_log(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"]

    async def go() -> list[int]:
        return [await run_child(command, tmp_path / "a" / "log", ignore) for _ in range(2)]

    assert asyncio.run(go()) == [3, 3]
    assert sorted((tmp_path / "a" / "log").read_text().split()) == ["err", "err", "out", "out"]


def test_a_child_ends_with_its_task(tmp_path: Path) -> None:
    names: list[str] = []

    async def keep(name: str) -> None:
        names.append(name)

    async def go() -> None:
        task = asyncio.ensure_future(run_child(SLEEP, tmp_path / "log", keep))
        while not names:
            await asyncio.sleep(0.01)
        assert is_alive(names[0])
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(go())
    assert not is_alive(names[0])


def test_a_process_that_was_left_is_waited_for_and_can_be_ended() -> None:
    short = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(0.3)"])
    asyncio.run(asyncio.wait_for(outlast(identity(short.pid)), 20))
    assert short.wait() == 0
    child = subprocess.Popen(SLEEP, start_new_session=True)

    async def go() -> None:
        task = asyncio.ensure_future(outlast(identity(child.pid)))
        await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(go())
    assert child.wait(5) != 0
