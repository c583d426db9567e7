"""Vector stores, their files and batches as OpenAI shows them, from the records that are kept of them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from puna.stack.state.store import Record

STATES = ("in_progress", "completed", "failed", "cancelled")
CHARS_PER_TOKEN = 4  # passages are measured in characters here, and in tokens on the wire
_DAY = 86_400


def no_counts() -> dict[str, int]:
    return {**dict.fromkeys(STATES, 0), "total": 0}


def moved(counts: Mapping[str, int], old: str | None, new: str | None) -> dict[str, int]:
    """Counts after a file went from one state to another; None is outside."""
    after = dict(counts)
    if old:
        after[old] -= 1
    if new:
        after[new] += 1
    return {**after, "total": sum(after[state] for state in STATES)}


def expires_at(data: Mapping[str, Any]) -> int | None:
    """When a store expires, if nobody uses it until then."""
    return data["last_active_at"] + data["expires_after"]["days"] * _DAY if data["expires_after"] else None


def is_expired(data: Mapping[str, Any]) -> bool:
    return data["expired"] or (expires_at(data) or float("inf")) <= time.time()


def store_object(record: Record) -> dict[str, Any]:
    data = record.data
    status = "expired" if is_expired(data) else "in_progress" if data["counts"]["in_progress"] else "completed"
    return {
        "id": record.id,
        "object": "vector_store",
        "created_at": int(record.created),
        "name": data["name"],
        "description": data["description"],
        "usage_bytes": data["usage_bytes"],
        "file_counts": data["counts"],
        "status": status,
        "expires_after": data["expires_after"],
        "expires_at": expires_at(data),
        "last_active_at": data["last_active_at"],
        "metadata": data["metadata"],
        "embedding_model": data["embedding_model"] or None,
    }


def file_object(record: Record) -> dict[str, Any]:
    data = record.data
    chars, overlap = data["chunking"]
    static = {
        "max_chunk_size_tokens": chars // CHARS_PER_TOKEN,
        "chunk_overlap_tokens": overlap // CHARS_PER_TOKEN,
    }
    return {
        "id": data["file_id"],
        "object": "vector_store.file",
        "created_at": int(record.created),
        "vector_store_id": record.parent,
        "status": data["status"],
        "last_error": data["last_error"],
        "usage_bytes": data["usage_bytes"],
        "attributes": data["attributes"],
        "chunking_strategy": {"type": "static", "static": static},
    }


def batch_object(record: Record) -> dict[str, Any]:
    counts = record.data["counts"]
    if record.data["cancelled"]:
        status = "cancelled"
    elif counts["in_progress"]:
        status = "in_progress"
    else:
        status = "failed" if counts["total"] and counts["failed"] == counts["total"] else "completed"
    return {
        "id": record.id,
        "object": "vector_store.files_batch",
        "created_at": int(record.created),
        "vector_store_id": record.parent,
        "status": status,
        "file_counts": counts,
    }
