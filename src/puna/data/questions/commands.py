"""Commands and one-line examples: a sentence that ends in a colon, and the line of code that it announces."""

from __future__ import annotations

import re
from collections.abc import Iterator

from puna.core.document import Document
from puna.data.questions.fact import Fact, is_answer
from puna.data.questions.prose import Place, askable, following
from puna.data.questions.words import is_no_subject, is_verb
from puna.knowledge.structure.block import Block

_TO_RUN = r"(?:run|use|type|execute|enter|do|call|write|add|set|put|invoke|issue|say)\b"
_BY_RUNNING = (
    r"(?:by (?:running|using|typing|executing|calling|adding|writing|entering|setting)|with|using|as follows)\b"
)
_TASK = r"(?P<task>[^.:;]{5,80}?)"
_TASKS = tuple(
    re.compile(pattern)
    for pattern in (
        rf"(?:^|.*?[.,;] )(?:In order )?[Tt]o {_TASK}, (?:just |simply |please |you can )?{_TO_RUN}[^.]*:+$",
        rf"(?:^|.*?[.;] )(?:You|One|Users|We) can {_TASK} {_BY_RUNNING}[^.]*:+$",
        rf"(?:^|.*?[.;] )(?:Run|Use|Type|Execute|Enter|Call) (?:the following|this|these)\b[^.:]*? to {_TASK}:+$",
    )
)
_IMPERATIVE = re.compile(r"(?P<task>[A-Z][a-z]+ [^.:;,]{4,70}?)(?: with| using| by running| like this| as follows)?:+$")
_EXAMPLE = re.compile(r"(?:For example|An example|Example|For instance|Usage|Synopsis)s?\b[^.]{0,20}:+$", re.IGNORECASE)
_OURS = {"your": "my", "you": "I", "yourself": "myself", "our": "my", "we": "I"}
_VAGUE = re.compile(  # it points elsewhere, or the first word was no verb but the subject of another
    r"\b(?:this|that|these|those|it|them|following|above|below|so|here|is|are|was|use|uses|has|have|will|may)\b", re.I
)


def find(document: Document) -> Iterator[Fact]:
    for place, after in following(document):
        if after is None or after.block.kind != "code" or place.block.kind not in ("paragraph", "item", "step"):
            continue
        span = _only_line(document.text, after.block)
        if span is not None:
            yield from _fact(document.text, place, span)


def _only_line(text: str, code: Block) -> tuple[int, int] | None:
    """The line of a code block that has one, without a prompt."""
    line = text[code.start : code.end]
    if "\n" in line.strip():
        return None
    start = code.start
    if prompt := re.match(r"\s*(?:\$|>>>|%|>)\s+|\s+", line):
        start += prompt.end()
    end = start + len(text[start : code.end].rstrip())
    return (start, end) if is_answer(text[start:end]) else None


def _fact(text: str, place: Place, span: tuple[int, int]) -> Iterator[Fact]:
    lead = " ".join(text[place.block.start : place.block.end].split())
    scope = (place.block.start, span[1])
    found = next(filter(None, (pattern.match(lead) for pattern in _TASKS)), None) or _IMPERATIVE.match(lead)
    if found and (task := _task(found["task"])) and (found.re is not _IMPERATIVE or is_verb(task.split()[0])):
        yield Fact("command", {"task": task}, *span, scope, task)
        return
    if _EXAMPLE.match(lead) and place.heading is not None and askable(place.title):
        yield Fact("example", {"heading": place.title}, *span, (place.heading.start, span[1]), place.title)


def _task(words: str) -> str:
    """ "install it on your machine" as a user says it, with "my"; "" where it is no task, or is one elsewhere."""
    verb, _, rest = words.partition(" ")
    if (
        is_no_subject(verb)
        or not verb.isalpha()
        or not rest
        or _VAGUE.search(rest)
        or rest.count("`") % 2
        or re.search(r"[\[\]{}<>*]", rest)
    ):
        return ""
    return " ".join([verb.lower(), *(_OURS.get(word, word) for word in rest.split())])
