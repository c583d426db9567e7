"""What the finders of prose share: blocks with the heading they stand under, and headings as one would say them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from puna.core.document import Document
from puna.data.questions.fact import plain
from puna.data.questions.words import is_generic
from puna.knowledge.structure.block import Block
from puna.knowledge.structure.outline import outline

_NUMBER = re.compile(
    r"^(?:(?:chapter|section|part|appendix)\s+)?(?:\d+(?:\.\d+)*|[A-Z]|[ivx]+)(?:\.|\)|:|(?<=\d)(?=\s))\s*", re.I
)
_CODE_NAME = re.compile(
    r"--?[A-Za-z][\w-]*$"  # an option
    r"|<?[A-Za-z_$][\w$-]*>?(?:(?:\.|::|->)[A-Za-z_$][\w$]*)*\(\)$"  # a call
    r"|[A-Za-z_$][\w$]*(?:(?:\.|::|->)[A-Za-z_$][\w$]*)+$"  # a dotted name
    r"|(?=\w*_)[A-Za-z_]\w+$"  # an identifier with an underscore
    r"|[a-z]+[A-Z]\w*$|[A-Z][a-z]+[A-Z]\w*$"  # camel case
)
_CALL = re.compile(r"^((?:new )?[\w$.:<>-]+)\(.*\)$")
_LONGEST_NAME = 60
_CHANGES = re.compile(r"change ?log|^changes|release notes|what['’]?s new|notable changes|^news\b|^commits$", re.I)
_CHANGES_FILE = re.compile(r"(?:^|/)(?:change(?:s|logs?)|news\w*|history|whatsnew)(?:[._-][^/]*)?(?:/|$)", re.I)


@dataclass(frozen=True, slots=True)
class Place:
    """A block and the heading that it stands under; `first` where nothing but furniture is between them."""

    block: Block
    heading: Block | None
    title: str
    first: bool


@lru_cache(maxsize=4)
def _places(text: str, blocks: tuple[Block, ...]) -> tuple[Place, ...]:
    places = []
    heading: Block | None = None
    title = ""
    first = True
    changes: int | None = None  # the level of a heading of changes, below which everything is passed over
    for block in blocks:
        if block.kind == "heading":
            heading, title, first = block, spoken(text[block.start : block.end]), True
            if changes is None or block.level <= changes:
                changes = block.level if _CHANGES.search(title) else None
            continue
        if changes is not None:
            continue
        places.append(Place(block, heading, title, first and heading is not None))
        first = first and block.kind in ("comment", "other")
    return tuple(places)


def places(document: Document) -> tuple[Place, ...]:
    """Every block but the headings.

    None for Python source, whose structure is its syntax, and none of a list of changes: what it says of a thing is
    what happened to it once, and not what it is.
    """
    if document.meta.get("kind") == "python" or _CHANGES_FILE.search(document.source):
        return ()
    return _places(document.text, tuple(outline(document)))


def following(document: Document) -> Iterator[tuple[Place, Place | None]]:
    """Each place with the one after it."""
    all_places = places(document)
    yield from zip(all_places, [*all_places[1:], None], strict=False)


def spoken(heading: str) -> str:
    """A heading as one would say it: no number, no marks, no colon at its end."""
    heading = re.sub(r"\*\*|``?|\s+", lambda m: " " if m[0].isspace() else "", heading).strip()
    heading = re.sub(r"\s*(?:\{#[^}]*\}|#+)$", "", heading)
    return plain(_NUMBER.sub("", heading)).rstrip(" :.")


def code_name(heading: str) -> str:
    """The name that a heading or a term is, if it is one from a program: "fs.access" of "fs.access(path[, mode])"."""
    call = _CALL.match(heading)
    name = call[1] if call else heading
    if " " in name or not 3 <= len(name) <= _LONGEST_NAME:
        return ""
    return name if call or _CODE_NAME.match(name) else ""


def askable(heading: str) -> bool:
    """Whether one can ask for a heading by its words."""
    return (
        3 <= len(heading) <= _LONGEST_NAME
        and not is_generic(heading)
        and heading[0].isalnum()
        and not re.search(r"[<>{}\[\]|=;@#\\/]|https?:|\d{4}-\d\d|\bv?\d+\.\d+", heading)
    )
