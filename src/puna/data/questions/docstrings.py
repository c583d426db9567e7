"""What functions, classes and modules do, by the first sentence of their docstrings; and the way back, to the name."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from puna.core.document import Document
from puna.data.questions.fact import Fact, is_sentence, says_more
from puna.data.questions.sentence import first_sentence
from puna.data.questions.symbols import Symbol, symbols
from puna.data.questions.words import as_deed
from puna.knowledge.structure import python
from puna.knowledge.structure.python import Source

_OPENING = re.compile(r"([rRuU]*)(\"\"\"|'''|\"|')")
_SIGNATURE = re.compile(r"[\w.]+\(|.*(?:->|<==>|=>)|\w+\(")
_LONGEST_DEED = 90


def find(document: Document) -> Iterator[Fact]:
    found = symbols(document)
    if found is None:
        return
    source, all_symbols = found
    module = python.module_name(document)
    yield from _module(source, module)
    for symbol in all_symbols:
        span = _summary(source, symbol.node, symbol.name)
        if span is None:
            continue
        start, end = span
        sentence = source.text[start:end]
        scope = (source.start(symbol.node), end)
        names = {"name": symbol.name, "module": module}
        yield Fact(symbol.kind, names, start, end, scope, symbol.name, symbol.private)
        if symbol.kind in ("function", "method") and re.match(r"Returns? (?!or\b|and\b|from\b|to\b)", sentence):
            yield Fact("returns", names, start, end, scope, symbol.name, symbol.private)
        yield from _way_back(source, symbol, sentence, scope)


def content(source: Source, node: ast.Module | python.Definition) -> tuple[int, int] | None:
    """(start, end) of a docstring without its quotes; None where the source text is not what the string says."""
    string = python.docstring(node)
    if string is None:
        return None
    start, end = source.start(string), source.end(string)
    opening = _OPENING.match(source.text, start, end)
    if opening is None or not source.text.endswith(opening[2], start, end):
        return None
    start, end = opening.end(), end - len(opening[2])
    inner = source.text[start:end]
    if opening[2] in inner or ("\\" in inner and "r" not in opening[1].lower()):
        return None
    return start, end


def _summary(source: Source, node: ast.Module | python.Definition, name: str) -> tuple[int, int] | None:
    """The first sentence of a docstring, if it is one, and tells something."""
    inside = content(source, node)
    span = first_sentence(source.text, *inside) if inside else None
    if span is None:
        return None
    if own := re.match(
        rf"(?:{re.escape(name)}|{re.escape(name.split('.')[-1])})(?:\.py)?(?: +-{{1,2}}|:) +", source.text[slice(*span)]
    ):
        span = span[0] + own.end(), span[1]  # "plistlib.py -- a tool to ..."
    sentence = source.text[span[0] : span[1]]
    if not is_sentence(sentence) or _SIGNATURE.match(sentence) or not says_more(sentence, name):
        return None
    return span


def _module(source: Source, module: str) -> Iterator[Fact]:
    span = _summary(source, source.tree, module)
    if span is not None and module:
        yield Fact("module", {"name": module}, *span, (span[0], span[1]), module)


def _states(sentence: str) -> bool:
    """Whether a sentence says that something is so ("A requested option was not found"), and names no thing."""
    head = re.split(r"\b(?:that|which|who|whose|where|when|if|for)\b", sentence)[0]
    return re.search(r"\b(?:is|was|are|were|does|did|has|have|can|cannot|will)\b|n't\b", head) is not None


def _way_back(source: Source, symbol: Symbol, sentence: str, scope: tuple[int, int]) -> Iterator[Fact]:
    """Which function does this? The answer is its name where it is defined."""
    bare = symbol.node.name
    if bare.startswith("_") or len(sentence) > _LONGEST_DEED or bare.casefold() in sentence.casefold():
        return
    at = source.text.find(bare, scope[0] + 4)
    place = (at, at + len(bare), scope)
    if symbol.kind in ("function", "method"):
        if deed := as_deed(sentence):
            names = {"noun": symbol.kind, "task": deed}
            yield Fact("which_function", names, *place, private=symbol.private)
    elif symbol.is_class and re.match(r"(?:An?|The|Base class) \w", sentence) and not _states(sentence):
        article = "the " if sentence.startswith("Base") else ""
        task = article + sentence[0].lower() + sentence[1:].rstrip(".")
        yield Fact("which_class", {"task": task}, *place, private=symbol.private)
