"""Whether questions stand in a training text: the share of each question's word n-grams that occur in it.

N-grams are of lower-case words without punctuation, so that another layout hides nothing; 13 words are GPT-3's length
(arXiv 2005.14165, appendix C), 8 are Llama 3's (arXiv 2407.21783, section 5.1.4). The questions are held in memory and
the text is read once, so the text may be of any size. Left out: paraphrases and translations, which share no n-grams.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from puna.base.config import require
from puna.core.document import Document
from puna.core.verdict import Task

_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Contamination:
    """How much of a question a training text holds.

    Attributes:
        task: the question.
        overlap: the share of its n-grams that occur; None where it has fewer words than an n-gram.
        documents: ids of the first documents that hold some, at most 5.
    """

    task: Task
    overlap: float | None
    documents: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {"id": self.task.id, "overlap": self.overlap, "documents": list(self.documents)}


@dataclass(frozen=True, slots=True)
class ContaminationReport:
    """Every question with its overlap.

    Attributes:
        rows: in the questions' order.
        words: of an n-gram.
        threshold: the overlap from which a question counts as contaminated.
    """

    rows: Sequence[Contamination]
    words: int
    threshold: float

    @property
    def contaminated(self) -> list[Contamination]:
        return [row for row in self.rows if row.overlap is not None and row.overlap >= self.threshold]

    def to_json(self) -> dict[str, Any]:
        return {
            "questions": len(self.rows),
            "too_short": sum(row.overlap is None for row in self.rows),
            "contaminated": len(self.contaminated),
            "words": self.words,
            "threshold": self.threshold,
            "found": [row.to_json() for row in self.contaminated],
        }


def contamination(
    tasks: Sequence[Task], documents: Iterable[Document], words: int = 13, threshold: float = 0.5
) -> ContaminationReport:
    """Looks for questions, with their reference answers, in documents.

    Args:
        tasks: the questions; what a suite puts before and after each counts with them.
        documents: the training text.
        words: of an n-gram.
        threshold: the overlap from which a question counts as contaminated, above 0 and at most 1.

    Raises:
        ConfigError: a number of words or a threshold out of range.
    """
    require(words >= 1, f"An n-gram of {words} words is asked for; it must have at least 1.")
    require(0 < threshold <= 1, f"The threshold is {threshold}; it must be above 0 and at most 1.")
    grams = [set(ngrams(f"{task.prompt} {task.answer}", words)) for task in tasks]
    wanted: set[str] = set().union(*grams)
    found: dict[str, list[str]] = {}
    for document in documents:
        for gram in set(ngrams(document.text, words)) & wanted:
            ids = found.setdefault(gram, [])
            if len(ids) < 5:
                ids.append(document.id)
    rows = []
    for task, own in zip(tasks, grams, strict=True):
        hits = own & found.keys()
        ids = dict.fromkeys(id for gram in sorted(hits) for id in found[gram])
        rows.append(Contamination(task, len(hits) / len(own) if own else None, tuple(ids)[:5]))
    return ContaminationReport(rows, words, threshold)


def ngrams(text: str, words: int) -> Iterator[str]:
    """The n-grams of a text, each as words with blanks between."""
    found = _WORD.findall(text.lower())
    for start in range(len(found) - words + 1):
        yield " ".join(found[start : start + words])
