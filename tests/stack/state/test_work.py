"""Work is not forgotten, not done by two at once, and free again when its holder is gone."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from puna.stack.state.sqlite import SqliteStore
from puna.stack.state.store import Store
from puna.stack.state.work import WorkQueue


def test_work_is_claimed_once_and_the_oldest_first(store: Store) -> None:
    mine, other = WorkQueue(store), WorkQueue(store)
    for id in "abc":
        mine.add("index", id, "ada")
    mine.add("sweep", "d")
    assert [work.id for work in mine.claim("index", 2)] == ["a", "b"]
    (work,) = other.claim("index", 5)
    assert (work.kind, work.id, work.owner, work.tries) == ("index", "c", "ada", 0)
    assert mine.claim("index", 5) == []


def test_done_work_is_gone(store: Store) -> None:
    queue = WorkQueue(store)
    queue.add("index", "a")
    (work,) = queue.claim("index", 1)
    assert queue.is_current(work)
    queue.done(work)
    assert not queue.is_current(work)
    assert store.list("work").records == []


def test_work_that_is_asked_for_again_while_it_is_done_is_done_again(store: Store) -> None:
    queue = WorkQueue(store)
    queue.add("index", "a")
    (work,) = queue.claim("index", 1)
    queue.add("index", "a")
    assert not queue.is_current(work)
    assert queue.claim("index", 1) == []  # it is still held
    queue.done(work)
    (again,) = queue.claim("index", 1)
    assert again.turn == work.turn + 1
    queue.done(again)
    assert queue.claim("index", 1) == []


def test_work_that_is_not_due_waits(store: Store) -> None:
    queue = WorkQueue(store)
    queue.add("sweep", "a", due=time.time() + 0.2)
    assert queue.claim("sweep", 1) == []
    time.sleep(0.25)
    assert len(queue.claim("sweep", 1)) == 1


def test_a_lease_that_is_not_renewed_ends(store: Store) -> None:
    short, other = WorkQueue(store, lease=0.2), WorkQueue(store)
    short.add("index", "a")
    (work,) = short.claim("index", 1)
    time.sleep(0.15)
    assert short.renew([work]) == []
    time.sleep(0.15)
    assert other.claim("index", 1) == []
    time.sleep(0.1)
    (taken,) = other.claim("index", 1)
    assert short.renew([work]) == [work]
    assert not short.is_current(work)
    short.done(work)  # too late: it is the other's
    assert other.is_current(taken)


def test_released_work_is_free_and_counts_its_failures(store: Store) -> None:
    queue, other = WorkQueue(store), WorkQueue(store)
    queue.add("index", "a")
    (work,) = queue.claim("index", 1)
    queue.release(work, due=time.time() + 60, failed=True)
    assert other.claim("index", 1) == []
    queue.add("index", "a")  # asked for again: now, and with all its tries
    (work,) = other.claim("index", 1)
    other.release(work, failed=True)
    (work,) = queue.claim("index", 1)
    assert work.tries == 1


def test_what_a_closed_queue_held_is_free(store: Store) -> None:
    gone, other = WorkQueue(store), WorkQueue(store)
    gone.add("index", "a")
    gone.claim("index", 1)
    assert other.claim("index", 1) == []
    gone.close()
    assert len(other.claim("index", 1)) == 1


def test_cancelled_work_is_not_done(store: Store) -> None:
    queue = WorkQueue(store)
    queue.add("index", "a")
    queue.cancel("index", "a")
    assert queue.claim("index", 1) == []


def test_work_and_what_made_it_necessary_are_kept_together(store: Store) -> None:
    queue = WorkQueue(store)
    with pytest.raises(RuntimeError), store.transaction():
        store.put("thing", "a", {})
        queue.add("index", "a")
        raise RuntimeError
    assert queue.claim("index", 1) == []


CHILD = """
import sys, time
from puna.stack.state.sqlite import SqliteStore
from puna.stack.state.work import WorkQueue
queue = WorkQueue(SqliteStore(sys.argv[1]))
print(len(queue.claim("index", 5)), flush=True)
time.sleep(60)
"""


def test_what_a_killed_process_held_is_free_at_once(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "stack.db")
    queue = WorkQueue(store)
    queue.add("index", "a")
    child = subprocess.Popen([sys.executable, "-c", CHILD, store.path], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "1\n"
    assert queue.claim("index", 5) == []
    child.kill()
    child.wait()
    child.stdout.close()
    assert [work.id for work in queue.claim("index", 5)] == ["a"]
    store.close()


def test_two_servers_share_the_work(opened: Callable[[], Store]) -> None:
    from concurrent.futures import ThreadPoolExecutor

    queues = [WorkQueue(opened()), WorkQueue(opened())]
    for n in range(40):
        queues[0].add("index", str(n))

    def take(queue: WorkQueue) -> list[str]:
        taken = []
        while works := queue.claim("index", 3):
            taken += [work.id for work in works]
            for work in works:
                queue.done(work)
        return taken

    with ThreadPoolExecutor(2) as threads:
        one, two = threads.map(take, queues)
    assert sorted([*one, *two], key=int) == [str(n) for n in range(40)]
