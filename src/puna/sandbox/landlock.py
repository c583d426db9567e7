"""The tier without namespaces: Landlock (Linux 5.13 or newer), the seccomp filter, limits, and no new privileges.

For machines where bubblewrap is missing or may make no namespaces, such as most containers. The program runs among the
host's processes and in a folder on the host's disk. It reads the system's programs and libraries, writes to its own
folder, opens no socket, and signals nobody else's processes. Root hands it to a user id that nobody has if that user
can reach the interpreter; otherwise it keeps its user, and what one user may do to its own files and processes without
opening them (modes, owners, priorities, sessions) is denied by the filter.

What it does not hide: that a path outside exists, and its size and time. Where Landlock knows no signals (before Linux
6.12) a program that keeps its user can send none at all, not even to its own children.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import sys
import tempfile
import threading
from pathlib import Path

from puna.base.errors import ResourceError
from puna.sandbox import running, seccomp, warden
from puna.sandbox.program import Limits, Program, Result, Sandbox

DEVICES = ["/dev/null", "/dev/zero", "/dev/random", "/dev/urandom", "/dev/full"]


class Landlock(Sandbox):
    name = "landlock"

    def missing(self) -> str:
        if not sys.platform.startswith("linux"):
            return f"it needs Linux, and this is {sys.platform}"
        if warden.landlock_abi() == 0:
            return (
                "this kernel has no Landlock (it came with Linux 5.13, and must be among the kernel's active modules)"
            )
        return "" if seccomp.known_architecture() else f"it has no list of system calls for {os.uname().machine}"

    def run(self, program: Program, limits: Limits | None = None, stop: threading.Event | None = None) -> Result:
        if missing := self.missing():
            raise ResourceError(f"The sandbox landlock cannot be used: {missing}.")
        limits = limits or Limits()
        user = running.spare_user() if os.geteuid() == 0 and open_to_all(running.interpreter()) else None
        abi = warden.landlock_abi()
        groups = ["always", "same_user"]
        groups += ["truncating"] if abi < 3 else []
        groups += ["signalling"] if abi < 6 and user is None else []
        box = os.path.realpath(tempfile.mkdtemp(prefix="puna-sandbox-"))
        try:
            task = running.job(
                program,
                limits,
                box,
                seccomp.build(tuple(groups)),
                user=user,
                landlock=True,
                read=[*running.system_paths(), *DEVICES],
                write=[box, "/dev/null"],
                namespaces=False,
                processes_before=0 if user is not None else threads_of(os.getuid()),
            )
            result = running.carry_out(list, task, program.stdin, limits, stop)
        finally:
            remove(box)
        return dataclasses.replace(result, sandbox=self.name)


def open_to_all(path: str) -> bool:
    """Whether every user may pass the folders that lead to `path`."""
    return all(folder.stat().st_mode & 0o001 for folder in Path(path).parents)


def threads_of(user: int) -> int:
    """How many threads a user has: the limit on processes counts them all, and not only the program's."""
    count = 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if folder.stat().st_uid == user:
                count += sum(1 for _ in (folder / "task").iterdir())
        except OSError:
            continue
    return count


def remove(box: str) -> None:
    """Deletes a work folder, whatever modes the program gave to what is in it."""
    for folder, folders, _ in os.walk(box):
        for each in [Path(folder), *(Path(folder) / name for name in folders)]:
            if not each.is_symlink():
                each.chmod(0o700)
    shutil.rmtree(box)
