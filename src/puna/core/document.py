"""`Document`: a text and where it came from. It flows from the readers to packing, and into the knowledge rooms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Document:
    """One text, as the readers found it.

    Attributes:
        text: the plain text. Every span that is cited later indexes into this string (in characters).
        id: stable name, unique within a corpus: a hash of the text.
        source: where the text came from: a path relative to the folder that was read, or a URL.
        language: ISO 639-1 code, or "" when nobody has looked.
        scores: what filters and classifiers said of it, by name.
        meta: what a reader knows beyond the text, such as `kind`; JSON values only.
    """

    text: str
    id: str
    source: str = ""
    language: str = ""
    scores: Mapping[str, float] = field(default_factory=dict)
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of a document, `text[start:end]` in characters: what an answer or a citation points at."""

    document_id: str
    start: int
    end: int
