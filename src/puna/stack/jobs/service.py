"""The server's jobs: what each kind does, and that they go on when the server starts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from puna.stack.context import Stack
from puna.stack.jobs import evaluation, finetune
from puna.stack.jobs.jobs import Jobs


def jobs_of(stack: Stack) -> Jobs:
    """The server's jobs; their files lie beside the uploaded ones."""

    def make(stack: Stack) -> Jobs:
        works = {evaluation.KIND: evaluation.work, finetune.KIND: finetune.work}
        one_training = {finetune.KIND: 1}  # it takes all memory that it gets
        return Jobs(stack, works, stack.files.folder.parent / "jobs", one_training)

    return stack.part("jobs", make)


@asynccontextmanager
async def resumed(app: Any) -> AsyncIterator[None]:
    """A router's lifespan: jobs that an earlier process left go on."""
    await jobs_of(app.state.stack).resume()
    yield
