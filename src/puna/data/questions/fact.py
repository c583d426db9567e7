"""`Fact`: something a document says, where it says it, and what one has to name to ask for it.

A finder reads a document and yields facts; phrasing turns a fact into a question. A finder is strict: a fact whose
answer is cut off, holds markup or says nothing new teaches a model to answer like that.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from puna.core.document import Document

SHORTEST, LONGEST = 2, 200  # characters of an answer


@dataclass(frozen=True, slots=True)
class Fact:
    """One answer and how to ask for it.

    Attributes:
        kind: names the phrasings in `assets/questions.toml`.
        names: what fills the phrasings' slots, such as {"name": "shutil.copyfile"}.
        start: first character of the answer in the document's text.
        end: one past its last.
        scope: (start, end) of the text that must be at hand to answer: the name as well as the answer.
        subject: what the fact is about; two facts with one subject can follow each other in a conversation.
        private: asked only where nothing public is.
    """

    kind: str
    names: Mapping[str, str]
    start: int
    end: int
    scope: tuple[int, int]
    subject: str = ""
    private: bool = False


Finder = Callable[[Document], Iterable[Fact]]

_MARKUP = re.compile(
    r"\]\(|\]\[|<https?:|https?://|`_|\|\w+\||\[\^?\d+\]|<!--|-->|</?\w+>|!\[|:\w+:`|\{\{|\}\}|\[\[|\{[\w-]+\}`|\*\*\*|::=|::$|\\$"
)
_UNDONE = re.compile(r"\b(?:TODO|FIXME|XXX|TBD)\b")
_PAIRS = (("(", ")"), ("[", "]"), ("{", "}"))
_WORD = re.compile(r"[A-Za-z\u00c0-\uffff]{2,}")


def is_answer(text: str) -> bool:
    """Whether a quotation can stand as an answer: one line, 2 to 200 characters, nothing undone."""
    return SHORTEST <= len(text) <= LONGEST and "\n" not in text and text == text.strip() and not _UNDONE.search(text)


def is_sentence(text: str) -> bool:
    """Whether prose can stand as an answer: three words or more, no links, brackets and marks closed."""
    return (
        is_answer(text)
        and len(text.split()) >= 3
        and len(_WORD.findall(text)) >= 2
        and (text[0].isalnum() or text[0] in "\"'`*(“‘¿¡_")
        and text[-1] not in ":,;-(["
        and not _MARKUP.search(text)
        and all(text.count(opening) == text.count(closing) for opening, closing in _PAIRS)
        and text.count("`") % 2 == 0
        and text.count("**") % 2 == 0
        and text.count('"') % 2 == 0
    )


def says_more(answer: str, name: str) -> bool:
    """Whether an answer holds words that are neither in the name nor mere grammar: "Foo class." says nothing of Foo."""
    return bool({word.casefold() for word in _WORD.findall(answer)} - _words_of(name) - _GRAMMAR)


def _words_of(name: str) -> set[str]:
    """The words of an identifier or a phrase: "readFile_now" has read, file and now, and is one word itself."""
    parts = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)
    return {word.casefold() for word in [*parts, *_WORD.findall(name)]}


_GRAMMAR = frozenset(
    ("the", "an", "of", "for", "to", "is", "are", "this", "that", "it", "class", "function", "method", "module")
)


_MARKS = re.compile(r"\*\*|`+|[\"“”]")
_EMPHASIS = re.compile(r"(?<!\w)([*_'])(?P<inner>[^\W_](?:[^*_']*[^\W_])?)\1(?!\w)")


def plain(text: str) -> str:
    """A name without marks: "**Shard**" is Shard, "``-v``" is -v, "the *open* file" loses its stars."""
    return _EMPHASIS.sub(r"\g<inner>", _MARKS.sub("", text)).strip()
