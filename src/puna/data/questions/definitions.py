"""Sentences that say what something is: "A shard is a part of ..."."""

from __future__ import annotations

import re
from collections.abc import Iterator

from puna.core.document import Document
from puna.data.questions.fact import Fact, is_sentence, plain
from puna.data.questions.prose import places
from puna.data.questions.sentence import first_sentence
from puna.data.questions.words import is_no_subject, is_verb

_SENTENCE = re.compile(
    r"(?:(?P<article>An?|The) )?(?P<subject>[^\s,.;:()?!]+(?: [^\s,.;:()?!]+){0,4}?)"
    r"(?: \((?P<short>[A-Z][\w.-]{1,9})\))? "
    r"(?P<be>is|are) (?:(?:simply|just|basically|essentially|usually|generally|also) )?"
    r"(?:an? |the |one |any |used (?:to|for|by) |part of |another )"
)
_SPOILERS = re.compile(
    r"\b(?:above|below|this (?:section|chapter|page|document)|next|previous|following|latter|former)\b", re.I
)


def find(document: Document) -> Iterator[Fact]:
    text = document.text
    for place in places(document):
        if place.block.kind not in ("paragraph", "item", "quote"):
            continue
        span = first_sentence(text, place.block.start, place.block.end)
        if span is None:
            continue
        sentence = text[span[0] : span[1]]
        found = _SENTENCE.match(sentence)
        if found is None or not is_sentence(sentence) or sentence[-1] not in ".!" or _SPOILERS.search(sentence):
            continue
        if subject := _subject(found, place.title):
            names = {"name": subject, "be": found["be"]}
            yield Fact("definition", names, *span, span, subject.casefold())


def _subject(found: re.Match[str], title: str) -> str:
    """What is defined, as one asks for it; "" where it is too vague to be asked for."""
    words = found["subject"]
    bare = plain(words)
    article = (found["article"] or "").lower()
    if any(is_no_subject(word) for word in bare.split()) or not bare[:1].isalpha() or len(bare) < 2:
        return ""
    if not article and (is_verb(bare.split()[0]) or bare.split()[0].endswith("ing")):
        return ""
    marked = bare != words or any(letter.isupper() or letter in "_-." for letter in bare[1:])
    titled = bare.casefold() in title.casefold()
    plural = found["be"] == "are" and not article and len(bare.split()) <= 2 and bare[-1] == "s"
    if not (marked or titled or plural or article in ("a", "an")):
        return ""
    if not marked and not article and f" {bare}" not in title:
        bare = bare[0].lower() + bare[1:]  # a capital that only opens the sentence
    return f"{article} {bare}" if article else bare
