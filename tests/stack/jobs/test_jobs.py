"""Jobs outlive requests and processes."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from puna.stack.context import Stack
from puna.stack.errors import ApiError, invalid
from puna.stack.jobs.jobs import Jobs, Running, iso
from puna.stack.testing import make_stack


async def work(job: Running) -> dict[str, Any]:
    """Counts to the number of the request, a step at a time; 13 is refused."""
    if job.request["to"] == 13:
        raise invalid("Not thirteen.", "to")
    for number in range(job.data.get("done", 0) + 1, job.request["to"] + 1):
        await job.save(done=number)
        await asyncio.sleep(job.request.get("pause", 0))
    return {"counted": job.data["done"]}


def jobs(stack: Stack) -> Jobs:
    return Jobs(stack, {"count": work}, stack.files.folder.parent / "jobs")


def test_a_job_is_kept_before_it_runs_and_ends_with_its_result(tmp_path: Path) -> None:
    async def go() -> None:
        found = jobs(make_stack(tmp_path))
        assert (await found.submit("count", "a", "j", {"to": 3}))["status"] == "scheduled"
        job = await found.wait("count", "a", "j")
        assert (job["status"], job["result"]) == ("completed", {"counted": 3})
        assert job["scheduled_at"] <= job["started_at"] <= job["completed_at"]
        assert await found.resume() == 0
        with pytest.raises(ApiError) as refused:
            await found.submit("count", "a", "j", {"to": 1})
        assert refused.value.status == 409
        with pytest.raises(ApiError) as refused:
            await found.get("count", "b", "j")
        assert refused.value.status == 404

    asyncio.run(go())


def test_a_failure_is_the_jobs_and_says_why(tmp_path: Path) -> None:
    async def go() -> None:
        found = jobs(make_stack(tmp_path))
        await found.submit("count", "", "j", {"to": 13})
        job = await found.wait("count", "", "j")
        assert job["status"] == "failed"
        assert job["error"]["message"] == "Not thirteen."

    asyncio.run(go())


@pytest.mark.parametrize("begun", [False, True])
def test_a_job_can_be_cancelled_before_and_after_it_begins(tmp_path: Path, begun: bool) -> None:
    async def go() -> None:
        found = jobs(make_stack(tmp_path))
        await found.submit("count", "", "j", {"to": 1000, "pause": 0.01})
        if begun:
            await asyncio.sleep(0.2)
        assert (await found.cancel("count", "", "j"))["status"] == "cancelled"
        assert (await found.cancel("count", "", "j"))["status"] == "cancelled"
        assert await found.resume() == 0

    asyncio.run(go())


def test_jobs_of_a_kind_wait_for_each_other_and_can_be_cancelled_meanwhile(tmp_path: Path) -> None:
    async def go() -> None:
        stack = make_stack(tmp_path)
        found = Jobs(stack, {"count": work}, tmp_path, {"count": 1})
        for id, to in (("a", 20), ("b", 1), ("c", 1)):
            await found.submit("count", "", id, {"to": to, "pause": 0.01})
        await asyncio.sleep(0.1)
        assert [job["status"] for job in await found.list("count", "")] == ["in_progress", "scheduled", "scheduled"]
        assert await found.resume() == 0  # nobody takes what waits here
        assert (await found.cancel("count", "", "b"))["status"] == "cancelled"
        first, last = await found.wait("count", "", "a"), await found.wait("count", "", "c")
        assert first["completed_at"] <= last["started_at"]
        assert (await found.get("count", "", "b"))["started_at"] is None

    asyncio.run(go())


def test_jobs_that_wait_are_left_to_the_next_server_too(tmp_path: Path) -> None:
    async def first() -> None:
        stack = make_stack(tmp_path)
        found = Jobs(stack, {"count": work}, tmp_path, {"count": 1})
        for id in ("a", "b"):
            await found.submit("count", "", id, {"to": 30, "pause": 0.01})
        await asyncio.sleep(0.1)
        await stack.stop()

    async def second() -> None:
        found = jobs(make_stack(tmp_path))
        assert await found.resume() == 2
        assert {(await found.wait("count", "", id))["status"] for id in ("a", "b")} == {"completed"}

    asyncio.run(first())
    asyncio.run(second())


def test_another_worker_can_cancel(tmp_path: Path) -> None:
    async def go() -> None:
        here, there = jobs(make_stack(tmp_path)), jobs(make_stack(tmp_path))
        await here.submit("count", "", "j", {"to": 100_000, "pause": 0.01})
        await asyncio.sleep(0.2)
        await there.cancel("count", "", "j")
        assert (await asyncio.wait_for(here.wait("count", "", "j"), 10))["status"] == "cancelled"

    asyncio.run(go())


def test_a_server_that_stops_leaves_its_jobs_to_the_next(tmp_path: Path) -> None:
    async def first() -> int:
        stack = make_stack(tmp_path)
        await jobs(stack).submit("count", "a", "j", {"to": 60, "pause": 0.01})
        await asyncio.sleep(0.2)
        await stack.stop()
        return 0

    async def second() -> dict[str, Any]:
        stack = make_stack(tmp_path)
        assert (await jobs(stack).get("count", "a", "j"))["status"] == "in_progress"
        assert (await jobs(stack).get("count", "a", "j"))["done"] < 60
        found = jobs(stack)
        assert await found.resume() == 1
        assert await jobs(stack).resume() == 0  # it is taken
        return await found.wait("count", "a", "j")

    asyncio.run(first())
    job = asyncio.run(second())
    assert (job["status"], job["result"]) == ("completed", {"counted": 60})


KILLED = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import test_jobs

async def go():
    stack = test_jobs.make_stack(Path(sys.argv[1]))
    found = test_jobs.jobs(stack)
    if sys.argv[3] == "submit":
        await found.submit("count", "a", "j", {"to": 40, "pause": 0.05})
    else:
        await found.resume()
    print("under way", flush=True)
    await asyncio.sleep(60)

asyncio.run(go())
"""


def start_and_kill(folder: Path, how: str) -> None:
    command = [sys.executable, "-c", KILLED, folder, Path(__file__).parent, how]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "under way\n"
    child.send_signal(signal.SIGKILL)
    child.communicate()


def test_a_job_whose_process_was_killed_goes_on(tmp_path: Path) -> None:
    start_and_kill(tmp_path, "submit")

    async def go() -> dict[str, Any]:
        found = jobs(make_stack(tmp_path))
        assert await found.resume() == 1
        return await found.wait("count", "a", "j")

    job = asyncio.run(go())
    assert (job["status"], job["result"]) == ("completed", {"counted": 40})


def test_a_job_that_is_killed_again_and_again_is_given_up(tmp_path: Path) -> None:
    start_and_kill(tmp_path, "submit")

    async def set_starts() -> None:
        stack = make_stack(tmp_path)
        record = stack.store.get("count", "a\x1fj", "a")
        assert record is not None
        stack.store.put("count", "a\x1fj", {**record.data, "starts": 3}, owner="a")
        found = jobs(stack)
        await found.resume()
        job = await found.get("count", "a", "j")
        assert job["status"] == "failed"
        assert "3 times" in job["error"]["message"]
        assert await found.resume() == 0

    asyncio.run(set_starts())


def test_names_of_jobs_make_folders_that_tell_them_apart(tmp_path: Path) -> None:
    found = jobs(make_stack(tmp_path))
    names = [found.folder_of("count", owner, id) for owner in ("", "a") for id in ("x/../y", "x", "X y")]
    assert len(set(names)) == 6
    assert all(path.resolve().parent == (tmp_path / "jobs" / "count").resolve() for path in names)


def test_times_are_read_by_clients() -> None:
    assert iso(0) == "1970-01-01T00:00:00+00:00"
