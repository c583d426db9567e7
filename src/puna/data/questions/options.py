"""Options of command lines: `parser.add_argument("--port", help="...")` in Python, and lists of options in prose."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from puna.core.document import Document
from puna.data.questions.fact import Fact, is_sentence
from puna.data.questions.symbols import symbols
from puna.knowledge.structure.outline import outline
from puna.knowledge.structure.python import Source

_CALLS = frozenset(("add_argument", "add_option"))
_STRING = re.compile(r"[rRuU]?(\"|')(?P<text>[^\\\n%]*)\1$")
_FLAG = r"-{1,2}\w[\w-]*(?:[ =][<\[]?[\w.|-]+[>\]]?)?"
_LINE = re.compile(
    rf"^(?P<indent>[ \t]+)(?P<flags>{_FLAG}(?:, ?{_FLAG})*)(?:[ \t]{{2,}}|\t)(?P<text>\S.*)$", re.MULTILINE
)


def find(document: Document) -> Iterator[Fact]:
    found = symbols(document)
    if found is not None:
        yield from _calls(found[0])
    elif document.meta.get("kind") != "python":
        yield from _lists(document)


def _calls(source: Source) -> Iterator[Fact]:
    for node in ast.walk(source.tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute) or node.func.attr not in _CALLS:
            continue
        flags = [str(part.value) for part in node.args if isinstance(part, ast.Constant)]
        name = max((flag for flag in flags if flag.startswith("-")), key=len, default="")
        for keyword in node.keywords:
            if keyword.arg == "help" and name:
                start, end = source.start(keyword.value), source.end(keyword.value)
                text = _STRING.match(source.text, start, end)
                if text and is_sentence(text["text"]):
                    yield Fact("option", {"name": name}, *text.span("text"), (source.start(node), end), name)


def _lists(document: Document) -> Iterator[Fact]:
    """Lines such as `-v, --verbose   print more`, of which the next is not a continuation."""
    for block in outline(document):
        if block.kind not in ("other", "code", "paragraph"):
            continue
        first = document.text.rfind("\n", 0, block.start) + 1  # its indentation too
        for line in _LINE.finditer(document.text, first, block.end):
            following = document.text[line.end() + 1 : block.end].split("\n", 1)[0]
            indent = len(following) - len(following.lstrip())
            if following.strip() and indent > len(line["indent"]) + 2:
                continue
            if is_sentence(line["text"].strip()):
                name = max(re.findall(r"-{1,2}\w[\w-]*", line["flags"]), key=len)
                start = line.start("text")
                end = start + len(line["text"].strip())
                yield Fact("option", {"name": name}, start, end, (line.start("flags"), end), name)
