"""Questions on passages: those that a passage answers, and those that it does not.

A passage answers a fact if the answer and the name that is asked for both stand in it. Facts that cannot be told apart
by their questions are dropped: where two methods of one name are in a passage, nobody knows which one is meant. A
question that a passage does not answer is one that another passage does, of the same document before another's, and
whose subject the passage does not mention.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from puna.core.document import Document, Span
from puna.data.questions.fact import Fact
from puna.data.questions.finders import facts
from puna.data.questions.phrasing import CODE_KINDS, ask, draw
from puna.knowledge.chunk import Passage, chunk
from puna.knowledge.grounding import NOT_IN_TEXT, title


@dataclass(frozen=True, slots=True)
class Question:
    """A question on a passage, with its answer.

    Attributes:
        kind: of the fact that is asked for.
        question: the user's words.
        answer: a quotation, or `NOT_IN_TEXT`.
        span: where the answer stands in the document; None where the passage does not hold it.
        passage: what it is asked about.
        fact: what it was made from.
    """

    kind: str
    question: str
    answer: str
    span: Span | None
    passage: Passage
    fact: Fact

    def again(self, *key: object) -> str:
        """The question as one that follows another on the same subject."""
        return ask(self.fact, *key, again=True)


@dataclass(frozen=True, slots=True)
class Reading:
    """A document cut up, and the facts that can be asked of each of its passages."""

    document: Document
    passages: Sequence[Passage]
    facts: Sequence[Sequence[Fact]]


def read(document: Document, passage_chars: int, seed: int) -> Reading:
    """Cuts a document and places its facts."""
    passages = chunk(document, passage_chars)
    starts = [passage.start for passage in passages]
    placed: list[list[Fact]] = [[] for _ in passages]
    for fact in facts(document):
        low, high = min(fact.scope[0], fact.start), max(fact.scope[1], fact.end)
        index = bisect_right(starts, low) - 1
        if index >= 0 and high <= passages[index].end:
            placed[index].append(fact)
    clear = [_clear(document.text, found, seed, document.id) for found in placed]
    return Reading(document, passages, clear)


def _clear(text: str, found: Sequence[Fact], *key: object) -> list[Fact]:
    """The facts whose questions have one answer in their passage, and one fact for each answer's place."""
    answers: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for fact in found:
        for name in _names_asked(fact):
            answers[name].add(text[fact.start : fact.end])
    by_span: dict[tuple[int, int], Fact] = {}
    for fact in sorted(found, key=lambda fact: draw(*key, fact.kind, fact.start, *sorted(fact.names.values()))):
        if all(len(answers[name]) == 1 for name in _names_asked(fact)):
            by_span.setdefault((fact.start, fact.end), fact)
    return sorted(by_span.values(), key=lambda fact: (fact.start, fact.kind))


# Kinds whose phrasings overlap: one name must not have two answers among them.
_WHAT_IS = frozenset(
    ("function", "method", "property", "class", "module", "remark", "option", "symbol", "term", "definition")
)


def _names_asked(fact: Fact) -> list[tuple[str, ...]]:
    """What identifies a question: its slots; for a code name also the name without its class, which users leave out."""
    slots = {slot: words.casefold() for slot, words in fact.names.items() if slot != "module"}
    family = "what" if fact.kind in _WHAT_IS else fact.kind
    keys = [(family, *sorted(slots.values()))]
    if fact.kind in CODE_KINDS and "." in slots["name"]:
        slots["name"] = slots["name"].rsplit(".", 1)[-1]
        keys.append((family, *sorted(slots.values())))
    return keys


def answerable(reading: Reading, index: int, fact: Fact, seed: int) -> Question:
    """The question for a fact of `reading.facts[index]`."""
    document, passage = reading.document, reading.passages[index]
    answer = document.text[fact.start : fact.end]
    words = ask(fact, seed, document.id)
    return Question(fact.kind, words, answer, Span(document.id, fact.start, fact.end), passage, fact)


def unanswerable(fact: Fact, passage: Passage, seed: int) -> Question:
    """The question for a fact that the passage does not mention (`is_absent`)."""
    words = ask(fact, seed, passage.document_id, passage.start)
    return Question(fact.kind, words, NOT_IN_TEXT, None, passage, fact)


_WORD = re.compile(r"\w{4,}")
_MOST_WORDS = 0.4  # of a phrase's longer words may occur in a passage that does not speak of it


def is_absent(fact: Fact, passages: Iterable[Passage]) -> bool:
    """Whether none of the passages mentions what the fact is about, in its title or in its text."""
    text = "\n".join(f"{title(passage)}\n{passage.text}" for passage in passages).casefold()
    for slot, words in fact.names.items():
        words = words.casefold()
        if slot in ("name", "row") and words.rsplit(".", 1)[-1].strip("_ ") in text:
            return False
        if slot in ("heading", "task", "question", "name", "column"):
            found = _WORD.findall(words)
            if words in text or sum(word in text for word in found) > _MOST_WORDS * len(found):
                return False
    return True
