"""Questions with reference answers: exact match and token F1, as for SQuAD (arXiv 1606.05250), with intervals.

Normalising is lighter than SQuAD's: case, articles and punctuation carry meaning in code, so only white space is
folded and quotation marks and full stops around an answer are dropped.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from puna.core.chat import Message
from puna.core.completion import SamplingParams
from puna.core.protocols import ChatModel
from puna.core.verdict import Score, Task
from puna.evals.statistics import mean_score

_TOKENS = re.compile(r"\w+|[^\w\s]")
_EDGES = " \t\n.\"'`“”‘’"


@dataclass(frozen=True, slots=True)
class Sample:
    """One answered question."""

    task: Task
    answer: str
    exact: float
    f1: float

    def to_json(self) -> dict[str, object]:
        return {
            "id": self.task.id,
            "kind": self.task.kind,
            "prompt": self.task.prompt,
            "reference": self.task.answer,
            "answer": self.answer,
            "exact": self.exact,
            "f1": round(self.f1, 4),
        }


@dataclass(frozen=True, slots=True)
class AnswerScores:
    """How a model answered.

    Attributes:
        exact: share of answers equal to the reference, with its interval.
        f1: mean overlap of tokens with the reference.
        by_kind: exact match for each kind of question.
        samples: every question with its answer.
    """

    exact: Score
    f1: Score
    by_kind: Mapping[str, Score]
    samples: Sequence[Sample]


def ask(model: ChatModel, tasks: Sequence[Task], params: SamplingParams) -> AnswerScores:
    """Asks each task's prompt as a conversation of its own and scores the answers."""
    completions = model.chat_batch([[Message("user", task.prompt)] for task in tasks], params)
    return score(tasks, [completion.message.content for completion in completions])


def score(tasks: Sequence[Task], answers: Sequence[str]) -> AnswerScores:
    """Scores an answer to each task."""
    samples = [
        Sample(task, text, exact_match(text, task.answer), token_f1(text, task.answer))
        for task, text in zip(tasks, answers, strict=True)
    ]
    kinds: dict[str, list[float]] = defaultdict(list)
    for sample in samples:
        kinds[sample.task.kind].append(sample.exact)
    return AnswerScores(
        mean_score("exact_match", [s.exact for s in samples]),
        mean_score("token_f1", [s.f1 for s in samples]),
        {kind: mean_score(kind, values) for kind, values in sorted(kinds.items())},
        samples,
    )


def normalized(text: str) -> str:
    return " ".join(text.split()).strip(_EDGES)


def exact_match(answer: str, reference: str) -> float:
    return float(normalized(answer) == normalized(reference))


def token_f1(answer: str, reference: str) -> float:
    """Harmonic mean of precision and recall over words and signs; 1 where the answers match exactly."""
    found, wanted = (Counter(_TOKENS.findall(normalized(text))) for text in (answer, reference))
    common = (found & wanted).total()
    if common == 0:
        return float(found == wanted)
    precision, recall = common / found.total(), common / wanted.total()
    return 2 * precision * recall / (precision + recall)
