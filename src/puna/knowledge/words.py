"""Search by words: how texts are split, how a question becomes a query of FTS5, and what its BM25 score is worth.

Both indexes of this room use it, so that a question finds the same words in both. BM25 alone says which passage is
best and not whether it is any good: its size depends on the question. `ceiling` is the score of a passage that is all
about every word, so that score / ceiling is between 0 and 1, and low where the question's rare words are missing.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence
from functools import cache
from importlib import resources

TOKENIZER = "unicode61 tokenchars '_'"
# BM25 weights of the columns source, titles and text: a question about `copyfile` wants the passage that defines it.
WEIGHTS = (2.0, 6.0, 1.0)
K1, B = 1.2, 0.75  # of FTS5's bm25, where they are fixed
LEAST_IDF = 1e-6  # likewise, for a word that is in half of all passages or more
_SCORED = 4000  # passages that are scored for one question
_WORD = re.compile(r"\w+")


def terms(question: str) -> list[str]:
    """The words that say what a question is about, each once, without the words of questions themselves."""
    # Composed, or an accent written as a character of its own would end a word.
    words = {word.lower(): word for word in _WORD.findall(unicodedata.normalize("NFC", question))}
    return [word for lower, word in words.items() if lower not in _question_words()]


def any_of(words: Sequence[str]) -> str:
    """The FTS5 query for passages that hold any of the words; the words must come from `terms`."""
    return " OR ".join(f'"{word}"' for word in words)


def tokens(text: str) -> list[str]:
    """All words of a text in its order, as an index keeps them: what FTS5's tokenizer gives, but for rare scripts."""
    return _WORD.findall(text.lower() if text.isascii() else folded(text))


def folded(word: str) -> str:
    """The word as FTS5 keeps it: in lower case, without accents."""
    return "".join(char for char in unicodedata.normalize("NFD", word.lower()) if unicodedata.category(char) != "Mn")


def ceiling(counts: Sequence[int], passages: int) -> float:
    """What BM25 tends to for a passage that repeats every word of the question.

    Args:
        counts: for each word, how many passages hold it; a word that none holds weighs most.
        passages: how many there are.
    """
    weights = (math.log((passages - count + 0.5) / (count + 0.5)) for count in counts)
    return sum(max(weight, LEAST_IDF) for weight in weights) * (K1 + 1)


def rarest(words: Sequence[str], counts: Sequence[int]) -> list[str]:
    """The rarest words, as many as some thousand passages hold together; at least one of those that any holds.

    A passage that has none of them, but only words that are all over the documents, is not worth its scoring: in a
    large library that would take most of the time.
    """
    chosen: list[str] = []
    total = 0
    for count, word in sorted(zip(counts, words, strict=True)):
        if total and total + count > _SCORED:
            break
        chosen.append(word)
        total += count
    return chosen


@cache
def _question_words() -> frozenset[str]:
    """Words of questions themselves: they are in every question and say nothing of what is asked about."""
    return frozenset(resources.files("puna.knowledge").joinpath("assets/question_words.txt").read_text("utf-8").split())
