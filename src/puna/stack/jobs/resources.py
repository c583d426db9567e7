"""Resources that clients name themselves: shields, scoring functions, benchmarks, datasets, tool groups.

A name is unique for its owner alone: two owners may both call something "mine" and see nothing of each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from puna.stack.context import Stack
from puna.stack.errors import invalid, not_found
from puna.stack.state.store import every, run

_LONGEST_NAME = 256


def key(owner: str, id: str) -> str:
    """The record's id of what an owner calls `id`."""
    return f"{owner}\x1f{id}" if owner else id


class Resources:
    """The registered resources of one kind.

    Args:
        stack: whose store keeps them.
        kind: such as "shield"; the records' kind, and in messages.
        built_in: what is there for everyone, by identifier.
    """

    def __init__(self, stack: Stack, kind: str, built_in: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        self._store, self.kind = stack.store, kind
        self.built_in = {id: dict(data) for id, data in (built_in or {}).items()}

    async def list(self, owner: str) -> list[dict[str, Any]]:
        mine = await run(lambda: [dict(record.data) for record in every(self._store, self.kind, owner)])
        return [*self.built_in.values(), *mine]

    async def get(self, owner: str, id: str, param: str | None = None) -> dict[str, Any]:
        if id in self.built_in:
            return self.built_in[id]
        record = await run(self._store.get, self.kind, key(owner, id), owner)
        if record is None:
            raise not_found(self.kind.replace("_", " "), id, param)
        return dict(record.data)

    async def register(self, owner: str, id: str, data: Mapping[str, Any]) -> dict[str, Any]:
        """Writes a resource; one that the owner has under this name is replaced."""
        self.check_name(id)
        await run(self._store.put, self.kind, key(owner, id), data, owner=owner)
        return dict(data)

    async def delete(self, owner: str, id: str) -> None:
        if id in self.built_in:
            raise invalid(f"The {self.kind.replace('_', ' ')} {id!r} is built in, and stays.")
        if not await run(self._store.delete, self.kind, key(owner, id), owner):
            raise not_found(self.kind.replace("_", " "), id)

    def check_name(self, id: str) -> None:
        what = self.kind.replace("_", " ")
        if not id.strip() or len(id) > _LONGEST_NAME or not id.isprintable():
            raise invalid(f"{id[:40]!r} cannot name a {what}: give 1 to {_LONGEST_NAME} printable characters.")
        if id in self.built_in:
            raise invalid(f"The {what} {id!r} is built in; choose another name.")
