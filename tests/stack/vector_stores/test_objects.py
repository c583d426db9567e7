"""Counts, states and expiry as they are shown."""

from __future__ import annotations

import time
from typing import Any

import pytest

from puna.stack.state.store import Record
from puna.stack.vector_stores.objects import batch_object, is_expired, moved, no_counts, store_object
from puna.stack.wire.vector_stores import FileBatch, VectorStore

DAY = 86_400


def store(**changes: Any) -> Record:
    data = {
        "name": "a", "description": None, "metadata": {}, "expires_after": None, "last_active_at": int(time.time()),
        "expired": False, "counts": no_counts(), "usage_bytes": 0, "embedding_model": "",
    }  # fmt: skip
    return Record("vector_store", "vs_1", "", "", 1.0, 1, {**data, **changes})


def test_counts_follow_a_file() -> None:
    counts = moved(no_counts(), None, "in_progress")
    assert (counts["in_progress"], counts["total"]) == (1, 1)
    counts = moved(counts, "in_progress", "completed")
    assert (counts["in_progress"], counts["completed"], counts["total"]) == (0, 1, 1)
    assert moved(counts, "completed", None) == no_counts()


def test_a_store_object_is_a_vector_store() -> None:
    shown = VectorStore.model_validate(store_object(store()))
    assert (shown.status, shown.expires_at) == ("completed", None)
    busy = store(counts=moved(no_counts(), None, "in_progress"))
    assert store_object(busy)["status"] == "in_progress"


def test_expiry_counts_from_the_last_use() -> None:
    after = {"anchor": "last_active_at", "days": 1}
    fresh, old = store(expires_after=after), store(expires_after=after, last_active_at=int(time.time()) - DAY - 1)
    assert not is_expired(fresh.data)
    assert store_object(fresh)["expires_at"] == fresh.data["last_active_at"] + DAY
    assert store_object(old)["status"] == "expired"
    assert is_expired(store(expired=True).data)


@pytest.mark.parametrize(
    ("states", "cancelled", "status"),
    [
        (["in_progress", "completed"], False, "in_progress"),
        (["completed", "failed"], False, "completed"),
        (["failed", "failed"], False, "failed"),
        (["completed", "cancelled"], True, "cancelled"),
    ],
)
def test_a_batch_says_how_it_stands(states: list[str], cancelled: bool, status: str) -> None:
    counts = no_counts()
    for state in states:
        counts = moved(counts, None, state)
    record = Record("b", "vsfb_1", "", "vs_1", 1.0, 1, {"counts": counts, "cancelled": cancelled})
    assert FileBatch.model_validate(batch_object(record)).status == status
