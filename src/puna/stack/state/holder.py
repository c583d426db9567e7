"""Who holds something in the store, and whether that process is gone: work, responses under way, and jobs.

A process is known by an identity that outlives it: a number is given again, a number with its start is not. Linux says
when a process started in /proc; elsewhere the number has to do. Processes of other machines cannot be looked at: what
they hold is theirs until its lease is over.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

_HOST = socket.gethostname()


class Holder:
    """One that holds things in this process, until it is closed.

    Attributes:
        token: a name that no other has.
    """

    _live: ClassVar[set[str]] = set()  # tokens of this process

    def __init__(self) -> None:
        self.token = secrets.token_hex(8)
        self._live.add(self.token)

    def close(self) -> None:
        """What it still holds is free."""
        self._live.discard(self.token)

    def to_json(self) -> dict[str, str]:
        """As it stands in a record."""
        return {"host": _HOST, "process": identity(os.getpid()), "token": self.token}

    @classmethod
    def is_here(cls, data: Mapping[str, Any]) -> bool:
        """Whether a record's holder is one of this process that is not closed."""
        return data["token"] in cls._live

    @classmethod
    def is_gone(cls, data: Mapping[str, Any]) -> bool:
        """Whether a record's holder was on this machine and is no more."""
        if data["host"] != _HOST:
            return False
        if data["process"] == identity(os.getpid()):
            return not cls.is_here(data)
        return not is_alive(data["process"])


def identity(pid: int) -> str:
    """The number and the start of a process that runs."""
    return f"{pid}:{_start(pid)}"


def is_alive(name: str) -> bool:
    """Whether the process with this identity still runs."""
    number, _, start = name.partition(":")
    if not number.isdigit():
        return False
    try:
        os.kill(int(number), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return _start(int(number)) == start
    return _start(int(number)) == start and not _is_zombie(int(number))


def _fields(pid: int) -> list[str]:
    """What /proc says after the name, which may itself hold blanks and parentheses."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _start(pid: int) -> str:
    fields = _fields(pid)
    return fields[19] if len(fields) > 19 else ""


def _is_zombie(pid: int) -> bool:
    return _fields(pid)[:1] == ["Z"]
