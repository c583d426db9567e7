"""What the head of a definition says: parameters, defaults, the annotated result, base classes."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from puna.core.document import Document
from puna.data.questions.fact import Fact, is_answer
from puna.data.questions.symbols import Symbol, symbols
from puna.knowledge.structure import python
from puna.knowledge.structure.python import Source

_SELF = re.compile(r"\s*(?:self|cls|mcs|mcls|metacls)\s*(?:,\s*(?:/\s*(?:,\s*)?)?|$)")
_LONGEST_DEFAULT = 80


def find(document: Document) -> Iterator[Fact]:
    found = symbols(document)
    if found is None:
        return
    source, all_symbols = found
    module = python.module_name(document)
    for symbol in all_symbols:
        start = source.start(symbol.node)
        for kind, slots, span in _facts(source, symbol):
            if is_answer(source.text[span[0] : span[1]]):
                names = {"name": _asked_name(symbol), "module": module, **slots}
                yield Fact(kind, names, *span, (start, span[1]), symbol.name, symbol.private)


def _asked_name(symbol: Symbol) -> str:
    """A class is what one calls, and not its `__init__`."""
    return symbol.owner if symbol.node.name == "__init__" and symbol.owner else symbol.name


_Found = tuple[str, dict[str, str], tuple[int, int]]


def _facts(source: Source, symbol: Symbol) -> Iterator[_Found]:
    node = symbol.node
    if isinstance(node, ast.ClassDef):
        bases = [base for base in node.bases if not (isinstance(base, ast.Name) and base.id == "object")]
        if bases:
            yield "base" if len(bases) == 1 else "bases", {}, (source.start(bases[0]), source.end(bases[-1]))
        return
    if span := _parameters(source, node, bool(symbol.owner)):
        yield "parameters", {}, span
    if symbol.kind == "property":
        return
    for argument, default in _defaults(node.args):
        span = source.start(default), source.end(default)
        if span[1] - span[0] <= _LONGEST_DEFAULT:
            yield "default", {"parameter": argument.arg}, span
    if node.returns is not None and not isinstance(node.returns, ast.Constant):
        yield "return_type", {}, (source.start(node.returns), source.end(node.returns))


def _parameters(source: Source, node: ast.FunctionDef | ast.AsyncFunctionDef, method: bool) -> tuple[int, int] | None:
    """The text between the parentheses, without a method's first parameter; None where there is nothing else."""
    arguments = node.args
    parts: list[ast.arg | ast.expr] = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    parts += [part for part in (arguments.vararg, arguments.kwarg) if part is not None]
    if not parts:
        return None
    parts += [part for part in (*arguments.defaults, *arguments.kw_defaults) if part is not None]
    parts += [part.annotation for part in parts if isinstance(part, ast.arg) and part.annotation is not None]
    opening = source.text.find("(", source.start(node)) + 1
    closing = source.text.find(")", max(source.end(part) for part in parts))
    inside = source.text[opening:closing]
    if method and (first := _SELF.match(inside)):
        opening += first.end()
    inside = source.text[opening:closing]
    start = opening + len(inside) - len(inside.lstrip())
    end = start + len(inside.strip().rstrip(",").rstrip())
    return (start, end) if start < end else None


def _defaults(arguments: ast.arguments) -> Iterator[tuple[ast.arg, ast.expr]]:
    positional = [*arguments.posonlyargs, *arguments.args]
    if arguments.defaults:
        yield from zip(positional[-len(arguments.defaults) :], arguments.defaults, strict=True)
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        if default is not None:
            yield argument, default
