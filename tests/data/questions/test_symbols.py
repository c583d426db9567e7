"""Definitions and the names they are asked for by."""

from __future__ import annotations

from puna.data.questions.symbols import symbols

TEXT = """
import functools

try:
    def early(): pass
except ImportError:
    pass

class A:
    @property
    def size(self): ...
    @functools.cached_property
    def cached(self): ...
    def _hidden(self): ...
    def __len__(self): ...
    class Inner:
        def go(self):
            def local(): ...

async def run(): ...
"""


def test_names_kinds_and_privacy(document):
    found = symbols(document(TEXT))
    assert found is not None
    assert [(symbol.name, symbol.kind, symbol.private) for symbol in found[1]] == [
        ("early", "function", False),
        ("A", "class", False),
        ("A.size", "property", False),
        ("A.cached", "property", False),
        ("A._hidden", "method", True),
        ("A.__len__", "method", False),
        ("A.Inner", "class", False),
        ("A.Inner.go", "method", False),
        ("run", "function", False),
    ]
    size = next(symbol for symbol in found[1] if symbol.name == "A.size")
    assert TEXT[size.start :].startswith("    @property")
    assert size.owner == "A"


def test_what_is_not_python_has_none(document):
    assert symbols(document("# A\n", "markdown")) is None
    assert symbols(document("def broken(:\n")) is None
