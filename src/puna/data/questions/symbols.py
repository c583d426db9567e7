"""The functions, methods and classes of a Python module, with the names by which they are asked for."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from puna.core.document import Document
from puna.knowledge.structure import python
from puna.knowledge.structure.python import Source


@dataclass(frozen=True, slots=True)
class Symbol:
    """A definition.

    Attributes:
        node: its syntax.
        name: as it is asked for: "copyfile", "Path.exists".
        owner: the class it is defined in; "" for none.
        start: where its line, or that of its first decorator, begins.
        private: a part of its name begins with an underscore.
    """

    node: python.Definition
    name: str
    owner: str
    start: int
    private: bool

    @property
    def is_class(self) -> bool:
        return isinstance(self.node, ast.ClassDef)

    @property
    def kind(self) -> str:
        """The kind of a question about what it does."""
        if self.is_class:
            return "class"
        if not self.owner:
            return "function"
        decorators = {ast.unparse(decorator).split(".")[-1] for decorator in self.node.decorator_list}
        return "property" if decorators & {"property", "cached_property", "abstractproperty"} else "method"


@lru_cache(maxsize=4)
def _of_text(text: str) -> tuple[Source, tuple[Symbol, ...]] | None:
    source = python.parse(text)
    return None if source is None else (source, tuple(_symbols(source, source.tree.body, "")))


def symbols(document: Document) -> tuple[Source, tuple[Symbol, ...]] | None:
    """The parsed source and its definitions in order, without those inside functions; None where it is not Python."""
    return _of_text(document.text) if document.meta.get("kind") == "python" else None


def _symbols(source: Source, body: Sequence[ast.stmt], owner: str) -> Iterator[Symbol]:
    for node in body:
        if isinstance(node, python.DEFINITIONS):
            name = f"{owner}.{node.name}" if owner else node.name
            private = any(part.startswith("_") and not part.endswith("__") for part in name.split("."))
            yield Symbol(node, name, owner, source.line_start(python.first_line(node)), private)
            if isinstance(node, ast.ClassDef):
                yield from _symbols(source, node.body, name)
        elif isinstance(node, (ast.If, ast.Try, ast.With)):
            for field in ("body", "orelse", "finalbody"):
                yield from _symbols(source, getattr(node, field, []), owner)
