"""A model as the judge between two answers, asked twice with the answers' places swapped.

A judge prefers what stands first often enough to decide a comparison (arXiv 2306.05685, section 3.3): a preference
counts where it survives the swap, and is a tie where it does not. The share of the second model's wins, ties as halves,
comes with an interval and a paired test.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from puna.core.chat import Message
from puna.core.completion import SamplingParams
from puna.core.protocols import ChatModel
from puna.core.verdict import Score, Task
from puna.evals.statistics import mcnemar, mean_score

Winner = Literal["first", "second", "tie"]

PROMPT = """You compare two answers to one question. Judge how correct, helpful and clear each is; length and order do \
not matter.

[Question]
{question}

[Answer A]
{first}

[Answer B]
{second}

Explain in one or two sentences which answer is better, then end with exactly one of [[A]], [[B]] or [[C]]; C means \
that they are equally good."""
_SAID = re.compile(r"\[\[([ABC])\]\]")
_COLUMN = re.compile(r"\{(question|first|second)\}")


@dataclass(frozen=True, slots=True)
class Judgement:
    """The judge's word on one question.

    Attributes:
        task: the question.
        preference: what both orders agree on; else a tie.
        orders: the preference with the first answer at A, and with it at B; None where the judge gave none.
        texts: what the judge said.
    """

    task: Task
    preference: Winner
    orders: tuple[Winner | None, Winner | None]
    texts: tuple[str, str]

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.task.id,
            "preference": self.preference,
            "orders": list(self.orders),
            "texts": list(self.texts),
        }


@dataclass(frozen=True, slots=True)
class PairwiseScores:
    """What the judge makes of two models.

    Attributes:
        second: the second model's share of wins, ties as halves, with its interval.
        p_value: two-sided, of the sign test on the questions that are no ties.
        consistent: the share of questions on which both orders agree.
        judgements: of every question.
    """

    second: Score
    p_value: float
    consistent: float
    judgements: Sequence[Judgement]


def judge_pairs(
    judge: ChatModel,
    tasks: Sequence[Task],
    first: Sequence[str],
    second: Sequence[str],
    params: SamplingParams | None = None,
    seed: int = 0,
) -> PairwiseScores:
    """Asks a judge about two models' answers to the same questions.

    Args:
        judge: the model that is asked.
        tasks: the questions.
        first: one model's answers, in the questions' order.
        second: the other's.
        params: of the judge; greedy, 512 tokens, by default.
        seed: of the interval.
    """
    params = params or SamplingParams(temperature=0, max_tokens=512)
    asked = []
    for task, one, two in zip(tasks, first, second, strict=True):
        asked += [_asked(task, one, two), _asked(task, two, one)]
    said = [completion.message.content for completion in judge.chat_batch(asked, params)]
    judgements = []
    for task, straight, swapped in zip(tasks, said[::2], said[1::2], strict=True):
        orders = preference_in(straight, swapped=False), preference_in(swapped, swapped=True)
        agreed = orders[0] if orders[0] == orders[1] else None
        judgements.append(Judgement(task, agreed or "tie", orders, (straight, swapped)))
    values = [{"first": 0.0, "tie": 0.5, "second": 1.0}[one.preference] for one in judgements]
    agreeing = sum(one.orders[0] is not None and one.orders[0] == one.orders[1] for one in judgements)
    score = mean_score("win_rate", values, seed)
    share = agreeing / len(judgements) if judgements else 0.0
    return PairwiseScores(score, mcnemar(values.count(1.0), values.count(0.0)), share, judgements)


def preference_in(text: str, swapped: bool) -> Winner | None:
    """What a judge's text prefers: its last mark. `swapped`: whether the second answer stood at A."""
    marks = _SAID.findall(text)
    if not marks:
        return None
    if marks[-1] == "C":
        return "tie"
    return "first" if (marks[-1] == "A") != swapped else "second"


def _asked(task: Task, at_a: str, at_b: str) -> list[Message]:
    # One pass, so that braces in an answer stay what they are.
    columns = {"question": task.prompt, "first": at_a, "second": at_b}
    return [Message("user", _COLUMN.sub(lambda match: columns[match[1]], PROMPT))]
