"""Every area of a server gets the same parts."""

from __future__ import annotations

from pathlib import Path

from puna.stack.state.parts import queue_of, uploads_of
from puna.stack.testing import make_stack


def test_a_stack_has_one_queue_and_one_set_of_files(tmp_path: Path) -> None:
    stack, other = make_stack(tmp_path / "a"), make_stack(tmp_path / "b")
    assert queue_of(stack) is queue_of(stack)
    assert uploads_of(stack) is uploads_of(stack)
    assert uploads_of(stack).queue is queue_of(stack)
    assert queue_of(stack) is not queue_of(other)
    stack.store.close()
    other.store.close()
