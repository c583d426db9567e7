"""Money: budgets that hold, and a ledger of every attempt.

An attempt reserves the most that it can cost before it is made, and settles for what it did cost after. Both are one
transaction of the store, so that no two requests, workers or processes can spend the same dollar: at every moment what
is spent and reserved is within the budget. A process that dies with a reservation leaves it standing until its day
ends: the money may have been spent.

A provider that bills more than it was possible to use is entered as it bills; that alone can lead over a budget, and
the next request is refused.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from puna.base.files import hash_bytes
from puna.stack.context import new_id
from puna.stack.routing.prices import NANO, dollars
from puna.stack.state.store import Record, Store

_PRUNE_EVERY = 50  # records written; twice as many may go, so that all old ones do in time
BUDGET, LEDGER, DECISION = "routing_budget", "routing_spend", "routing_decision"


@dataclass(frozen=True, slots=True)
class Hold:
    """Money set aside for an attempt.

    Attributes:
        nano: nanodollars.
        budgets: the records that it is set aside in.
    """

    nano: int
    budgets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Short:
    """A refusal: which budget has too little left."""

    budget: str
    left: int
    needed: int

    def __str__(self) -> str:
        left, needed = dollars(self.left), dollars(self.needed)
        return f"the budget of {self.budget} has ${left:.6f} left today, and this may cost ${needed:.6f}"


class Accounts:
    """Budgets and ledger of one route.

    Args:
        store: where they are kept.
        route: its name.
        per_day: dollars a day for the whole route; None for no limit.
        per_owner: dollars a day for each owner.
        clock: seconds since 1970.
        keep_days: how long records of decisions are kept; the ledger stays.
    """

    def __init__(
        self,
        store: Store,
        route: str,
        per_day: float | None = None,
        per_owner: float | None = None,
        clock: Callable[[], float] = time.time,
        keep_days: float = 30.0,
    ) -> None:
        self.store, self.route, self._clock = store, route, clock
        self.keep_days, self._kept = keep_days, 0
        self.per_day = None if per_day is None else int(per_day * NANO)
        self.per_owner = None if per_owner is None else int(per_owner * NANO)

    @property
    def limited(self) -> bool:
        return self.per_day is not None or self.per_owner is not None

    def reserve(self, owner: str, nano: int) -> Hold | Short:
        """Sets money aside, in every budget that applies or in none."""
        budgets = self._budgets(owner)
        if not budgets:
            return Hold(nano)
        with self.store.transaction():
            states = [self._state(id) for id, _, _ in budgets]
            for (_, name, limit), state in zip(budgets, states, strict=True):
                left = limit - state["spent"] - state["reserved"]
                if nano > left:
                    return Short(name, left, nano)
            for (id, _, _), state in zip(budgets, states, strict=True):
                self.store.put(BUDGET, id, {**state, "reserved": state["reserved"] + nano})
        return Hold(nano, tuple(id for id, _, _ in budgets))

    def settle(
        self, hold: Hold, owner: str, nano: int, entry: Mapping[str, Any], decision: Mapping[str, Any] | None = None
    ) -> None:
        """Gives a hold back, enters what was spent, and writes the ledger; with the record of a decision, that too."""
        with self.store.transaction():
            self.release(hold, nano)
            data = {"route": self.route, "nano": nano, "dollars": dollars(nano), **entry}
            self.store.insert(LEDGER, new_id("spend"), data, owner=owner, created=self._clock())
            if decision is not None:
                self.keep(owner, decision)

    def release(self, hold: Hold, nano: int = 0) -> None:
        """Gives a hold back and enters what was spent of it."""
        with self.store.transaction():
            for id in hold.budgets:
                state = self._state(id)
                kept = {"spent": state["spent"] + nano, "reserved": state["reserved"] - hold.nano}
                self.store.put(BUDGET, id, kept)

    def keep(self, owner: str, decision: Mapping[str, Any]) -> None:
        """Keeps the record of a decision under the id that it bears; now and then the oldest ones go."""
        self.store.insert(DECISION, decision["id"], decision, owner=owner, created=self._clock())
        self._kept += 1
        if self._kept % _PRUNE_EVERY == 0:
            self._prune(owner)

    def _prune(self, owner: str) -> None:
        oldest = self._clock() - self.keep_days * 86_400
        with self.store.transaction():
            for record in self.store.list(DECISION, owner, limit=2 * _PRUNE_EVERY, order="asc").records:
                if record.created < oldest:
                    self.store.delete(DECISION, record.id, owner)

    def left(self, owner: str) -> Mapping[str, float]:
        """Dollars that each budget has left today, reservations taken off."""
        found = {}
        for id, name, limit in self._budgets(owner):
            state = self._state(id)
            found[name] = dollars(limit - state["spent"] - state["reserved"])
        return found

    def _budgets(self, owner: str) -> list[tuple[str, str, int]]:
        """(id, name, nanodollars) of each budget of today."""
        day = datetime.datetime.fromtimestamp(self._clock(), datetime.UTC).date().isoformat()
        found = []
        if self.per_day is not None:
            found.append((f"{self.route}:{day}", f"the route {self.route!r}", self.per_day))
        if self.per_owner is not None:
            id = f"{self.route}:{day}:{hash_bytes(owner.encode())[:16]}"
            found.append((id, "the key's owner", self.per_owner))
        return found

    def _state(self, id: str) -> dict[str, int]:
        record = self.store.get(BUDGET, id)
        return dict(record.data) if record else {"spent": 0, "reserved": 0}


def totals(records: Sequence[Record]) -> dict[str, Any]:
    """Sums of ledger entries: all, by candidate, and by day."""
    by_candidate: dict[str, int] = {}
    by_day: dict[str, int] = {}
    for record in records:
        nano = int(record.data["nano"])
        day = datetime.datetime.fromtimestamp(record.created, datetime.UTC).date().isoformat()
        key = str(record.data["candidate"])
        by_candidate[key] = by_candidate.get(key, 0) + nano
        by_day[day] = by_day.get(day, 0) + nano
    return {
        "dollars": dollars(sum(by_candidate.values())),
        "by_candidate": {key: dollars(nano) for key, nano in sorted(by_candidate.items())},
        "by_day": {key: dollars(nano) for key, nano in sorted(by_day.items())},
    }
