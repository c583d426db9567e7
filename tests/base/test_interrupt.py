from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from puna.base.interrupt import deferred


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_first_signal_waits_for_the_work_to_ask(number: int) -> None:
    before = signal.getsignal(number)
    done = []
    with pytest.raises(KeyboardInterrupt), deferred() as interruption:
        interruption.check()
        signal.raise_signal(number)
        done.append("the work in hand")
        assert interruption.requested
        interruption.check()
        done.append("more work")
    assert done == ["the work in hand"]
    assert signal.getsignal(number) is before


def test_a_second_signal_interrupts_at_once() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), deferred():
        signal.raise_signal(signal.SIGINT)
        done.append("first")
        signal.raise_signal(signal.SIGTERM)
        done.append("second")
    assert done == ["first"]


def test_handlers_come_back_after_an_error_and_one_inside_another() -> None:
    before = signal.getsignal(signal.SIGINT)
    with deferred() as outer:
        with pytest.raises(KeyError), deferred() as inner:
            signal.raise_signal(signal.SIGINT)
            raise KeyError
        assert inner.requested
        assert not outer.requested
        signal.raise_signal(signal.SIGINT)
        assert outer.requested
    assert signal.getsignal(signal.SIGINT) is before


def test_in_another_thread_nothing_is_deferred() -> None:
    before = signal.getsignal(signal.SIGINT)
    found = []

    def work() -> None:
        with deferred() as interruption:
            found.append((interruption.requested, signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [(False, before)]


WORK = """
import os, time
from puna.base.interrupt import deferred
with deferred() as interruption:
    print("ready", flush=True)
    try:
        while not interruption.requested:
            time.sleep(0.01)
        print("noted", flush=True)
        for _ in range(1000 * {patience}):
            time.sleep(0.001)
        print("finished", flush=True)
        interruption.check()
    except KeyboardInterrupt:
        print("stopped", flush=True)
"""


@pytest.mark.parametrize("signals", [1, 2])
def test_a_process_finishes_after_one_ctrl_c_and_stops_at_two(signals: int) -> None:
    patience = 0 if signals == 1 else 30
    process = subprocess.Popen(
        [sys.executable, "-c", WORK.format(patience=patience)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    lines = [process.stdout.readline().strip()]
    for _ in range(signals):
        os.kill(process.pid, signal.SIGINT)
        lines.append(process.stdout.readline().strip())
    lines += process.communicate()[0].split()
    assert lines == ["ready", "noted", *(["finished"] if signals == 1 else []), "stopped"]
    assert process.returncode == 0
