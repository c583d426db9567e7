"""The parts of a stack that outlive a request and that several areas use: uploaded files, and background work."""

from __future__ import annotations

from puna.stack.context import Stack
from puna.stack.state.uploads import Uploads
from puna.stack.state.work import WorkQueue


def queue_of(stack: Stack) -> WorkQueue:
    """The work that this server does in the background."""
    if "work" not in stack.parts:
        stack.parts["work"] = WorkQueue(stack.store)
    return stack.parts["work"]


def uploads_of(stack: Stack) -> Uploads:
    """The uploaded files."""
    if "files" not in stack.parts:
        stack.parts["files"] = Uploads(stack.store, stack.files, queue_of(stack))
    return stack.parts["files"]
