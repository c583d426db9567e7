"""What every store does, asked of the one in SQLite and of the one in PostgreSQL."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import anyio
import pytest

from puna.stack.errors import ApiError
from puna.stack.state.store import Page, Record, Store, dump, every, is_text, list_where, load, run


def ids(page: Page) -> list[str]:
    return [record.id for record in page.records]


def fill(store: Store, count: int, parent: str = "") -> None:
    for i in range(count):
        store.put("thing", f"t{i}", {"n": i}, parent=parent)


def test_a_record_comes_back_as_it_was_put(store: Store) -> None:
    data = {"text": "ünïcode \u2028 \0 'quotes' \"", "half": "\ud800", "list": [1, 2.5, None, True], "empty": {}}
    put = store.put("thing", "a", data, owner="ada", parent="p", created=12.5)
    assert put == store.get("thing", "a", "ada")
    assert (put.data, put.created, put.parent, put.owner) == (data, 12.5, "p", "ada")


def test_a_second_put_keeps_place_owner_parent_and_time(store: Store) -> None:
    first = store.put("thing", "a", {"n": 1}, parent="p", created=5.0)
    store.put("thing", "b", {})
    second = store.put("thing", "a", {"n": 2}, parent="other", created=9.0)
    assert (second.seq, second.parent, second.created) == (first.seq, "p", 5.0)
    assert second.data == {"n": 2}


def test_every_record_is_read_over_many_pages(store: Store) -> None:
    with store.transaction():
        fill(store, 450)
    assert [record.data["n"] for record in every(store, "thing", "")] == list(range(450))


def test_insert_does_not_replace(store: Store) -> None:
    assert store.insert("thing", "a", {"n": 1}) is not None
    assert store.insert("thing", "a", {"n": 2}) is None
    assert store.insert("thing", "a", {"n": 3}, owner="eve") is None
    found = store.get("thing", "a")
    assert found is not None
    assert found.data == {"n": 1}


def test_another_owner_neither_sees_nor_changes(store: Store) -> None:
    store.put("thing", "a", {"n": 1}, owner="ada")
    assert store.get("thing", "a", "eve") is None
    assert store.get("thing", "a") is None
    assert not store.delete("thing", "a", "eve")
    assert ids(store.list("thing", "eve")) == []
    with pytest.raises(ApiError) as caught:
        store.put("thing", "a", {"n": 2}, owner="eve")
    assert caught.value.status == 404
    found = store.get("thing", "a", "ada")
    assert found is not None
    assert found.data == {"n": 1}


def test_kinds_have_ids_of_their_own(store: Store) -> None:
    store.put("thing", "a", {"n": 1})
    store.put("other", "a", {"n": 2})
    assert store.delete("thing", "a")
    assert store.get("other", "a") is not None


def test_delete_children_takes_those_of_one_parent(store: Store) -> None:
    for i, parent in enumerate("ppq"):
        store.put("thing", f"t{i}", {}, parent=parent)
    assert store.delete_children("thing", "p", "eve") == 0
    assert store.delete_children("thing", "p") == 2
    assert ids(store.list("thing")) == ["t2"]


@pytest.mark.parametrize("bad", ["a\0b", "\ud800"])
def test_an_id_that_no_database_holds_is_nobodys(store: Store, bad: str) -> None:
    assert store.get("thing", bad) is None
    assert not store.delete("thing", bad)
    assert store.delete_children("thing", bad) == 0
    assert store.list("thing", parent=bad) == Page([], False)
    with pytest.raises(ApiError):
        store.list("thing", after=bad)


def test_lists_are_paged_in_both_orders(store: Store) -> None:
    fill(store, 5)
    assert ids(store.list("thing", limit=2)) == ["t4", "t3"]
    page = store.list("thing", limit=2, order="asc", after="t1")
    assert (ids(page), page.has_more) == (["t2", "t3"], True)
    page = store.list("thing", limit=2, order="asc", after="t2")
    assert (ids(page), page.has_more) == (["t3", "t4"], False)
    assert ids(store.list("thing", after="t1")) == ["t0"]


def test_a_page_before_a_record_is_the_nearest_one(store: Store) -> None:
    fill(store, 6)
    page = store.list("thing", limit=2, order="asc", before="t4")
    assert (ids(page), page.has_more) == (["t2", "t3"], True)
    page = store.list("thing", limit=2, order="desc", before="t3")
    assert (ids(page), page.has_more) == (["t5", "t4"], False)


def test_a_page_between_two_records(store: Store) -> None:
    fill(store, 6)
    assert ids(store.list("thing", order="asc", after="t1", before="t4")) == ["t2", "t3"]
    assert ids(store.list("thing", order="desc", after="t4", before="t1")) == ["t3", "t2"]


def test_a_page_after_a_record_of_another_list_is_refused(store: Store) -> None:
    store.put("thing", "a", {}, parent="p")
    store.put("thing", "b", {}, parent="q")
    for param, cursor in (("after", "b"), ("before", "b"), ("after", "nowhere")):
        with pytest.raises(ApiError) as caught:
            store.list("thing", parent="p", **{param: cursor})
        assert (caught.value.status, caught.value.param) == (404, param)


def test_what_fails_in_a_transaction_leaves_nothing(store: Store) -> None:
    store.put("thing", "a", {"n": 1})
    with pytest.raises(RuntimeError), store.transaction():
        store.put("thing", "a", {"n": 2})
        store.put("thing", "b", {})
        with store.transaction():
            store.delete("thing", "a")
        raise RuntimeError
    assert store.get("thing", "b") is None
    found = store.get("thing", "a")
    assert found is not None
    assert found.data == {"n": 1}


def test_others_do_not_see_a_transaction_before_its_end(store: Store) -> None:
    store.put("thing", "a", {"n": 1})
    with ThreadPoolExecutor(1) as other, store.transaction():
        store.put("thing", "a", {"n": 2})
        seen = other.submit(store.get, "thing", "a").result()
        assert seen is not None
        assert seen.data == {"n": 1}
        own = store.get("thing", "a")
        assert own is not None
        assert own.data == {"n": 2}


def test_no_addition_of_many_threads_and_two_stores_is_lost(opened: Callable[[], Store]) -> None:
    stores = opened(), opened()
    stores[0].put("counter", "c", {"n": 0})

    def add(which: int) -> None:
        store = stores[which % 2]
        for _ in range(10):
            with store.transaction():
                record = store.get("counter", "c")
                assert record is not None
                store.put("counter", "c", {"n": record.data["n"] + 1})

    threads = [threading.Thread(target=add, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = stores[1].get("counter", "c")
    assert found is not None
    assert found.data == {"n": 80}


def test_connections_do_not_grow_with_threads_that_come_and_go(store: Store) -> None:
    store.put("thing", "a", {})
    for _ in range(50):
        thread = threading.Thread(target=store.get, args=("thing", "a"))
        thread.start()
        thread.join()
    assert len(store._idle) <= 2  # type: ignore[attr-defined]


CHILD = """
import sys
from puna.stack.state.postgres import PostgresStore
from puna.stack.state.sqlite import SqliteStore
where, name = sys.argv[1:]
store = PostgresStore(where) if "://" in where else SqliteStore(where)
for i in range(int(1e9)):
    with store.transaction():
        total = store.get("total", name)
        store.put("total", name, {"n": total.data["n"] + 1 if total else 1})
        store.put("left", f"{name}{i}", {"x": "y" * 2000})
        store.put("right", f"{name}{i}", {"x": "y" * 2000})
    print(i, flush=True)
"""


def test_what_was_acknowledged_survives_a_kill_and_nothing_is_half_there(
    where: str, opened: Callable[[], Store]
) -> None:
    opened()
    children = [
        subprocess.Popen([sys.executable, "-c", CHILD, where, name], stdout=subprocess.PIPE, text=True)
        for name in ("a", "b")
    ]
    acknowledged = {}
    for name, child in zip("ab", children, strict=True):
        assert child.stdout is not None
        for _ in range(random.randint(15, 40)):
            acknowledged[name] = int(child.stdout.readline())
    for name, child in zip("ab", children, strict=True):
        child.kill()
        assert child.stdout is not None
        for line in child.stdout:
            if line.endswith("\n"):
                acknowledged[name] = int(line)
        child.wait()
        child.stdout.close()
    store = opened()
    for name in "ab":
        total = store.get("total", name)
        assert total is not None
        count = total.data["n"]
        assert count >= acknowledged[name] + 1
        for kind in ("left", "right"):
            assert all(store.get(kind, f"{name}{i}") for i in range(count))
            assert store.get(kind, f"{name}{count}") is None
    store.put("thing", "after", {})


def test_run_calls_in_another_thread() -> None:
    async def main() -> None:
        here = threading.get_ident()
        assert await run(threading.get_ident) != here

    anyio.run(main)


def test_a_filtered_list_reads_on_until_its_page_is_full(store: Store) -> None:
    fill(store, 250)

    def keep(record: Record) -> bool:
        return record.data["n"] % 50 == 0

    def read(**page: object) -> Page:
        return store.list("thing", order="asc", **page)  # type: ignore[arg-type]

    first = list_where(keep, read, 3)
    assert (ids(first), first.has_more) == (["t0", "t50", "t100"], True)
    second = list_where(keep, read, 3, after="t100")
    assert (ids(second), second.has_more) == (["t150", "t200"], False)


def test_what_json_may_hold_and_utf8_may_not_is_escaped() -> None:
    assert dump({"a": "é"}) == '{"a":"é"}'
    text = dump({"a": "\ud800é"})
    assert is_text(text)
    assert load(text) == {"a": "\ud800é"}
