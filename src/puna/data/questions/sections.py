"""Sections by their headings, and questions that a text itself asks and answers."""

from __future__ import annotations

import re
from collections.abc import Iterator

from puna.core.document import Document
from puna.data.questions.fact import Fact, is_sentence, plain, says_more
from puna.data.questions.prose import Place, askable, code_name, following, places, spoken
from puna.data.questions.sentence import first_sentence

_ASKED = re.compile(r"(?:Q(?:uestion)?\s?\d*[.:)]\s*)?(?P<question>[A-Z¿\"'][^?!\n]{8,120}\?)\s*$")
_ANSWER_MARK = re.compile(r"A(?:nswer)?\s?\d*[.:)]\s*")
_POINTING = re.compile(
    r"(?:See|Refer to|This|These|That|Those|It|They|He|She|However|But|And|So|Then|Also|As|Here|There|Such|For example"
    r"|To |In this|The (?:following|above|next|previous|first|second|other|same|latter|former|example)"
    r"|In (?:the|our)|Let(?:'|’)?s|We(?:'|’)|I(?:'|’)|Now|Next|Finally|Note|Added|Changed|Deprecated|Stability)\b"
)


def find(document: Document) -> Iterator[Fact]:
    answered = set()
    for place in places(document):
        if place.heading is not None and place.heading.start not in answered and _can_open(place, document.text):
            answered.add(place.heading.start)
            yield from _of_heading(document.text, place)
    for place, after in following(document):
        if after is not None and place.block.kind in ("paragraph", "item", "step", "term"):
            yield from _asked(document.text, place, after)


def _can_open(place: Place, text: str) -> bool:
    """Whether a section's sentence is looked for here: in its first block, for a code name in its first paragraph."""
    if place.block.kind not in ("paragraph", "definition", "quote"):
        return False
    return place.first or bool(code_name(place.title))


def _of_heading(text: str, place: Place) -> Iterator[Fact]:
    assert place.heading is not None
    span = first_sentence(text, place.block.start, place.block.end)
    if span is None or not is_sentence(text[span[0] : span[1]]):
        return
    sentence = text[span[0] : span[1]]
    scope = (place.heading.start, span[1])
    asked = _ASKED.match(spoken(text[place.heading.start : place.heading.end]))
    if asked:
        yield _faq(asked["question"], span, scope)
    elif name := code_name(place.title):
        if says_more(sentence, name) and not _POINTING.match(sentence):
            yield Fact("symbol", {"name": name}, *span, scope, name)
    elif (
        askable(place.title)
        and sentence[-1] in ".!?"
        and not _POINTING.match(sentence)
        and says_more(sentence, place.title)
    ):
        slots = {"heading": _in_a_sentence(place.title), "title": _quoted(place.title)}
        yield Fact("section", slots, *span, scope, place.title)


def _quoted(title: str) -> str:
    return title if '"' in title else f'"{title}"'


def _in_a_sentence(title: str) -> str:
    """Longer titles read better in quotes than as a part of the sentence."""
    if len(title.split()) > 3:
        return _quoted(title)
    return re.sub(r"^(The|An?) ", lambda article: article[0].lower(), title)


def _asked(text: str, place: Place, after: Place) -> Iterator[Fact]:
    """A line that asks, and the paragraph after it that answers."""
    question = _ASKED.match(plain(text[place.block.start : place.block.end]))
    if question is None or after.block.kind not in ("paragraph", "definition", "item", "quote"):
        return
    start = after.block.start
    if mark := _ANSWER_MARK.match(text, start, after.block.end):
        start = mark.end()
    span = first_sentence(text, start, after.block.end)
    if span is not None and is_sentence(text[span[0] : span[1]]) and text[span[1] - 1] in ".!":
        yield _faq(question["question"], span, (place.block.start, span[1]))


def _faq(question: str, span: tuple[int, int], scope: tuple[int, int]) -> Fact:
    question = question.replace("{", "").replace("}", "")
    return Fact("faq", {"question": question, "lower": question[0].lower() + question[1:-1]}, *span, scope, question)
