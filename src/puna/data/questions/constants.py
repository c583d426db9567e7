"""Values of constants, and what a comment beside a name says it is for."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator, Sequence

from puna.core.document import Document
from puna.data.questions.fact import Fact, is_answer, is_sentence, says_more
from puna.data.questions.symbols import symbols
from puna.knowledge.structure import python
from puna.knowledge.structure.python import Source

_LONGEST_VALUE = 80
_REMARK = re.compile(r"[ \t]*#+:?[ \t]*(?P<text>[^\n#]*[^\s#])[ \t]*$")
_SPOKEN = frozenset(("__version__", "__author__", "__date__", "__license__", "__email__"))
_NOT_A_REMARK = re.compile(  # for tools, for the next programmer, or about the line and not about the name
    r"type:|noqa|pragma|pylint|mypy|fmt:|isort|[-=*~]{3,}|>>>|see |ditto|same|unused|used (?:by|in)|needs?\b|needed"
    r"|initiali[sz]ed|overrid|assigned|set (?:in|by|below|to)|will be|to be|make |.*\?$",
    re.IGNORECASE,
)


def find(document: Document) -> Iterator[Fact]:
    found = symbols(document)
    if found is None:
        return
    source, all_symbols = found
    module = python.module_name(document)
    yield from _scope(source, source.tree.body, "", module, 0)
    for symbol in all_symbols:
        if isinstance(symbol.node, ast.ClassDef):
            yield from _scope(source, symbol.node.body, symbol.name, module, source.start(symbol.node))
        elif symbol.node.name == "__init__" and symbol.owner:
            yield from _remarks(source, symbol.node.body, symbol.owner, module)


def _scope(source: Source, body: Sequence[ast.stmt], owner: str, module: str, start: int) -> Iterator[Fact]:
    """Constants that are assigned once in a module or a class."""
    assigned = [pair for pair in map(_assignment, body) if pair is not None]
    times = Counter(name for _, name, _ in assigned)
    for node, name, value in assigned:
        span = source.start(value), source.end(value)
        constant = name.isupper() or name in _SPOKEN or (owner and not name.startswith("_"))
        if times[name] > 1 or not constant or not _is_literal(value) or span[1] - span[0] > _LONGEST_VALUE:
            continue
        answer = source.text[span[0] : span[1]]
        if is_answer(answer) and answer.strip("'\"") != name:
            full = f"{owner}.{name}" if owner else name
            names = {"name": full, "module": module}
            private = name.startswith("_") and name not in _SPOKEN
            yield Fact("constant", names, *span, (source.start(node), span[1]), full, private)
    yield from _remarks(source, body, owner, module)


def _assignment(node: ast.stmt) -> tuple[ast.stmt, str, ast.expr] | None:
    if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
        return node, node.targets[0].id, node.value
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
        return node, node.target.id, node.value
    return None


def _is_literal(value: ast.expr) -> bool:
    """Numbers, strings, arithmetic on them, and short collections of them; True and None say too little."""
    if isinstance(value, ast.Constant):
        return value.value is not None and not isinstance(value.value, bool)
    if isinstance(value, (ast.Tuple, ast.List, ast.Set)):
        return bool(value.elts) and all(_is_literal(element) for element in value.elts)
    if isinstance(value, ast.UnaryOp):
        return _is_literal(value.operand)
    return isinstance(value, ast.BinOp) and _is_literal(value.left) and _is_literal(value.right)


def _remarks(source: Source, body: Sequence[ast.stmt], owner: str, module: str) -> Iterator[Fact]:
    """`name = value  # what it is`, also for `self.name` in an `__init__`."""
    for node in body:
        target = _target(node)
        if not target or node.lineno != node.end_lineno:
            continue
        end = source.end(node)
        line_end = source.line_start(node.lineno + 1)
        found = _REMARK.match(source.text, end, source.text.find("\n", end, line_end) if line_end > end else end)
        if not found or _NOT_A_REMARK.match(found["text"]) or _goes_on(source, node.lineno):
            continue
        text = found["text"]
        if is_sentence(text) and says_more(text, target) and text[0].isalpha() and ">" not in text:
            full = f"{owner}.{target}" if owner else target
            span = found.span("text")
            names = {"name": full, "module": module}
            yield Fact("remark", names, *span, (source.start(node), span[1]), full, target.startswith("_"))


def _target(node: ast.stmt) -> str:
    """The name, or the attribute of `self`, that a statement assigns to."""
    if isinstance(node, ast.Assign) and len(node.targets) == 1:
        target = node.targets[0]
    elif isinstance(node, ast.AnnAssign):
        target = node.target
    else:
        return ""
    if isinstance(target, ast.Name):
        return target.id
    if isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name) and target.value.id == "self":
        return target.attr
    return ""


def _goes_on(source: Source, line: int) -> bool:
    """Whether the next line is a comment too, so that the remark is cut off."""
    start = source.line_start(line + 1)
    return source.text[start : source.line_start(line + 2)].lstrip().startswith("#")
