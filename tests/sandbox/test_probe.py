"""The probe: what leaks is named and not used, what holds is."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from puna.base.errors import ResourceError
from puna.sandbox import probe
from puna.sandbox.program import Limits, Program, Result, Sandbox
from puna.sandbox.running import interpreter


class Open(Sandbox):
    """No sandbox at all."""

    name = "open"

    def missing(self) -> str:
        return "" if sys.platform.startswith("linux") else "of Linux"

    def run(self, program: Program, limits: Limits | None = None, stop: threading.Event | None = None) -> Result:
        del limits, stop
        done = subprocess.run([interpreter(), *program.argv[1:]], capture_output=True, text=True, check=False)
        return Result(done.stdout, done.stderr, "exited", done.returncode, None, 0.0, 0.0, 0, {})


class Broken(Open):
    name = "broken"

    def run(self, program: Program, limits: Limits | None = None, stop: threading.Event | None = None) -> Result:
        raise ResourceError("The sandbox could not be set up: no permission.")


class Endless(Sandbox):
    """A wrapper that lets programs have a hundred times what they may."""

    name = "endless"

    def __init__(self, inner: Sandbox) -> None:
        self.inner = inner

    def missing(self) -> str:
        return self.inner.missing()

    def run(self, program: Program, limits: Limits | None = None, stop: threading.Event | None = None) -> Result:
        del limits
        generous = Limits(seconds=4, memory=2 << 30, processes=100, file_bytes=1 << 28, disk=1 << 30, files=10**6)
        return self.inner.run(program, generous, stop)


def test_a_tier_holds_against_everything(sandbox) -> None:
    assert probe.breaches(sandbox) == []


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the sandboxes are of Linux")
def test_what_leaks_is_named() -> None:
    found = probe.breaches(Open())
    assert "a program in it can read outside" in found
    assert "a program in it can signal a process" in found
    assert not any("fork bomb" in each for each in found)  # which is not tried where nothing holds


def test_a_tier_that_cannot_be_set_up_says_why() -> None:
    if missing := Broken().missing():
        assert probe.breaches(Broken()) == [missing]
    else:
        assert probe.breaches(Broken()) == ["The sandbox could not be set up: no permission."]


def test_limits_that_do_not_hold_are_noticed(sandbox) -> None:
    endless = Endless(sandbox)
    assert "60 processes" in probe.processes_hold(endless)
    assert "400 MiB" in probe.memory_holds(endless)
    assert "1,000 files" not in probe.files_hold(sandbox)
    assert "100 MiB" in probe.files_hold(endless)


def test_the_best_is_the_first_that_holds() -> None:
    standings = [probe.standing(tier) for tier in probe.TIERS]
    assert standings == [probe.standing(tier) for tier in probe.TIERS]  # asked once
    usable = [each.sandbox for each in standings if each.usable]
    if usable:
        assert probe.best() is usable[0]
    else:
        with pytest.raises(ResourceError, match=r"bubblewrap: .*landlock: "):
            probe.best()


def test_targets_are_gone_afterwards() -> None:
    from pathlib import Path

    with probe.targets() as target:
        assert probe.processes_with(target["token"]) == [target["process"]] or not sys.platform.startswith("linux")
        assert Path(target["home"]).read_text() == Path(target["outside"]).read_text() == "secret"
    assert not Path(target["home"]).parent.exists()
    assert not Path(target["outside"]).parent.exists()
    assert probe.processes_with(target["token"]) == []
