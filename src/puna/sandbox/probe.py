"""Which sandbox this machine offers: each tier is attacked for real, and one that fails to hold is not used.

What a kernel, a container or an administrator allows cannot be read off a version, so nothing is assumed: the attacks
of `puna.sandbox.attacks` and programs that exceed every limit are run inside the tier, against a file in the home
folder, a listening port, and a process that exist for the purpose.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from puna.base.errors import ResourceError
from puna.sandbox.bubblewrap import Bubblewrap
from puna.sandbox.landlock import Landlock
from puna.sandbox.program import MIB, PYTHON, Limits, Program, Result, Sandbox
from puna.sandbox.running import interpreter

TIERS: tuple[Sandbox, ...] = (Bubblewrap(), Landlock())  # the strongest first

SMALL = Limits(
    seconds=20,
    cpu_seconds=10,
    memory=96 * MIB,
    processes=8,
    file_bytes=2 * MIB,
    disk=4 * MIB,
    files=64,
    output=65536,
    open_files=32,
)
MULTIPLY = "import os\nwhile True:\n try: os.fork()\n except OSError: os._exit(3)\n"
COUNT = """import os, time
n = 0
try:
    while n < 60:
        if os.fork() == 0: time.sleep(60)
        n += 1
except OSError: pass
print(n, flush=True)
time.sleep(0.3)
"""
HOARD = "held = bytearray(400 << 20)\nprint(len(held))"
HOARD_TOGETHER = """import os, time
for _ in range(4):
    if os.fork() == 0:
        held = bytearray(b'x') * (40 << 20)
        time.sleep(60)
time.sleep(30)
"""
OPEN = "held = []\nwhile len(held) < 1000: held.append(open('/dev/null'))\nprint('breached')"
ENLARGE = "with open('large', 'wb') as f:\n for _ in range(100): f.write(bytes(1 << 20))\nprint('breached')"
FILL = "for i in range(100):\n open(f'{i}', 'wb').write(bytes(1 << 20))\nimport time; time.sleep(1)\nprint('breached')"
STREW = "for i in range(20000): open(f'{i}', 'wb').close()\nimport time; time.sleep(1)\nprint('breached')"
LINGER = """import os, signal, subprocess, sys, time
for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT): signal.signal(number, signal.SIG_IGN)
for way in ({}, {'start_new_session': True}):
    try: subprocess.Popen([sys.executable, '-I', '-S', '-c', 'import time; time.sleep(300)', sys.argv[1]], **way)
    except (OSError, subprocess.SubprocessError): pass
time.sleep(300)
"""


@dataclass(frozen=True, slots=True)
class Standing:
    """What the probe found of one tier."""

    sandbox: Sandbox
    breaches: tuple[str, ...]
    """Why it is not used; empty where it held."""
    seconds: float

    @property
    def usable(self) -> bool:
        return not self.breaches


def breaches(sandbox: Sandbox) -> list[str]:
    """What a program in `sandbox` could do that it must not; empty where the sandbox holds."""
    if missing := sandbox.missing():
        return [missing]
    try:
        with targets() as target:
            text = files("puna.sandbox").joinpath("attacks.py").read_text(encoding="utf-8")
            result = sandbox.run(Program((PYTHON, "-I", "-S", "-c", text, json.dumps(target))))
            if not result.ok:
                told = result.stderr.strip().splitlines()[-1:] or [f"reason {result.reason}"]
                return [f"a Python program does not run in it: {told[0]}"]
            found = [f"a program in it can {name.replace('_', ' ')}" for name in json.loads(result.stdout)]
        if found:
            return found  # a fork bomb is only for what has held until here
        return [breach for check in LIMIT_CHECKS if (breach := check(sandbox))]
    except (ResourceError, ValueError) as error:
        return [str(error).splitlines()[0]]


@contextmanager
def targets() -> Iterator[dict[str, Any]]:
    """Things of the host to attack, which are gone afterwards."""
    token = secrets.token_hex(16)
    with ExitStack() as stack:
        outside = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="puna-probe-"))) / "secret"
        outside.write_text("secret")
        outside.chmod(0o644)  # the folder is closed to other users, and the file itself is not
        outside.parent.chmod(0o777)
        home = outside
        if os.access(Path.home(), os.W_OK):
            home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=".puna-", dir=Path.home()))) / "secret"
            home.write_text("secret")
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        local = stack.enter_context(socket.socket(socket.AF_UNIX))
        local.bind(str(outside.parent / "socket"))
        local.listen()
        (outside.parent / "socket").chmod(0o777)
        victim = subprocess.Popen([interpreter(), "-I", "-S", "-c", "input()", token], stdin=subprocess.PIPE)
        stack.callback(victim.wait)
        stack.callback(victim.kill)
        stack.enter_context(victim.stdin)  # type: ignore[arg-type]
        yield {
            "home": str(home),
            "outside": str(outside),
            "port": listener.getsockname()[1],
            "socket": str(outside.parent / "socket"),
            "process": victim.pid,
            "token": token,
        }


def _python(sandbox: Sandbox, code: str, *arguments: str, limits: Limits = SMALL) -> Result:
    return sandbox.run(Program((PYTHON, "-I", "-S", "-c", code, *arguments)), limits)


def processes_hold(sandbox: Sandbox) -> str:
    counted = _python(sandbox, COUNT)
    if counted.reason != "processes" and int(counted.stdout or 0) >= 4 * SMALL.processes:
        return f"a program in it can start {counted.stdout.strip()} processes where {SMALL.processes} are allowed"
    bomb = _python(sandbox, MULTIPLY)
    return f"a fork bomb in it runs until its time is up ({bomb.seconds:.0f} s)" if bomb.reason == "timeout" else ""


def memory_holds(sandbox: Sandbox) -> str:
    if _python(sandbox, HOARD).ok:
        return "a program in it can take 400 MiB of memory where 96 MiB are allowed"
    together = _python(sandbox, HOARD_TOGETHER)
    return "" if together.reason == "memory" else "processes in it can together take more memory than is allowed"


def files_hold(sandbox: Sandbox) -> str:
    for code, what in (
        (OPEN, "open 1,000 files where 32 are allowed"),
        (ENLARGE, "write a file of 100 MiB where 2 MiB are allowed"),
        (FILL, "write 100 MiB where 4 MiB are allowed"),
        (STREW, "make 20,000 files where 64 are allowed"),
    ):
        if "breached" in _python(sandbox, code).stdout:
            return f"a program in it can {what}"
    return ""


def nothing_stays(sandbox: Sandbox) -> str:
    token = secrets.token_hex(16)
    result = _python(sandbox, LINGER, token, limits=Limits(seconds=1.5))
    if result.reason != "timeout":
        return f"a program that sleeps is not ended by the clock, but by: {result.reason}"
    left = processes_with(token)
    return f"processes of a program outlive it: {left}" if left else ""


LIMIT_CHECKS: tuple[Callable[[Sandbox], str], ...] = (processes_hold, memory_holds, files_hold, nothing_stays)


def processes_with(token: str) -> list[int]:
    """The processes of this machine, as far as they may be seen, with `token` in their command line."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if token.encode() in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return found


_lock = threading.Lock()
_standings: dict[str, Standing] = {}


def standing(sandbox: Sandbox) -> Standing:
    """What the probe finds of a tier; asked again, it answers what it found. A few seconds at first."""
    with _lock:
        if sandbox.name not in _standings:
            begun = time.monotonic()
            found = tuple(breaches(sandbox))
            _standings[sandbox.name] = Standing(sandbox, found, time.monotonic() - begun)
        return _standings[sandbox.name]


def best() -> Sandbox:
    """The strongest tier that held.

    Raises:
        ResourceError: none did; what each lacks is in the message.
    """
    for tier in TIERS:
        if standing(tier).usable:
            return tier
    why = "; ".join(f"{tier.name}: {standing(tier).breaches[0]}" for tier in TIERS)
    raise ResourceError(
        f"Code that nobody trusts cannot be run on this machine: no sandbox holds. {why}.",
        hint="Install bubblewrap, on Linux 5.13 or newer; in a container, allow user namespaces or Landlock.",
    )
