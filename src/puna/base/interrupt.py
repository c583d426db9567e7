"""Ctrl-C without a torn state: the signal is noted, and the work stops where it says that it may.

A KeyboardInterrupt can surface between any two instructions, such as half-way through an optimizer's update. Inside
`deferred` the first SIGINT or SIGTERM only sets a flag; a second one interrupts at once.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Interruption:
    """Whether the user has asked to stop."""

    def __init__(self) -> None:
        self.requested = False

    def check(self) -> None:
        """Raises KeyboardInterrupt if a stop was asked for. Call it where nothing is half-done."""
        if self.requested:
            raise KeyboardInterrupt

    def handle(self, signum: int, frame: Any) -> None:
        del signum, frame
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True


@contextmanager
def deferred() -> Iterator[Interruption]:
    """Defers SIGINT and SIGTERM while the block runs; does nothing outside the main thread, where no signal arrives."""
    interruption = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield interruption
        return
    before = {number: signal.signal(number, interruption.handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interruption
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
