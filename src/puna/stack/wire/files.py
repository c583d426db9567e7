"""Bodies of /v1/files."""

from __future__ import annotations

from typing import Literal

from puna.stack.wire.base import Wire

# What a caller may upload a file for; the server itself writes others, such as "batch_output".
UPLOAD_PURPOSES = ("assistants", "batch", "fine-tune", "vision", "user_data", "evals")


class ExpiresAfter(Wire):
    anchor: str
    seconds: int


class File(Wire):
    id: str
    object: Literal["file"]
    bytes: int
    created_at: int
    expires_at: int | None = None
    filename: str
    purpose: str
    status: Literal["uploaded", "processed", "error"]
    status_details: str | None = None


class FileList(Wire):
    object: Literal["list"]
    data: list[File]
    first_id: str
    last_id: str
    has_more: bool


class Deleted(Wire):
    """That something was deleted."""

    id: str
    object: str
    deleted: bool
