"""The parts of a stack that outlive a request and that several areas use: uploaded files, and background work."""

from __future__ import annotations

from puna.stack.context import Stack
from puna.stack.state.uploads import Uploads
from puna.stack.state.work import WorkQueue


def queue_of(stack: Stack) -> WorkQueue:
    """The work that this server does in the background."""
    return stack.part("work", lambda stack: WorkQueue(stack.store))


def uploads_of(stack: Stack) -> Uploads:
    """The uploaded files."""
    return stack.part("files", lambda stack: Uploads(stack.store, stack.files, queue_of(stack)))
