"""Who holds something, and whether that process is gone."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from puna.stack.state.holder import Holder, identity, is_alive

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


def test_a_process_lives_until_it_ends_even_unreaped() -> None:
    assert is_alive(identity(os.getpid()))
    child = subprocess.Popen(SLEEP)
    name = identity(child.pid)
    assert is_alive(name)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not is_alive(name)
    child.wait()
    assert not is_alive(name)


@pytest.mark.parametrize("name", ["", "x:1", "own:1", "99999999999999999999:1"])
def test_what_is_no_living_process(name: str) -> None:
    assert not is_alive(name.replace("own", str(os.getpid())))


def test_a_holder_of_this_process_holds_until_it_is_closed() -> None:
    holder, other = Holder(), Holder()
    data = holder.to_json()
    assert holder.token != other.token
    assert (Holder.is_here(data), Holder.is_gone(data)) == (True, False)
    holder.close()
    assert (Holder.is_here(data), Holder.is_gone(data)) == (False, True)


def test_another_processs_holder_is_gone_with_it() -> None:
    child = subprocess.Popen(SLEEP)
    data = {**Holder().to_json(), "process": identity(child.pid), "token": "childs"}
    assert (Holder.is_here(data), Holder.is_gone(data)) == (False, False)
    child.kill()
    child.wait()
    assert Holder.is_gone(data)


def test_a_process_that_had_this_number_before_is_gone() -> None:
    data = {**Holder().to_json(), "process": f"{os.getpid()}:1", "token": "former"}
    assert Holder.is_gone(data)


def test_another_machines_holder_is_never_known_to_be_gone() -> None:
    assert not Holder.is_gone({"host": "elsewhere", "process": "1:1", "token": "theirs"})
