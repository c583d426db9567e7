"""One generic registry: built-ins and plugins are found the same way.

A registry is bound to an entry-point group such as `puna.tasks`; another package extends Puna by naming an object in
that group of its own metadata. An unknown name answers with the known ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import metadata
from typing import Generic, TypeVar

from puna.base.errors import ConfigError, near

T = TypeVar("T")


class Registry(Generic[T]):
    """Names to objects of one kind.

    Args:
        kind: what the objects are, for messages: "optimizer".
        group: entry-point group that other packages may add to; "" for none.
    """

    def __init__(self, kind: str, group: str = "") -> None:
        self.kind = kind
        self.group = group
        self._objects: dict[str, T] = {}

    def add(self, name: str, item: T) -> T:
        """Registers `item`; two objects cannot have one name."""
        if name in self._objects and self._objects[name] is not item:
            raise ConfigError(f"Two objects are registered as {self.kind} {name!r}.")
        self._objects[name] = item
        return item

    def get(self, name: str) -> T:
        if name in self._objects:
            return self._objects[name]
        for point in self._entry_points():
            if point.name == name:
                return self.add(name, point.load())
        raise ConfigError(f"There is no {self.kind} {name!r}.", hint=near(name, self.names()))

    def names(self) -> list[str]:
        return sorted({*self._objects, *(point.name for point in self._entry_points())})

    def __contains__(self, name: str) -> bool:
        return name in self.names()

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def _entry_points(self) -> metadata.EntryPoints:
        return metadata.entry_points(group=self.group) if self.group else metadata.EntryPoints()
