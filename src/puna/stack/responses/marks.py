"""Which responses are under way, and in which process: so that none stays "in progress" after its process is gone.

A response that is under way has a mark, a record of the server's own that names the process and bears a time until
which it holds. The process renews its marks; a mark whose time is over, or whose process is seen to be dead, tells that
nobody works on the response any more, and whoever sees that (another process, or this one when it starts again) marks
the response as failed. The same way a process is asked to cancel what runs in it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from puna.stack.responses import records
from puna.stack.state.holder import Holder
from puna.stack.state.store import Store, every

MARK, CANCEL = "response_run", "response_cancel"
UNDER_WAY = ("queued", "in_progress")
LEASE_SECONDS = 30.0
STOPPED = {"code": "server_error", "message": "The server stopped while this response was under way."}


class Marks:
    """The marks of one worker; all calls block.

    Attributes:
        running: the responses that it works on, id -> owner.
    """

    def __init__(self, store: Store) -> None:
        self.store, self._holder = store, Holder()
        self.running: dict[str, str] = {}

    def close(self) -> None:
        self._holder.close()

    def begin(self, owner: str, kept: records.Kept) -> None:
        """Writes a response that is about to run, with its mark."""
        with self.store.transaction():
            records.save(self.store, owner, kept)
            self.store.put(MARK, kept.id, self._data(owner))

    def end(self, owner: str, kept: records.Kept, whole: bool) -> None:
        """Writes a response at its end, and takes its mark away."""
        with self.store.transaction():
            records.finish(self.store, owner, kept, whole)
            self.store.delete(MARK, kept.id)
            self.store.delete(CANCEL, kept.id)

    def renew(self) -> list[str]:
        """Holds on to what this worker works on; returns what of it is to be cancelled."""
        with self.store.transaction():
            for id, owner in list(self.running.items()):
                if self.store.get(MARK, id):
                    self.store.put(MARK, id, self._data(owner))
        return self.cancelled()

    def cancelled(self) -> list[str]:
        return [id for id in list(self.running) if self.store.get(CANCEL, id)]

    def ask_to_cancel(self, id: str) -> None:
        self.store.insert(CANCEL, id, {})

    def recover(self) -> list[str]:
        """Marks as failed all responses whose process is gone; returns their ids."""
        marks = list(every(self.store, MARK, ""))
        return [mark.id for mark in marks if self._dead(mark.id, mark.data) and self._fail(mark.data["owner"], mark.id)]

    def load(self, owner: str, id: str, param: str | None = None) -> records.Kept:
        """A response, which has failed if nobody works on it any more.

        Raises:
            ApiError: 404.
        """
        kept = records.load(self.store, owner, id, param)
        if kept.response["status"] in UNDER_WAY:
            mark = self.store.get(MARK, id)
            if mark is None or self._dead(id, mark.data):
                self._fail(owner, id)
                kept = records.load(self.store, owner, id, param)
        return kept

    def _fail(self, owner: str, id: str) -> bool:
        with self.store.transaction():
            # Read again: it may have ended since its mark was seen.
            record = self.store.get(records.RESPONSE, id, owner)
            self.store.delete(MARK, id)
            self.store.delete(CANCEL, id)
            if record is None:
                return False
            kept = records.kept_of(record)
            if kept.response["status"] not in UNDER_WAY:
                return False
            kept.response.update(status="failed", error=STOPPED)
            records.save(self.store, owner, kept)
        return True

    def _dead(self, id: str, mark: Mapping[str, Any]) -> bool:
        holder = mark["holder"]
        if holder["token"] == self._holder.token:
            return id not in self.running
        return Holder.is_gone(holder) or (mark["until"] < time.time() and not Holder.is_here(holder))

    def _data(self, owner: str) -> dict[str, Any]:
        return {"owner": owner, "holder": self._holder.to_json(), "until": time.time() + LEASE_SECONDS}
