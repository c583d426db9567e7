"""The server's jobs."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from puna.stack.context import Stack
from puna.stack.jobs.evaluation import KIND, datasets_of
from puna.stack.jobs.jobs import Jobs
from puna.stack.jobs.service import jobs_of


def test_jobs_are_resumed_when_the_server_starts(serve: Any, tmp_path: Path) -> None:
    async def first(client: Any, stack: Stack) -> None:
        rows = [{"question": "Say it", "answer": "it"}]
        await datasets_of(stack).register("me", "d", "eval/question-answer", {"rows": rows}, {})
        # A server that knows this kind of job, and is stopped before it does anything.
        benchmark = {"identifier": "b", "dataset_id": "d", "scoring_functions": ["basic::subset_of"]}
        config = {"eval_candidate": {"model": "tiny"}}

        async def never(job: Any) -> dict[str, Any]:
            await asyncio.sleep(60)
            return {}

        idle = Jobs(stack, {KIND: never}, tmp_path)
        await idle.submit(KIND, "me", "j", {"benchmark": benchmark, "config": config})
        await asyncio.sleep(0.1)

    async def second(client: Any, stack: Stack) -> None:
        job = await jobs_of(stack).wait(KIND, "me", "j")
        assert job["status"] == "completed"
        assert job["result"]["generations"] == [{"generated_answer": "Say it"}]

    serve(first)
    serve(second)


def test_their_files_lie_beside_the_uploaded_ones(serve: Any, tmp_path: Path) -> None:
    async def scenario(client: Any, stack: Stack) -> None:
        assert jobs_of(stack).folder == tmp_path / "jobs"
        assert jobs_of(stack) is jobs_of(stack)

    serve(scenario)
