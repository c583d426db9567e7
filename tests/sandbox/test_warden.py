"""The warden's parts that can be looked at from outside, and what only it decides: limits of all processes together."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from pathlib import Path

import pytest

from puna.sandbox import warden
from puna.sandbox.program import MIB, Limits

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the sandboxes are of Linux")


@linux
def test_children_and_what_they_use_are_seen() -> None:
    code = "held = b'x' * (20 << 20); print('ready', flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin and child.stdout
        child.stdout.readline()
        assert child.pid in warden.children(os.getpid())
        assert child.pid in warden.descendants(most=1000)
        threads, memory, cpu = warden.usage([child.pid])
        assert (threads, cpu > 0) == (1, True)
        assert 20 * MIB < memory < 200 * MIB
        child.stdin.close()
    assert warden.children(child.pid) == []
    assert warden.usage([child.pid]) == (0, 0, 0.0)


def test_what_is_new_or_changed_is_collected_and_nothing_else(tmp_path: Path) -> None:
    outside, work = tmp_path / "outside", tmp_path / "work"
    (work / "deep").mkdir(parents=True)
    outside.write_bytes(b"secret")
    (work / "same").write_bytes(b"a")
    (work / "changed").write_bytes(b"b")
    (work / "deep" / "new").write_bytes(b"c")
    (work / "link").symlink_to(outside)
    (work / "folder").symlink_to(tmp_path)
    os.mkfifo(work / "pipe")
    (work / "huge").write_bytes(bytes(1000))
    job = {"work": str(work), "files": {"same": b"a", "changed": b"a"}, "limits": {"disk": 500, "files": 100}}
    found, left_out = warden.collect(job)
    assert {name: base64.b64decode(text) for name, text in found.items()} == {"changed": b"b", "deep/new": b"c"}
    assert sorted(line.partition(":")[0] for line in left_out) == ["'link'", "huge", "pipe"]


def test_files_without_end_are_not_collected_without_end(tmp_path: Path) -> None:
    for index in range(30):
        (tmp_path / str(index)).write_bytes(b"x")
    job = {"work": str(tmp_path), "files": {}, "limits": {"disk": 500, "files": 10}}
    found, left_out = warden.collect(job)
    assert len(found) == 11
    assert left_out == ["further files: too many"]


def test_the_size_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").write_bytes(bytes(100_000))
    size, count = warden.disk_use({"namespaces": False, "box": str(tmp_path), "limits": {"files": 10}})
    assert count == 2
    assert size >= 100_000


def test_many_processes_of_little_memory_each_are_too_much_together(run) -> None:
    code = """import os, time
for _ in range(6):
    if os.fork() == 0:
        held = b'x' * (30 << 20)
        time.sleep(60)
time.sleep(60)"""
    result = run(code, limits=Limits(seconds=60, memory=120 * MIB))
    assert result.reason == "memory"
    assert result.exit_code is None


def test_time_of_the_processor_is_counted_for_all_together(run) -> None:
    code = "import os\nfor _ in range(3): os.fork()\nwhile True: pass"
    result = run(code, limits=Limits(seconds=60, cpu_seconds=1))
    assert result.reason == "cpu"
    assert result.cpu_seconds < 10


def test_one_process_that_only_computes_is_ended_by_the_kernel(run) -> None:
    assert run("while True: pass", limits=Limits(seconds=60, cpu_seconds=1)).reason == "cpu"


def test_more_files_than_allowed_end_the_program(run) -> None:
    code = "import time\nfor i in range(500): open(str(i), 'w').close()\ntime.sleep(60)"
    assert run(code, limits=Limits(files=50, seconds=60)).reason == "disk"


def test_threads_count_as_processes(run) -> None:
    code = "import threading, time\nfor _ in range(50): threading.Thread(target=time.sleep, args=(2,)).start()"
    result = run(code, limits=Limits(processes=10, seconds=60))
    assert result.reason == "processes" or "can't start new thread" in result.stderr


def test_a_signal_is_told_by_its_name(run) -> None:
    result = run("import ctypes; ctypes.string_at(1)")
    assert (result.reason, result.exit_code, result.signal) == ("signal", None, "SIGSEGV")
