"""Files within a message: their text, which is read once and kept with the item, for models read text alone.

A file comes as data in the message or by the id of an upload of the same owner. Left out: files at a URL. The server
fetches nothing that a request names; the model is told that the file was not read.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from puna.base.errors import PunaError
from puna.stack.context import Stack
from puna.stack.errors import ApiError, as_api_error, invalid, not_found
from puna.stack.responses.items import Item
from puna.stack.state.parts import uploads_of
from puna.stack.state.store import run


async def read_attachments(stack: Stack, owner: str, items: Sequence[Item]) -> None:
    """Puts the text of every attached file into its part, under "_text".

    Raises:
        ApiError: 404 for an unknown file, 400 for one that cannot be read.
    """
    for place, part in _files(items):
        if "file_id" in part:
            part["_text"] = await run(partial(_uploaded, stack, owner, part, place))
        elif "file_data" in part:
            part["_text"] = await run(partial(_inline, part, place))


def _files(items: Sequence[Item]) -> Iterator[tuple[str, dict[str, Any]]]:
    for i, item in enumerate(items):
        name = "content" if item["type"] == "message" else "output"
        parts = item.get(name)
        for k, part in enumerate(parts if isinstance(parts, list) else ()):
            if part["type"] == "input_file":
                yield f"input.{i}.{name}.{k}", part


def _uploaded(stack: Stack, owner: str, part: dict[str, Any], place: str) -> str:
    id = part["file_id"]
    record = uploads_of(stack).find(owner, id)
    if record is None:
        raise not_found("file", id, f"{place}.file_id")
    return _read(stack.files.read(id), str(record.data.get("filename") or id), place)


def _inline(part: dict[str, Any], place: str) -> str:
    data = part["file_data"]
    head, comma, body = data.partition(",")
    kind = head if comma and head.startswith("data:") else ""
    try:
        content = base64.b64decode(body if kind else data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise invalid(f"The file's data is not base64: {error}.", f"{place}.file_data") from error
    named = part.get("filename") or ("file.pdf" if "pdf" in kind or content[:5] == b"%PDF-" else "file.txt")
    return _read(content, named, place)


def _read(content: bytes, name: str, place: str) -> str:
    # Imported here: the readers are not needed by a server that is never sent a file.
    from puna.data.readers.reader import ReadConfig
    from puna.data.readers.registry import readers_by_suffix, suffix_of

    readers = readers_by_suffix()
    reader = readers.get(suffix_of(name)) or readers[".txt"]
    try:
        document = reader.read(content, name, ReadConfig())
    except PunaError as error:
        if str(error) == "empty":
            return f"[The file {name} holds no text.]"
        refusal = as_api_error(error)
        raise ApiError(
            refusal.status, f"The file {name!r} cannot be read: {refusal.message}", param=place, code="invalid_file"
        ) from error
    return f"[File {name}]\n{document.text}\n[End of file {name}]\n"
