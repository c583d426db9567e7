"""The tier without namespaces: its folder on the host's disk, and whom it hands a program to."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from puna.sandbox.landlock import Landlock, open_to_all, remove, threads_of

only_here = pytest.mark.parametrize("sandbox", [Landlock()], ids=["landlock"], indirect=True)


@only_here
def test_the_folder_is_gone_whatever_was_put_into_it(run) -> None:
    code = """import os
os.makedirs('a/b'); os.symlink('/', 'a/root'); os.symlink('nowhere', 'b')
open('a/b/c', 'w').close(); os.fchmod(os.open('a', os.O_RDONLY), 0)
print(os.getcwd())"""
    result = run(code)
    assert result.ok, result.stderr
    assert not Path(result.stdout.strip()).parent.exists()


@only_here
def test_a_program_reads_its_interpreter_and_no_process(run) -> None:
    code = """import os, ssl, sqlite3, zoneinfo
try: os.listdir('/proc')
except PermissionError: print('refused')"""
    assert run(code).stdout == "refused\n"


@only_here
def test_its_processes_cannot_leave_their_group(run) -> None:
    code = "import os\ntry: os.fork() or os.setsid()\nexcept PermissionError: print('refused')"
    assert run(code).stdout == "refused\n"


def test_a_folder_without_permissions_is_removed(tmp_path: Path) -> None:
    inner = tmp_path / "box" / "a" / "b"
    inner.mkdir(parents=True)
    (tmp_path / "kept").write_text("x")
    (inner / "link").symlink_to(tmp_path)
    inner.chmod(0)
    inner.parent.chmod(0)
    remove(str(tmp_path / "box"))
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_whether_everybody_reaches_a_path(tmp_path: Path) -> None:
    assert open_to_all("/usr/bin/env")
    tmp_path.chmod(0o700)
    assert not open_to_all(str(tmp_path / "x"))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the sandboxes are of Linux")
def test_threads_of_a_user_are_counted() -> None:
    waiting = threading.Event()
    threads = [threading.Thread(target=waiting.wait) for _ in range(20)]
    for each in threads:
        each.start()
    assert threads_of(os.getuid()) > 20
    waiting.set()
    for each in threads:
        each.join()
    assert threads_of(4_000_000_000) == 0


@only_here
def test_an_unprivileged_user_has_it_too(sandbox) -> None:
    if os.geteuid() != 0 or not Path("/usr/bin/python3").exists():
        pytest.skip("root and a system Python are needed to become another user")
    code = """import os, sys
os.setgroups([]); os.setresgid(12345, 12345, 12345); os.setresuid(12345, 12345, 12345)
from puna.sandbox import probe
print([probe.breaches(tier) for tier in probe.TIERS if not tier.missing()])"""
    source = Path(__file__).parents[2] / "src"
    if not open_to_all(str(source)):
        pytest.skip("the source lies in a folder that other users cannot pass")
    command = ["/usr/bin/python3", "-c", f"import sys; sys.path.insert(0, {str(source)!r})\n{code}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={"HOME": "/", "PATH": "/usr/bin"})
    assert "[]" in done.stdout, done.stderr + done.stdout
