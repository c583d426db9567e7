from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from puna.stack.responses import records
from puna.stack.responses.marks import CANCEL, MARK, Marks
from puna.stack.responses.records import Kept
from puna.stack.state.sqlite import SqliteStore


def kept(id: str = "resp_1", status: str = "in_progress") -> Kept:
    fields = {"created_at": 1, "store": True, "error": None, "output": []}
    return Kept({"id": id, "status": status, **fields})


@pytest.fixture
def store(tmp_path: Path) -> SqliteStore:
    return SqliteStore(tmp_path / "stack.db")


def mark(store: SqliteStore, **changes: Any) -> None:
    record = store.get(MARK, "resp_1")
    assert record is not None
    store.put(MARK, "resp_1", {**record.data, **changes})


def test_what_a_living_worker_does_is_left_alone(store: SqliteStore) -> None:
    one, other = Marks(store), Marks(store)
    one.begin("ann", kept())
    assert other.recover() == []
    assert other.load("ann", "resp_1").response["status"] == "in_progress"


def test_what_a_dead_worker_left_has_failed(store: SqliteStore) -> None:
    one = Marks(store)
    one.begin("ann", kept())
    one.close()
    assert Marks(store).recover() == ["resp_1"]
    found = records.load(store, "ann", "resp_1").response
    assert found["status"] == "failed"
    assert found["error"]["code"] == "server_error"
    assert store.get(MARK, "resp_1") is None


def test_another_machines_worker_is_dead_when_its_time_is_over(store: SqliteStore) -> None:
    Marks(store).begin("", kept())
    elsewhere = {"host": "elsewhere", "process": "1:2", "token": "other"}
    mark(store, holder=elsewhere, until=time.time() + 5)
    looking = Marks(store)
    assert looking.load("", "resp_1").response["status"] == "in_progress"
    mark(store, until=time.time() - 1)
    assert looking.load("", "resp_1").response["status"] == "failed"


def test_what_a_worker_lost_has_failed(store: SqliteStore) -> None:
    marks = Marks(store)
    marks.running["resp_1"] = ""
    marks.begin("", kept())
    assert marks.load("", "resp_1").response["status"] == "in_progress"
    del marks.running["resp_1"]
    assert marks.load("", "resp_1").response["status"] == "failed"


def test_what_ended_meanwhile_is_not_touched(store: SqliteStore) -> None:
    one = Marks(store)
    one.begin("", kept())
    records.save(store, "", kept(status="completed"))
    one.close()
    assert Marks(store).recover() == []
    assert records.load(store, "", "resp_1").response["status"] == "completed"


def test_an_end_takes_the_mark_away(store: SqliteStore) -> None:
    marks = Marks(store)
    marks.begin("", kept())
    marks.ask_to_cancel("resp_1")
    marks.end("", kept(status="completed"), whole=True)
    assert store.get(MARK, "resp_1") is None
    assert store.get(CANCEL, "resp_1") is None


def test_renewal_holds_on_and_hears_cancellations(store: SqliteStore) -> None:
    marks = Marks(store)
    marks.begin("", kept())
    mark(store, until=0.0)
    marks.running |= {"resp_1": "", "resp_2": ""}
    assert marks.renew() == []
    record = store.get(MARK, "resp_1")
    assert record is not None
    assert record.data["until"] > time.time()
    assert store.get(MARK, "resp_2") is None
    marks.ask_to_cancel("resp_1")
    assert marks.renew() == ["resp_1"]


KILLED = """
import os, signal, sys
from puna.stack.responses.marks import Marks
from puna.stack.responses.records import Kept
from puna.stack.state.sqlite import SqliteStore
fields = {"id": "resp_1", "status": "queued", "created_at": 1, "store": True, "error": None, "output": []}
Marks(SqliteStore(sys.argv[1])).begin("", Kept(fields))
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="without /proc a killed process is known by its time alone")
def test_a_killed_process_is_noticed_at_once(tmp_path: Path) -> None:
    path = tmp_path / "stack.db"
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert done.returncode < 0
    assert Marks(SqliteStore(path)).load("", "resp_1").response["status"] == "failed"
