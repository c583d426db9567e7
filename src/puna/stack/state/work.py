"""Work that outlives the request which asked for it, and the process that began it.

A piece of work is a record, written in the transaction that made it necessary and deleted in the one that has done it.
So nothing acknowledged is forgotten by a kill: whichever worker sees a piece that nobody holds takes it up again. A
worker holds what it does by a lease that it renews; that of a process that is gone from this machine counts no more.

What the work is about is kept by those who do it: here are only its kind, the id and the owner. Doing it twice must do
no harm, because a process may die between the work and its last transaction.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from puna.stack.state.holder import Holder
from puna.stack.state.store import Record, Store

_KIND = "work"


@dataclass(frozen=True, slots=True)
class Work:
    """A piece of work that a queue holds.

    Attributes:
        kind: what is to be done.
        id: to what.
        owner: whose that is.
        turn: rises each time that the piece is asked for.
        tries: how often it failed before.
    """

    kind: str
    id: str
    owner: str
    turn: int
    tries: int


class WorkQueue:
    """Work in a store.

    Args:
        store: the records.
        lease: seconds for which a piece is held without being renewed.
    """

    def __init__(self, store: Store, lease: float = 30.0) -> None:
        self.store, self.lease = store, lease
        self._holder = Holder()

    def close(self) -> None:
        """Says that nobody works for this queue any more: what it still holds is free."""
        self._holder.close()

    def add(self, kind: str, id: str, owner: str = "", *, due: float = 0.0) -> None:
        """Asks for a piece of work, within the caller's transaction. One that is under way will be done once more.

        Args:
            kind: what is to be done.
            id: to what.
            owner: whose that is.
            due: not before this time, in seconds since 1970.
        """
        with self.store.transaction():
            old = self.store.get(_KIND, f"{kind}/{id}")
            data = dict(old.data) if old else {"id": id, "owner": owner, "turn": 0}
            data |= {"due": due, "turn": data["turn"] + 1, "tries": 0}
            self.store.put(_KIND, f"{kind}/{id}", data, parent=kind)

    def claim(self, kind: str, most: int) -> list[Work]:
        """Takes up to `most` pieces that are due and that nobody holds, the oldest first."""
        taken: list[Work] = []
        after: str | None = None
        while True:
            page = self.store.list(_KIND, parent=kind, order="asc", limit=200, after=after)
            for record in page.records:
                if len(taken) == most:
                    return taken
                if self._is_free(record.data) and (work := self._take(record)):
                    taken.append(work)
            if not page.has_more:
                return taken
            after = page.records[-1].id

    def _take(self, seen: Record) -> Work | None:
        with self.store.transaction():
            record = self.store.get(_KIND, seen.id)
            if record is None or not self._is_free(record.data):
                return None
            self._hold(record)
            data = record.data
            return Work(record.parent, data["id"], data["owner"], data["turn"], data["tries"])

    def _hold(self, record: Record) -> None:
        held = {"holder": self._holder.to_json(), "until": time.time() + self.lease}
        self.store.put(_KIND, record.id, {**record.data, **held})

    def _is_free(self, data: Mapping[str, Any]) -> bool:
        now = time.time()
        holder = data.get("holder")
        return data["due"] <= now and (holder is None or data["until"] < now or Holder.is_gone(holder))

    def renew(self, works: Sequence[Work]) -> list[Work]:
        """Holds pieces longer; returns those that another worker took meanwhile."""
        lost = []
        with self.store.transaction():
            for work in works:
                if record := self._held(work):
                    self._hold(record)
                else:
                    lost.append(work)
        return lost

    def is_current(self, work: Work) -> bool:
        """Whether a piece is still held here and was not asked for again: within the transaction that ends it."""
        record = self._held(work)
        return record is not None and record.data["turn"] == work.turn

    def done(self, work: Work) -> None:
        """Ends a piece, within the caller's transaction; one that was asked for again goes back."""
        with self.store.transaction():
            if self.is_current(work):
                self.store.delete(_KIND, f"{work.kind}/{work.id}")
            else:
                self.release(work)

    def cancel(self, kind: str, id: str) -> None:
        """Takes back what was asked for, where the caller has done it."""
        self.store.delete(_KIND, f"{kind}/{id}")

    def release(self, work: Work, *, due: float | None = None, failed: bool = False) -> None:
        """Gives a piece back, to be done by anyone."""
        with self.store.transaction():
            if record := self._held(work):
                data = {**record.data, "holder": None, "tries": record.data["tries"] + failed}
                # One that was asked for again is wanted now, whatever became of the try before.
                if due is not None and data["turn"] == work.turn:
                    data["due"] = due
                self.store.put(_KIND, record.id, data)

    def _held(self, work: Work) -> Record | None:
        record = self.store.get(_KIND, f"{work.kind}/{work.id}")
        holder = record.data.get("holder") if record else None
        return record if holder and holder["token"] == self._holder.token else None
