"""Citations: an answer's words, each with the place in a document where they stand.

A citation is made only where the words occur in the passage that was given to the model, so none of them can point at
something else: its text is copied from the document and not from the answer. Blanks and line breaks may differ, since
models write on one line what the document has on two; nothing else may. A word must occur as a word, not in one.
What an answer says in its own words gets no citation: whether a passage implies it is another question.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from puna.core.document import Document
from puna.knowledge.grounding import says_not_in_text
from puna.knowledge.search import Hit

_QUOTED = re.compile(r"`([^`\n]+)`|\"([^\"\n]+)\"|\u201c([^\u201d\n]+)\u201d|\u00ab([^\u00bb\n]+)\u00bb")
_SENTENCE = re.compile(r"[^\s](?:.*?[.!?](?=\s|$)|.*$)", re.MULTILINE)
_FEWEST_WORDS = 3  # of a sentence; less occurs by chance


@dataclass(frozen=True, slots=True)
class Citation:
    """Words of an answer and where they stand.

    Attributes:
        chunk_id: the passage.
        document_id: its document.
        source: that document's source.
        start: first character, counted in the document's text.
        end: one past the last.
        text: the document's text from `start` to `end`.
        answer_start: where the words begin in the answer.
        answer_end: one past their last character.
    """

    chunk_id: str
    document_id: str
    source: str
    start: int
    end: int
    text: str
    answer_start: int = 0
    answer_end: int = 0


def find(text: str, quote: str) -> tuple[int, int] | None:
    """Where a quotation first stands in a text; None where it does not, or where it is blank."""
    parts = quote.split()
    if not parts:
        return None
    pattern = r"\s+".join(map(re.escape, parts))
    before = r"(?<!\w)" if re.match(r"\w", parts[0]) else ""
    after = r"(?!\w)" if re.search(r"\w$", parts[-1]) else ""
    match = re.search(before + pattern + after, text)
    return match.span() if match else None


def quote(hit: Hit, words: str, answer_start: int = 0) -> Citation | None:
    """The citation for words that stand in a passage; None where they do not."""
    span = find(hit.text, words)
    if span is None:
        return None
    start, end = span
    return Citation(
        chunk_id=hit.chunk_id,
        document_id=hit.document_id,
        source=hit.source,
        start=hit.start + start,
        end=hit.start + end,
        text=hit.text[start:end],
        answer_start=answer_start,
        answer_end=answer_start + len(words),
    )


def cite(answer: str, hits: Sequence[Hit]) -> list[Citation]:
    """The citations of an answer: of the whole, else of its sentences, else of what it sets in quotation marks.

    Each comes from the first hit that holds it. "Not in the documents" has none.
    """
    if says_not_in_text(answer):
        return []
    citations: list[Citation] = []
    for start, end in _parts(answer):
        if any(one.answer_start < end and start < one.answer_end for one in citations):
            continue  # a larger part holds it
        made = (quote(hit, answer[start:end], start) for hit in hits)
        citations += [one for one in made if one is not None][:1]
    return sorted(citations, key=lambda one: one.answer_start)


def _parts(answer: str) -> Iterator[tuple[int, int]]:
    """What might be a quotation, larger parts first."""
    blank = len(answer) - len(answer.lstrip())
    whole = (blank, len(answer.rstrip()))
    if whole[0] < whole[1]:
        yield whole
        bare = answer[: whole[1]].rstrip(".")
        if blank < len(bare) < whole[1]:
            yield blank, len(bare)  # a model ends with a full stop what the document does not
    for match in _SENTENCE.finditer(answer):
        if len(match[0].split()) >= _FEWEST_WORDS:
            yield match.span()
    for match in _QUOTED.finditer(answer):
        yield next(match.span(group) for group in range(1, 5) if match[group] is not None)


def verify(citation: Citation, document: Document) -> bool:
    """Whether the document still says what is cited, where it is cited."""
    there = document.text[citation.start : citation.end]
    return document.id == citation.document_id and bool(there) and there == citation.text
