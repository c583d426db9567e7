"""What is run in a sandbox, within which limits, what comes back, and the seam `Sandbox` that every tier fills.

Left out: macOS and Windows. Neither offers an unprivileged user a boundary that the probe could test here, so
`puna.sandbox.probe.best` refuses there instead of running code that nothing holds.
"""

from __future__ import annotations

import asyncio
import re
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import PurePosixPath
from typing import Literal

from puna.base.errors import ConfigError, InputError

MIB = 1 << 20
PYTHON = "python"  # as the first word of `argv`: the interpreter that Puna itself runs on, without its packages

Reason = Literal[
    "exited", "signal", "timeout", "cpu", "memory", "processes", "file size", "disk", "output", "denied", "cancelled"
]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a program may take. Bytes, seconds and counts; of all its processes together unless said otherwise."""

    seconds: float = 10.0
    """Wall clock, from the moment that the program itself starts."""
    cpu_seconds: float = 10.0
    memory: int = 512 * MIB
    """Address space of each process, and anonymous and shared memory of all of them."""
    processes: int = 32
    file_bytes: int = 16 * MIB
    """The size of one file."""
    disk: int = 64 * MIB
    """All files of the work folder, and what of them is handed back."""
    files: int = 1024
    """How many files and folders may exist in the work folder."""
    output: int = MIB
    """Of standard output, and as much of standard error; what is beyond is cut off, and the program stopped."""
    open_files: int = 256
    """Of each process."""

    def __post_init__(self) -> None:
        for each in fields(self):
            if not (value := getattr(self, each.name)) > 0:
                raise ConfigError(f"The sandbox limit {each.name} is {value}.", hint="Give a number above 0.")


@dataclass(frozen=True, slots=True)
class Program:
    """A command with its files and its standard input. The folder that it starts in holds the files, and no others."""

    argv: tuple[str, ...]
    files: Mapping[str, bytes] = field(default_factory=dict)
    """Relative path -> content."""
    stdin: bytes = b""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Added to the few variables that every program gets: HOME, LANG, PATH, TMPDIR."""

    def __post_init__(self) -> None:
        if not self.argv or any("\0" in word for word in self.argv):
            raise InputError(f"The command is {self.argv!r}.", hint="Give at least one word, none with a NUL in it.")
        for name in self.files:
            path = PurePosixPath(name)
            if not name or "\0" in name or path.is_absolute() or ".." in path.parts or not path.parts:
                raise InputError(f"The file name {name!r} leaves the work folder.", hint="Use a relative path.")
        for name, value in self.environment.items():
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) or "\0" in value:
                raise InputError(f"{name!r} cannot be set as a variable.", hint="Use letters, digits and underscores.")


@dataclass(frozen=True, slots=True)
class Result:
    """How a program ended, and what it left."""

    stdout: str
    """Read as UTF-8; bytes that are none become U+FFFD."""
    stderr: str
    reason: Reason
    """What ended it: itself ("exited", "signal"), or the limit that it met."""
    exit_code: int | None
    """None where a signal ended it."""
    signal: str | None
    """Such as "SIGSEGV"; "SIGKILL" too where the sandbox ended it."""
    seconds: float
    cpu_seconds: float
    memory: int
    """Bytes: the largest resident set of one of its processes."""
    files: Mapping[str, bytes]
    """Relative path -> content, of what is new or changed in the work folder. It is as untrusted as the code."""
    left_out: tuple[str, ...] = ()
    """What was written and is not in `files`, and why."""
    truncated: bool = False
    """Whether output was cut off at its limit."""
    sandbox: str = ""
    """The tier that ran it."""

    @property
    def ok(self) -> bool:
        return self.reason == "exited" and self.exit_code == 0


class Sandbox(ABC):
    """Runs programs that nobody trusts. Instances hold no state: any thread may call any of them at any time."""

    name: str

    @abstractmethod
    def missing(self) -> str:
        """Why this machine cannot offer this tier, as far as can be seen without trying; "" if nothing is missing."""

    @abstractmethod
    def run(self, program: Program, limits: Limits | None = None, stop: threading.Event | None = None) -> Result:
        """Runs `program` to its end, or to the first limit that it meets.

        When it returns no process of the program is left and its folder is gone. It must return in the thread that
        called it: Linux ends the program when that thread ends.

        Args:
            stop: when set, the program is ended, with reason "cancelled".

        Raises:
            ResourceError: the sandbox itself could not be set up, which is never the program's doing.
        """

    async def run_async(self, program: Program, limits: Limits | None = None) -> Result:
        """`run` in a thread of its own. Cancelling the task ends the program before the cancellation is passed on."""
        stop, loop = threading.Event(), asyncio.get_running_loop()
        ended: asyncio.Future[Result] = loop.create_future()

        def settle(result: Result | None, error: BaseException | None) -> None:
            if not ended.done():
                ended.set_exception(error) if error else ended.set_result(result)  # type: ignore[arg-type]

        def work() -> None:
            try:
                outcome = (self.run(program, limits, stop), None)
            except BaseException as error:  # it belongs to the task that waits
                outcome = (None, error)
            if not loop.is_closed():
                loop.call_soon_threadsafe(settle, *outcome)

        threading.Thread(target=work, name="sandbox", daemon=True).start()
        try:
            return await asyncio.shield(ended)
        except asyncio.CancelledError:
            stop.set()
            await asyncio.wait([ended])
            if not ended.cancelled():
                ended.exception()
            raise
