"""The exception that a function raises, where its body names exactly one."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from puna.core.document import Document
from puna.data.questions.fact import Fact, is_answer
from puna.data.questions.symbols import symbols
from puna.knowledge.structure import python


def find(document: Document) -> Iterator[Fact]:
    found = symbols(document)
    if found is None:
        return
    source, all_symbols = found
    module = python.module_name(document)
    for symbol in all_symbols:
        raised = None if symbol.is_class else _only_exception(symbol.node)
        if raised is None:
            continue
        start, end = source.start(raised), source.end(raised)
        if is_answer(source.text[start:end]):
            scope = (source.start(symbol.node), source.end(symbol.node))
            names = {"name": symbol.name, "module": module}
            yield Fact("raises", names, start, end, scope, symbol.name, symbol.private)


def _only_exception(function: ast.stmt) -> ast.expr | None:
    """The class in the function's raise statements, if all name one; a bare `raise` could raise anything."""
    raised: dict[str, ast.expr] = {}
    stack = list(ast.iter_child_nodes(function))
    while stack:
        node = stack.pop()
        if isinstance(node, ast.Raise):
            called = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
            if called is None or not ast.unparse(called).split(".")[-1][0].isupper():
                return None
            raised.setdefault(ast.unparse(called), called)
        if not isinstance(node, (*python.DEFINITIONS, ast.Lambda)):
            stack.extend(ast.iter_child_nodes(node))
    return next(iter(raised.values())) if len(raised) == 1 else None
