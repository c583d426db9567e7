"""Datasets: rows that were sent, or read from an uploaded file, kept one record each so that pages cost what they hold.

A URI names what this server may read: "data:..." is the rows themselves, "puna://files/ID" (or a file's id alone) an
uploaded file, and "file:..." a path below the folder that the server's owner opened for it; there is none by default,
for a client must not read a server's disk. Addresses on the network answer 501: nothing here fetches them safely yet.
"""

from __future__ import annotations

import base64
import csv
import io
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from puna.base.files import safe_join
from puna.stack.context import Stack
from puna.stack.errors import ApiError, invalid, not_found, not_implemented
from puna.stack.jobs.resources import Resources, key
from puna.stack.state.store import every, run

_ROW = "dataset_row"


class Datasets:
    """Args:
    stack: the server's parts.
    folder: whose files "file:" URIs may name; None for none.
    """

    def __init__(self, stack: Stack, folder: Path | None = None) -> None:
        self._stack, self._folder = stack, folder
        self._resources = Resources(stack, "dataset")

    async def register(
        self, owner: str, id: str, purpose: str, source: Mapping[str, Any], metadata: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Keeps a dataset; one of this name is replaced with its rows."""
        self._resources.check_name(id)
        rows = await self._read(owner, source)
        shown = {"type": "rows", "rows": []} if "rows" in source else {"type": "uri", "uri": _short(source["uri"])}
        data = {
            "identifier": id,
            "provider_id": "puna",
            "provider_resource_id": id,
            "type": "dataset",
            "purpose": purpose,
            "source": shown,
            "metadata": dict(metadata),
            "created_at": time.time(),
            "row_count": 0,
        }

        def write() -> None:
            store = self._stack.store
            with store.transaction():
                store.delete_children(_ROW, key(owner, id), owner)
                store.put("dataset", key(owner, id), data, owner=owner)
                self._add(owner, id, data, rows)

        await run(write)
        return data

    async def list(self, owner: str) -> list[dict[str, Any]]:
        return await self._resources.list(owner)

    async def get(self, owner: str, id: str) -> dict[str, Any]:
        return await self._resources.get(owner, id, "dataset_id")

    async def delete(self, owner: str, id: str) -> None:
        def erase() -> bool:
            with self._stack.store.transaction():
                self._stack.store.delete_children(_ROW, key(owner, id), owner)
                return self._stack.store.delete("dataset", key(owner, id), owner)

        if not await run(erase):
            raise not_found("dataset", id)

    async def append(self, owner: str, id: str, rows: Sequence[Mapping[str, Any]]) -> None:
        def write() -> None:
            store = self._stack.store
            with store.transaction():  # read within, so that two appends cannot take the same numbers
                record = store.get("dataset", key(owner, id), owner)
                if record is None:
                    raise not_found("dataset", id, "dataset_id")
                self._add(owner, id, dict(record.data), rows)

        await run(write)

    def _add(self, owner: str, id: str, data: dict[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
        store, first = self._stack.store, data["row_count"]
        for number, row in enumerate(rows, first):
            store.insert(_ROW, _row_id(owner, id, number), row, owner=owner, parent=key(owner, id))
        data["row_count"] = first + len(rows)
        store.put("dataset", key(owner, id), data, owner=owner)

    async def page(self, owner: str, id: str, start: int, limit: int) -> tuple[list[dict[str, Any]], bool]:
        """Rows from a number on, and whether more follow."""
        count = (await self.get(owner, id))["row_count"]
        if start >= count:
            return [], False
        after = _row_id(owner, id, start - 1) if start else None
        page = await run(
            lambda: self._stack.store.list(_ROW, owner, parent=key(owner, id), after=after, limit=limit, order="asc")
        )
        return [dict(record.data) for record in page.records], page.has_more

    async def rows(self, owner: str, id: str, limit: int | None = None) -> list[dict[str, Any]]:
        """All rows, or the first `limit`."""
        await self.get(owner, id)

        def read() -> list[dict[str, Any]]:
            found = []
            for record in every(self._stack.store, _ROW, owner, key(owner, id)):
                if limit is not None and len(found) >= limit:
                    break
                found.append(dict(record.data))
            return found

        return await run(read)

    async def _read(self, owner: str, source: Mapping[str, Any]) -> list[dict[str, Any]]:
        if "rows" in source:
            return [_row(row, number) for number, row in enumerate(source["rows"], 1)]
        name, content = await run(self._content, owner, source["uri"])
        return list(parse(content, name))

    def _content(self, owner: str, uri: str) -> tuple[str, bytes]:
        """The name and bytes of what a URI stands for."""
        parts = urlsplit(uri)
        if parts.scheme == "data":
            return _data_uri(uri)
        if parts.scheme in ("", "puna"):
            id = uri.rpartition("/")[2]
            record = self._stack.store.get("file", id, owner)
            if record is None:
                raise not_found("file", id, "source.uri")
            return record.data.get("filename", id), self._stack.files.read(id)
        if parts.scheme == "file":
            if self._folder is None:
                message = (
                    "This server opens none of its own files to datasets: upload the file, and give puna://files/ID."
                )
                raise ApiError(403, message, param="source.uri", code="forbidden")
            path = safe_join(self._folder, unquote(parts.path).removeprefix(str(self._folder)).lstrip("/"))
            if not path.is_file():
                raise not_found("file", path.name, "source.uri")
            return path.name, path.read_bytes()
        raise not_implemented(f"Nothing here reads {parts.scheme}: addresses yet; upload the file, or send its rows.")


def _row_id(owner: str, id: str, number: int) -> str:
    return f"{key(owner, id)}\x1f{number}"


def _short(uri: str) -> str:
    return uri if len(uri) <= 200 else f"{uri[:200]}..."


def _row(row: Any, number: int) -> dict[str, Any]:
    if not isinstance(row, Mapping):
        raise invalid(f"Row {number} is no object.", "source")
    return dict(row)


def _data_uri(uri: str) -> tuple[str, bytes]:
    head, comma, body = uri.removeprefix("data:").partition(",")
    if not comma:
        raise invalid("A data: URI needs a comma before its data.", "source.uri")
    try:
        content = base64.b64decode(body, validate=True) if head.endswith(";base64") else unquote(body).encode()
    except ValueError as error:
        raise invalid(f"The data: URI is not base64: {error}.", "source.uri") from error
    return "rows.csv" if "csv" in head else "rows.jsonl", content


def parse(content: bytes, name: str) -> Iterator[dict[str, Any]]:
    """The rows of a CSV file, of a JSON array, or of JSON lines."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise invalid(f"{name} is not UTF-8: {error}.", "source.uri") from error
    if name.lower().endswith(".csv"):
        yield from csv.DictReader(io.StringIO(text))
        return
    if text.lstrip().startswith("["):
        rows = _json(text, name, 1)
        yield from (_row(row, number) for number, row in enumerate(rows, 1))
        return
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            yield _row(_json(line, name, number), number)


def _json(text: str, name: str, line: int) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise invalid(f"{name}, line {line}, is not JSON: {error}.", "source.uri") from error
