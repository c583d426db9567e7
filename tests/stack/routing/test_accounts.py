"""Money: budgets hold under every interleaving and between threads, days end, and the ledger adds up."""

from __future__ import annotations

import datetime
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from puna.stack.routing.accounts import DECISION, LEDGER, Accounts, Hold, Short, totals
from puna.stack.routing.prices import NANO
from puna.stack.state.sqlite import SqliteStore

ENTRY = {"candidate": "a/m", "outcome": "answered"}
NOON = datetime.datetime(2026, 11, 24, 12, tzinfo=datetime.UTC).timestamp()


@pytest.fixture
def store(tmp_path: Path) -> SqliteStore:
    return SqliteStore(tmp_path / "stack.db")


def test_money_is_set_aside_and_what_was_not_needed_comes_back(store: SqliteStore) -> None:
    accounts = Accounts(store, "auto", per_day=1.0, clock=lambda: NOON)
    hold = accounts.reserve("ann", NANO * 7 // 10)
    assert isinstance(hold, Hold)
    refused = accounts.reserve("ann", NANO * 4 // 10)
    assert isinstance(refused, Short)
    assert str(refused) == "the budget of the route 'auto' has $0.300000 left today, and this may cost $0.400000"
    accounts.settle(hold, "ann", NANO // 10, ENTRY)
    assert accounts.left("ann") == {"the route 'auto'": 0.9}
    assert isinstance(accounts.reserve("ann", NANO * 9 // 10), Hold)


def test_an_owner_has_a_budget_of_its_own(store: SqliteStore) -> None:
    accounts = Accounts(store, "auto", per_day=1.0, per_owner=0.4, clock=lambda: NOON)
    assert isinstance(accounts.reserve("ann", NANO * 4 // 10), Hold)
    refused = accounts.reserve("ann", 1)
    assert isinstance(refused, Short)
    assert refused.budget == "the key's owner"
    assert isinstance(accounts.reserve("bob", NANO * 4 // 10), Hold)
    # The route's own budget ends before Cid's, and nothing is set aside in either.
    assert isinstance(accounts.reserve("cid", NANO * 3 // 10), Short)
    assert accounts.left("cid")["the key's owner"] == 0.4


def test_a_day_ends_at_midnight_and_a_hold_is_settled_in_its_own(store: SqliteStore) -> None:
    now = [NOON]
    accounts = Accounts(store, "auto", per_day=1.0, clock=lambda: now[0])
    hold = accounts.reserve("", NANO)
    assert isinstance(hold, Hold)
    now[0] += 86_400
    assert accounts.left("") == {"the route 'auto'": 1.0}
    accounts.settle(hold, "", NANO, ENTRY)
    assert accounts.left("") == {"the route 'auto'": 1.0}
    now[0] -= 86_400
    assert accounts.left("") == {"the route 'auto'": 0.0}


def test_a_reservation_survives_its_process(tmp_path: Path) -> None:
    Accounts(SqliteStore(tmp_path / "s.db"), "auto", per_day=1.0, clock=lambda: NOON).reserve("", NANO)
    again = Accounts(SqliteStore(tmp_path / "s.db"), "auto", per_day=1.0, clock=lambda: NOON)
    assert again.left("") == {"the route 'auto'": 0.0}


def test_a_decision_is_kept_with_its_money_and_a_hold_may_be_released(store: SqliteStore) -> None:
    accounts = Accounts(store, "auto", per_day=1.0, clock=lambda: NOON)
    hold = accounts.reserve("ann", NANO)
    assert isinstance(hold, Hold)
    accounts.settle(hold, "ann", NANO // 2, ENTRY, {"id": "route_1", "route": "auto"})
    (record,) = store.list(DECISION, "ann").records
    assert record.id == "route_1"
    hold = accounts.reserve("ann", NANO // 2)
    assert isinstance(hold, Hold)
    accounts.release(hold)
    assert accounts.left("ann") == {"the route 'auto'": 0.5}
    assert len(store.list(LEDGER, "ann").records) == 1


def test_old_decisions_go_in_time_and_the_ledger_stays(store: SqliteStore) -> None:
    now = [NOON]
    accounts = Accounts(store, "auto", clock=lambda: now[0], keep_days=1.0)
    for i in range(120):
        accounts.settle(Hold(0), "ann", 0, ENTRY, {"id": f"old_{i}"})
    now[0] += 2 * 86_400
    for i in range(100):
        accounts.keep("ann", {"id": f"new_{i}"})
    kept = [record.id for record in store.list(DECISION, "ann", limit=500).records]
    assert len(kept) == 100
    assert not any(id.startswith("old") for id in kept)
    assert len(store.list(LEDGER, "ann", limit=500).records) == 120


def test_without_budgets_nothing_is_limited_and_all_is_entered(store: SqliteStore) -> None:
    accounts = Accounts(store, "auto", clock=lambda: NOON)
    assert not accounts.limited
    hold = accounts.reserve("ann", 10**15)
    assert isinstance(hold, Hold)
    accounts.settle(hold, "ann", 5 * NANO, {**ENTRY, "prompt_tokens": 3})
    accounts.settle(Hold(0), "ann", NANO, {**ENTRY, "candidate": "b/m"})
    records = store.list(LEDGER, "ann").records
    assert records[-1].data == {"route": "auto", "nano": 5 * NANO, "dollars": 5.0, **ENTRY, "prompt_tokens": 3}
    assert totals(records) == {"dollars": 6.0, "by_candidate": {"a/m": 5.0, "b/m": 1.0}, "by_day": {"2026-11-24": 6.0}}
    assert not store.list(LEDGER, "bob").records


steps = st.tuples(
    st.sampled_from(("reserve", "settle", "drop")),
    st.sampled_from(("ann", "bob")),
    st.integers(0, 400),
    st.floats(0, 1),
)


@settings(max_examples=40)
@given(st.lists(steps, max_size=30))
def test_no_interleaving_spends_more_than_a_budget(steps: list[tuple[str, str, int, float]]) -> None:
    store = SqliteStore(":memory:")
    accounts = Accounts(store, "auto", per_day=1000 / NANO, per_owner=600 / NANO, clock=lambda: NOON)
    under_way: list[tuple[str, Hold]] = []
    spent = {"ann": 0, "bob": 0}
    for step, owner, nano, share in steps:
        if step == "reserve":
            held = {name: sum(hold.nano for who, hold in under_way if who == name) for name in spent}
            hold = accounts.reserve(owner, nano)
            room = min(1000 - sum(spent.values()) - sum(held.values()), 600 - spent[owner] - held[owner])
            assert isinstance(hold, Hold) == (nano <= room)  # neither too generous nor too mean
            if isinstance(hold, Hold):
                under_way.append((owner, hold))
        elif under_way:
            who, hold = under_way.pop(int(share * (len(under_way) - 1)))
            cost = int(hold.nano * share) if step == "settle" else 0
            accounts.settle(hold, who, cost, ENTRY)
            spent[who] += cost
        assert sum(spent.values()) <= 1000
        assert max(spent.values()) <= 600
    store.close()


def test_concurrent_threads_do_not_spend_the_same_dollar(tmp_path: Path) -> None:
    stores = [SqliteStore(tmp_path / "s.db") for _ in range(4)]  # as many processes would open it
    granted: list[Hold] = []

    def ask(store: SqliteStore) -> None:
        accounts = Accounts(store, "auto", per_day=100 / NANO, clock=lambda: NOON)
        for _ in range(20):
            if isinstance(hold := accounts.reserve("ann", 3), Hold):
                granted.append(hold)

    threads = [threading.Thread(target=ask, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(granted) == 33
