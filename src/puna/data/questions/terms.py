"""Terms and their definitions: definition lists, fields, directives, and `**term**: explanation` in lists and lines."""

from __future__ import annotations

import re
from collections.abc import Iterator

from puna.core.document import Document
from puna.data.questions.fact import Fact, is_sentence, plain, says_more
from puna.data.questions.prose import askable, code_name, places
from puna.data.questions.sentence import first_sentence
from puna.data.questions.words import as_deed, is_no_subject, number_words
from puna.knowledge.structure.block import Block

_INLINE = re.compile(
    r"(?P<term>\*\*[^*\n]{2,50}\*\*|__[^_\n]{2,50}__|``[^`\n]{2,50}``|`[^`\n]{2,50}`|[A-Za-z][\w.+/ -]{1,40}?)"
    r"(?P<gap>\s?(?::(?:\*\*)?|--|—|–|\s-)\s+)(?=\S)"
)
_OPTION = re.compile(r"(?P<flags>-{1,2}\w[\w-]*)")
_NOT_TERMS = re.compile(
    r"(?:issue|patch|bug|pr|gh|commit|release|version)\b.*\d|(?:param|type|returns?|rtype|raises?|var|ivar|cvar|note|warning|tip|example|see|todo|author)\b",
    re.I,
)


def find(document: Document) -> Iterator[Fact]:
    text = document.text
    terms: list[Block] = []
    for place in places(document):
        block = place.block
        if block.kind == "term":
            terms.append(block)
            continue
        if block.kind == "definition" and terms:
            span = first_sentence(text, block.start, block.end)
            for term in terms if span else ():
                yield from _fact(text, text[term.start : term.end], term.start, span)
        elif block.kind in ("item", "paragraph", "step"):
            yield from _inline(text, block)
        terms = []


def _inline(text: str, block: Block) -> Iterator[Fact]:
    found = _INLINE.match(text, block.start, block.end)
    if found is None:
        return
    if found["term"][0] not in "*_`" and (block.kind != "item" or not _is_bare_term(text, found)):
        return
    span = first_sentence(text, found.end(), block.end)
    if span is None or len(text[span[0] : span[1]].split()) < 4:
        return
    for fact in _fact(text, found["term"], block.start, span):
        if fact.kind != "term" or not as_deed(text[span[0] : span[1]]):  # "**npm**: Upgrade to 2.11" defines nothing
            yield fact


def _is_bare_term(text: str, found: re.Match[str]) -> bool:
    """Whether words without marks are a term: not "Note: ..." nor the file and the verb of a change log."""
    words = found["term"].split()
    colon = ":" in found["gap"]
    return len(words) <= 3 and words[0][0].isupper() and not (colon and text[found.end()].islower())


def _fact(text: str, term: str, start: int, span: tuple[int, int] | None) -> Iterator[Fact]:
    term = plain(" ".join(term.split()))
    if span is None or not term or not is_sentence(text[span[0] : span[1]]) or _NOT_TERMS.match(term):
        return
    if option := _OPTION.match(term):
        kind, name = "option", max(re.findall(r"-{1,2}\w[\w-]*", term), key=len) if option else term
    elif name := code_name(term):
        kind = "symbol"
    elif askable(term) and len(term.split()) <= 6 and not is_no_subject(term) and not term.endswith("?"):
        kind, name = "term", term
    else:
        return
    if says_more(text[span[0] : span[1]], name):
        names = {"name": name, **(number_words(name) if kind == "term" else {})}
        yield Fact(kind, names, *span, (start, span[1]), name)
