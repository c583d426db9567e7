"""The strong tier: Linux namespaces, made by bubblewrap; the seccomp filter and, where there is one, Landlock inside.

The program sees the system's programs and libraries read-only, a file system in memory of its own size, its own
processes, and no network. An ordinary user gets a user namespace; root needs none, and hands the program to a user id
that nobody has, because limits on the number of processes do not hold root's own id, in any namespace.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import shutil
import sys
import threading
from pathlib import Path

from puna.base.errors import ResourceError
from puna.sandbox import running, seccomp, warden
from puna.sandbox.program import Limits, Program, Result, Sandbox

BOX = "/box"
NOBODY = "65534"


class Bubblewrap(Sandbox):
    name = "bubblewrap"

    def missing(self) -> str:
        if not sys.platform.startswith("linux"):
            return f"it needs Linux, and this is {sys.platform}"
        if shutil.which("bwrap") is None:
            return "the program bwrap is not installed (on most distributions the package bubblewrap)"
        return "" if seccomp.known_architecture() else f"it has no list of system calls for {os.uname().machine}"

    def run(self, program: Program, limits: Limits | None = None, stop: threading.Event | None = None) -> Result:
        if missing := self.missing():
            raise ResourceError(f"The sandbox bubblewrap cannot be used: {missing}.")
        limits = limits or Limits()
        task = running.job(
            program,
            limits,
            BOX,
            seccomp.build(),
            user=running.spare_user() if os.geteuid() == 0 else None,
            landlock=warden.landlock_abi() > 0,
            read=[*running.system_paths(), "/etc", "/proc", "/dev"],
            write=[BOX, "/dev/null"],
            namespaces=True,
        )
        wrap = functools.partial(self._command, limits=limits)
        return dataclasses.replace(running.carry_out(wrap, task, program.stdin, limits, stop), sandbox=self.name)

    def _command(self, inner: list[str], limits: Limits) -> list[str]:
        command = ["bwrap", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
        command += ["--hostname", "sandbox", "--die-with-parent", "--cap-drop", "ALL"]
        if os.geteuid() == 0:
            # For the warden alone: to hand the folder over, change the user, and end and read what is another user's.
            for power in ("SETUID", "SETGID", "SETPCAP", "CHOWN", "KILL", "DAC_OVERRIDE"):
                command += ["--cap-add", f"CAP_{power}"]
        else:
            command += ["--unshare-user", "--uid", NOBODY, "--gid", NOBODY]
        for path in running.system_paths():
            # Folders on the way to a path would be root's alone.
            for folder in reversed(Path(path).parents[:-1]):
                command += ["--perms", "0755", "--dir", str(folder)]
            if Path(path).is_symlink():
                command += ["--symlink", str(Path(path).readlink()), path]
            else:
                command += ["--ro-bind", path, path]
        # The size holds for the box; everything else that bubblewrap makes in memory is read-only at the end.
        command += ["--proc", "/proc", "--dev", "/dev", "--size", str(limits.disk + (1 << 16)), "--tmpfs", BOX]
        command += ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", BOX, "--"]
        return [*command, *inner]
