"""Regular expressions of other people, matched in a process that can be killed.

Python's matcher holds its whole process while it works, and some patterns work for ever on some texts; no look at a
pattern tells all of them. So one small child matches for the server: it gets a second, and is replaced when it needs
more. This file is the child's program too, and therefore imports nothing of Puna.
"""

from __future__ import annotations

import atexit
import json
import os
import re
import select
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

_CHILD_BYTES = 1 << 30
_CHUNK = 1 << 16

# The text that a pattern found and its groups; None for no match.
Match = list[str | None] | None


class Matcher:
    """Finds patterns in texts, within a time.

    Args:
        seconds: for one text, all its patterns together.
    """

    def __init__(self, seconds: float = 2.0) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None

    def search(self, patterns: Sequence[str], text: str, ignore_case: bool = False) -> list[Match]:
        """What each pattern finds first in a text.

        Raises:
            TimeoutError: the patterns need too long.
        """
        request = json.dumps([list(patterns), text, ignore_case]).encode() + b"\n"
        if not self._lock.acquire(timeout=4 * self._seconds):
            raise TimeoutError("too many texts are to be matched at once")
        try:
            return self._ask(request, time.monotonic() + self._seconds)
        finally:
            self._lock.release()

    def close(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
            self._child = None

    def _ask(self, request: bytes, deadline: float) -> list[Match]:
        if self._child is None or self._child.poll() is not None:
            self.close()
            command = [sys.executable, "-I", __file__]
            self._child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._child.stdin is not None and self._child.stdout is not None
        try:
            self._child.stdin.write(request)
            self._child.stdin.flush()
            answer = _read_line(self._child.stdout.fileno(), deadline)
        except (OSError, TimeoutError) as error:
            self.close()
            raise TimeoutError(f"the patterns took longer than {self._seconds:g} s") from error
        return json.loads(answer)


def _read_line(descriptor: int, deadline: float) -> bytes:
    read = b""
    while not read.endswith(b"\n"):
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([descriptor], [], [], left)[0]:
            raise TimeoutError
        chunk = os.read(descriptor, _CHUNK)
        if not chunk:
            raise OSError("the child has ended")
        read += chunk
    return read


def find(patterns: Sequence[str], text: str, ignore_case: bool = False) -> list[Match]:
    """What each pattern finds first in a text, however long it takes."""
    found: list[Match] = []
    for pattern in patterns:
        match = re.search(pattern, text, re.IGNORECASE if ignore_case else 0)
        found.append(None if match is None else [match[0], *match.groups()])
    return found


def _serve() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (_CHILD_BYTES, _CHILD_BYTES))
    for line in sys.stdin.buffer:
        sys.stdout.write(json.dumps(find(*json.loads(line))) + "\n")
        sys.stdout.flush()


MATCHER = Matcher()
atexit.register(MATCHER.close)

if __name__ == "__main__":
    _serve()
