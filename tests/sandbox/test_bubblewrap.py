"""What only namespaces give."""

from __future__ import annotations

import json

import pytest

from puna.base.errors import ResourceError
from puna.sandbox.bubblewrap import Bubblewrap
from puna.sandbox.program import MIB, PYTHON, Limits, Program

only_here = pytest.mark.parametrize("sandbox", [Bubblewrap()], ids=["bubblewrap"], indirect=True)


@only_here
def test_its_processes_and_its_host_are_its_own(run) -> None:
    code = "import json, os; print(json.dumps([p for p in os.listdir('/proc') if p.isdigit()] + [os.uname().nodename]))"
    *processes, host = json.loads(run(code).stdout)
    assert len(processes) <= 4  # the first process, the warden, and the program
    assert all(int(each) < 20 for each in processes)
    assert host == "sandbox"


@only_here
def test_it_sees_no_home_no_settings_and_no_other_network(run) -> None:
    code = """import json, os
print(json.dumps([os.path.exists('/etc/passwd'), os.path.exists('/home'), os.path.exists('/var'),
    sorted(os.listdir('/tmp')) if os.path.exists('/tmp') else [], open('/proc/net/dev').read().count(':')]))"""
    assert json.loads(run(code).stdout) == [False, False, False, [], 1]


@only_here
def test_nothing_but_its_box_can_be_written(run) -> None:
    code = """import os
for path in ('/x', '/dev/x', '/dev/shm/x', '/usr/x', '/etc/x', '/proc/x', '/box/x'):
    try: open(path, 'w').close()
    except OSError: continue
    print(path)"""
    assert run(code).stdout in ("/box/x\n", "")


@only_here
def test_its_disk_has_an_exact_size(run) -> None:
    code = """written = 0
with open('a', 'wb', buffering=0) as file:
    try:
        while True: written += file.write(bytes(4096))
    except OSError as error: print(written, error.errno)"""
    written, number = map(int, run(code, limits=Limits(disk=2 * MIB, file_bytes=64 * MIB)).stdout.split())
    assert number == 28  # no space left
    assert written <= 2 * MIB + (1 << 16)


def test_where_bwrap_is_missing_it_says_so(monkeypatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert "bwrap" in Bubblewrap().missing() or "Linux" in Bubblewrap().missing()
    with pytest.raises(ResourceError, match="bubblewrap cannot be used"):
        Bubblewrap().run(Program((PYTHON, "-c", "")))
