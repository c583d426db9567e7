"""Python source as a syntax tree whose nodes know where they stand in the text.

`ast` counts columns in bytes of UTF-8 and lines from 1; everything here counts characters from 0.
"""

from __future__ import annotations

import ast
import warnings
from functools import lru_cache

from puna.core.document import Document

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


class Source:
    """A parsed text.

    Attributes:
        text: the source.
        tree: its module.
        starts: the offset of each line; one more for the end of the text.
    """

    def __init__(self, text: str, tree: ast.Module) -> None:
        self.text = text
        self.tree = tree
        self.starts = [0]
        for line in text.split("\n"):
            self.starts.append(self.starts[-1] + len(line) + 1)
        self.starts[-1] = len(text)

    def offset(self, line: int, column: int) -> int:
        """The character at a line (from 1) and a column (in bytes) as `ast` counts them."""
        start = self.starts[line - 1]
        ahead = self.text[start : start + column]
        return start + column if ahead.isascii() else start + self._decoded(line, column)

    def _decoded(self, line: int, column: int) -> int:
        text = self.text[self.starts[line - 1] : self.starts[line]]
        return len(text.encode()[:column].decode(errors="ignore"))

    def start(self, node: ast.expr | ast.stmt | ast.arg | ast.keyword) -> int:
        return self.offset(node.lineno, node.col_offset)

    def end(self, node: ast.expr | ast.stmt | ast.arg | ast.keyword) -> int:
        if node.end_lineno is None or node.end_col_offset is None:
            raise ValueError(f"a {type(node).__name__} without an end")
        return self.offset(node.end_lineno, node.end_col_offset)

    def line_start(self, line: int) -> int:
        """The offset of a line counted from 1; past the last line, the end of the text."""
        return self.starts[min(line, len(self.starts)) - 1]


def first_line(node: ast.stmt) -> int:
    """The line (from 1) of a statement's first decorator, or of the statement."""
    decorators = getattr(node, "decorator_list", [])
    return min([node.lineno, *(decorator.lineno for decorator in decorators)])


def docstring(node: ast.Module | Definition) -> ast.Constant | None:
    """The string that opens a module, a class or a function."""
    if node.body and isinstance(node.body[0], ast.Expr):
        value = node.body[0].value
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            return value
    return None


@lru_cache(maxsize=4)
def parse(text: str) -> Source | None:
    """The parsed text, or None where it is not Python that this interpreter reads (Python 2, a template)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a document's dubious escapes are not ours to report
        try:
            return Source(text, ast.parse(text))
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return None


def module_name(document: Document) -> str:
    """The dotted name that a source would be imported by, guessed from its path: `email/mime/text.py`."""
    parts = document.source.removesuffix(".py").removesuffix(".pyw").split("/")
    if parts[0] in ("src", "lib", "Lib") and len(parts) > 1:
        parts = parts[1:]
    if parts[-1] == "__init__" and len(parts) > 1:
        parts = parts[:-1]
    return ".".join(parts)
