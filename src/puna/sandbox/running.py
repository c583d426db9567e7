"""The parent's side of a run, the same for every tier: feeds the warden, reads the program's output, keeps the clock.

One thread and one loop over five pipes, so that nothing blocks on anything: a program that never reads its input, one
that floods both outputs, and one that closes them all come to the same end.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import re
import secrets
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any, cast

from puna.base.errors import InputError, ResourceError
from puna.sandbox.program import PYTHON, Limits, Program, Reason, Result

START_SECONDS = 60.0  # a loaded machine may need long for a process; a program's own clock starts later
GRACE_SECONDS = 10.0  # for the warden to end a program and to report
PERIOD = 0.05  # how often `stop` is looked at
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"}
_BY_SIGNAL: dict[int, Reason] = {
    signal.SIGXCPU: "cpu",
    signal.SIGXFSZ: "file size",
    signal.SIGSYS: "denied",
}
_users = itertools.count(secrets.randbelow(1 << 28))


def interpreter() -> str:
    """The real path of the Python that this process runs on, outside any virtual environment."""
    return os.path.realpath(getattr(sys, "_base_executable", "") or sys.executable)


def system_paths() -> list[str]:
    """What a program may read: the system's programs and libraries, and the interpreter's. No home, no settings."""
    prefix = os.path.realpath(sys.base_prefix)
    own = [] if Path(prefix).is_relative_to("/usr") else [prefix]
    paths = ["/usr", "/bin", "/lib", "/lib32", "/lib64", "/sbin"]
    paths += ["/etc/ld.so.cache", "/etc/localtime", "/etc/alternatives", *own]
    return [path for path in paths if os.path.lexists(path)]


def spare_user() -> int:
    """A user id that nobody has, another one for each run: its processes share limits and signals with no others.

    Only root can take it. Inside a container that knows few ids it is one of the upper ones it knows.
    """
    known = 1 << 16
    with contextlib.suppress(OSError, ValueError):
        known = max(sum(map(int, line.split()[::2])) for line in Path("/proc/self/uid_map").read_text().splitlines())
    low, size = (1 << 30, 1 << 28) if known > 1 << 31 else (known // 2, max(1, known // 4))
    return low + next(_users) % size


def job(program: Program, limits: Limits, box: str, filter_: bytes, **settings: Any) -> dict[str, Any]:
    """What the warden is told. `settings` are the tier's: user, landlock, read, write, namespaces, processes_before."""
    size = sum(map(len, program.files.values()))
    if size > limits.disk or len(program.files) > limits.files:
        raise InputError(
            f"The program has {len(program.files)} files of {size} bytes; the limits are {limits.files} files and "
            f"{limits.disk} bytes.",
            hint="Give it less, or raise the limits `files` and `disk`.",
        )
    work, temporary = f"{box}/work", f"{box}/tmp"
    first, *others = program.argv
    environment = {**ENVIRONMENT, "HOME": work, "TMPDIR": temporary, **program.environment}
    return {
        "argv": [interpreter() if first == PYTHON else first, *others],
        "box": box,
        "work": work,
        "temporary": temporary,
        "environment": environment,
        "files": {name: base64.b64encode(content).decode() for name, content in program.files.items()},
        "filter": base64.b64encode(filter_).decode(),
        "limits": {**asdict(limits), "processes_before": settings.pop("processes_before", 0)},
        **settings,
    }


def warden_command(control: int, report: int) -> list[str]:
    """Starts the warden by its text: it needs no path of Puna's, which a sandbox would have to show."""
    text = files("puna.sandbox").joinpath("warden.py").read_text(encoding="utf-8")
    return [interpreter(), "-I", "-S", "-B", "-c", text, str(control), str(report)]


def carry_out(
    wrap: Callable[[list[str]], list[str]],
    task: Mapping[str, Any],
    stdin: bytes,
    limits: Limits,
    stop: threading.Event | None = None,
) -> Result:
    """Runs the warden with `task` and returns what became of the program.

    Args:
        wrap: makes the command that runs the warden's command inside the tier.

    Raises:
        ResourceError: the sandbox could not be set up.
    """
    their_control, control = os.pipe()
    report, their_report = os.pipe()
    ours = {control, report}
    try:
        try:
            process = subprocess.Popen(
                wrap(warden_command(their_control, their_report)),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=(their_control, their_report),
                env={"PATH": ENVIRONMENT["PATH"], "LANG": "C.UTF-8"},
                cwd="/",
                start_new_session=True,
            )
        except OSError as error:
            raise ResourceError(f"A sandbox cannot be started: {error}.", hint="End some other work.") from error
        finally:
            os.close(their_control)
            os.close(their_report)
        conversation = _Conversation(process, control, report, ours, limits)
        try:
            conversation.hold(json.dumps(task).encode() + b"\n", stdin, stop)
        finally:
            conversation.bury(group=None if task["namespaces"] else conversation.child)
        return conversation.result()
    finally:
        for handle in ours:
            os.close(handle)


class _Conversation:
    """With one warden, from its start to its end."""

    def __init__(
        self, process: subprocess.Popen[bytes], control: int, report: int, ours: set[int], limits: Limits
    ) -> None:
        self.process, self.control, self.report, self.ours, self.limits = process, control, report, ours, limits
        self.stdout, self.stderr, self.answer = bytearray(), bytearray(), bytearray()
        self.child: int | None = None
        self.asked: Reason | None = None
        self.truncated = False
        self.begun = time.monotonic()
        self.deadline = self.begun + START_SECONDS

    def hold(self, task: bytes, stdin: bytes, stop: threading.Event | None) -> None:
        """Until the warden has closed its report, or is beyond hope."""
        assert self.process.stdin and self.process.stdout and self.process.stderr
        streams = {self.process.stdout.fileno(): self.stdout, self.process.stderr.fileno(): self.stderr}
        to_write = {self.control: memoryview(task), self.process.stdin.fileno(): memoryview(stdin)}
        reading = {*streams, self.report}
        with selectors.DefaultSelector() as selector:
            for handle in to_write:
                os.set_blocking(handle, False)
                selector.register(handle, selectors.EVENT_WRITE)
            for handle in reading:
                selector.register(handle, selectors.EVENT_READ)
            while reading:
                wait = min(PERIOD if stop else 1.0, max(0.0, self.deadline - time.monotonic()))
                for key, _ in selector.select(wait):
                    handle = key.fd
                    if handle in to_write and key.events & selectors.EVENT_WRITE:
                        to_write[handle] = self._write(handle, to_write[handle])
                        if not to_write[handle]:
                            selector.unregister(handle)
                            if handle != self.control:  # which stays open as long as the program may run
                                self.process.stdin.close()
                    elif handle in reading and not self._read(handle, streams.get(handle)):
                        selector.unregister(handle)
                        reading.discard(handle)
                if stop and stop.is_set():
                    self._ask("cancelled", selector)
                if time.monotonic() >= self.deadline:
                    if self.asked or self.child is None:
                        return
                    self._ask("timeout", selector)
                elif self.truncated:
                    self._ask("output", selector)

    def _write(self, handle: int, rest: memoryview) -> memoryview:
        """What is still to be written. A reader that has gone away wants nothing more."""
        try:
            return rest[os.write(handle, rest[: 1 << 16]) :]
        except BlockingIOError:
            return rest
        except BrokenPipeError:
            return rest[:0]

    def _read(self, handle: int, stream: bytearray | None) -> bool:
        """Takes what is there; False at the end."""
        piece = os.read(handle, 1 << 16)
        if stream is None:
            self.answer += piece
            if self.child is None and (match := re.match(rb"started (\d+)\n", self.answer)):
                self.child = int(match[1])
                self.begun = time.monotonic()
                self.deadline = self.begun + self.limits.seconds
            return bool(piece) and len(self.answer) < 2 * self.limits.disk + (1 << 22)
        room = self.limits.output - len(stream)
        stream += piece[:room]
        self.truncated |= len(piece) > room
        return bool(piece)

    def _ask(self, reason: Reason, selector: selectors.BaseSelector) -> None:
        """Has the warden end the program, by closing the control pipe."""
        if self.asked:
            return
        self.asked = reason
        self.deadline = time.monotonic() + GRACE_SECONDS
        with contextlib.suppress(KeyError):
            selector.unregister(self.control)
        self.ours.discard(self.control)
        os.close(self.control)

    def bury(self, group: int | None) -> None:
        """Leaves nothing: not the sandbox's own processes, nor the program's where no namespace holds them."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            if self.answer.endswith(b"}\n"):
                self.process.wait(GRACE_SECONDS)
        ended = self.process.poll() is not None and self.answer.endswith(b"}\n")
        if not ended:
            for each in (self.process.pid, group):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    if each:
                        os.killpg(each, signal.SIGKILL)
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            with contextlib.suppress(BrokenPipeError):
                if stream:
                    stream.close()

    def result(self) -> Result:
        answer = self._answer()
        if "error" in answer or self.child is None:
            told = str(answer.get("error", "")) or self.stderr[-2000:].decode(errors="replace").strip()
            raise ResourceError(
                f"The sandbox could not be set up: {told or 'its first process ended without a word'}.",
                hint="`puna sandbox` says which sandboxes this machine offers.",
            )
        status = int(answer["status"])
        return Result(
            stdout=self.stdout.decode(errors="replace"),
            stderr=self.stderr.decode(errors="replace"),
            reason=self._reason(str(answer["reason"]), status),
            exit_code=status if status >= 0 else None,
            signal=None if status >= 0 else _signal_name(-status),
            seconds=float(answer["seconds"]),
            cpu_seconds=float(answer["cpu_seconds"]),
            memory=int(answer["memory"]),
            files={name: base64.b64decode(text) for name, text in answer["files"].items()},
            left_out=tuple(answer["left_out"]),
            truncated=self.truncated,
        )

    def _answer(self) -> dict[str, Any]:
        """The warden's last line; where it was killed, what can be said without it."""
        line = bytes(self.answer).partition(b"\n")[2] if self.child is not None else bytes(self.answer)
        try:
            return json.loads(line)
        except ValueError:
            nothing = {"files": {}, "left_out": ["all files: the sandbox's first process was killed"], "memory": 0}
            seconds = time.monotonic() - self.begun
            return {"reason": "stopped", "status": -9, "seconds": seconds, "cpu_seconds": 0.0, **nothing}

    def _reason(self, told: str, status: int) -> Reason:
        if self.truncated:
            return "output"
        if told == "stopped":
            return self.asked or "signal"
        if told:
            return cast(Reason, told)
        return "exited" if status >= 0 else _BY_SIGNAL.get(-status, "signal")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
