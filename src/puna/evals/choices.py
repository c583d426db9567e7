"""Multiple choice: the likeliest of several continuations, as lm-evaluation-harness chooses it.

A prompt and its continuation are encoded together and cut where the prompt alone would end, with white space at the
prompt's end counted to the continuation; what is too long for the context loses its beginning. `acc` takes the largest
log-likelihood; `acc_norm` divides it by the continuation's bytes first, so that long choices have a chance. That is the
harness's acc_bytes; its acc_norm divides by characters, and differs where a choice is not ASCII.
A model that cannot score text is asked for the letter instead (`letter_in`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from puna.base.errors import InputError
from puna.core.protocols import LanguageModel
from puna.core.verdict import Task

# A letter of a multiple choice, as models are wont to give it.
LETTER_REGEXES = (
    r"(?i)(?:the )?(?:best |correct |final )?answer(?: is|:)\s*[\(\[\*]*([A-J])\b",
    r"\\boxed\{\s*(?:\\text\{)?\s*([A-J])\b",
    r"^\W*([A-J])(?:\W|$)",
)


@runtime_checkable
class Likelihood(Protocol):
    """Gives the log-likelihood of continuations."""

    def __call__(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """For each (prompt, continuation) the natural-log probability of the continuation."""
        ...


@dataclass(frozen=True, slots=True)
class TokenLikelihood:
    """A `Likelihood` from a model of tokens.

    Attributes:
        model: gives the log-probabilities.
        encode: text to ids, the start token included.
        context_length: tokens that the model can compute at a time.
    """

    model: LanguageModel
    encode: Callable[[str], Sequence[int]]
    context_length: int

    def __call__(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        rows, lengths = [], []
        for prompt, continuation in pairs:
            ids, count = self._row(prompt, continuation)
            rows.append(ids)
            lengths.append(count)
        scored = self.model.token_logprobs(rows)
        return [math.fsum(logprobs[-count:]) for logprobs, count in zip(scored, lengths, strict=True)]

    def _row(self, prompt: str, continuation: str) -> tuple[Sequence[int], int]:
        """The ids of both together, and how many of the last are the continuation's."""
        kept = prompt.rstrip()
        whole = list(self.encode(prompt + continuation))
        count = len(whole) - len(self.encode(kept))
        if count <= 0:
            raise InputError(f"The continuation {continuation!r} has no tokens of its own.", hint="Give it some text.")
        if count > self.context_length:
            raise InputError(
                f"A continuation has {count} tokens; the model's context holds {self.context_length}.",
                hint="Give shorter choices.",
            )
        return whole[-(self.context_length + 1) :], count


@dataclass(frozen=True, slots=True)
class Chosen:
    """What a model chose.

    Attributes:
        logprobs: of each choice, in nats.
        by_sum: the place of the likeliest.
        by_bytes: the place of the likeliest a byte.
        gold: the place of the right one.
    """

    logprobs: tuple[float, ...]
    by_sum: int
    by_bytes: int
    gold: int

    @property
    def acc(self) -> float:
        return float(self.by_sum == self.gold)

    @property
    def acc_norm(self) -> float:
        return float(self.by_bytes == self.gold)


def choose(likelihood: Likelihood, tasks: Sequence[Task], prompts: Sequence[str]) -> list[Chosen]:
    """Scores every choice of every task after its prompt, with a blank between the two."""
    pairs = [(prompt, f" {text}") for task, prompt in zip(tasks, prompts, strict=True) for text in task.meta["choices"]]
    scores = iter(likelihood(pairs))
    return [chosen(task, [next(scores) for _ in task.meta["choices"]]) for task in tasks]


def chosen(task: Task, logprobs: Sequence[float]) -> Chosen:
    """The choice by the log-likelihoods of all; the first of equals."""
    places = range(len(logprobs))
    sizes = [max(1, len(text.encode())) for text in task.meta["choices"]]
    by_sum = max(places, key=lambda i: logprobs[i])
    by_bytes = max(places, key=lambda i: logprobs[i] / sizes[i])
    return Chosen(tuple(logprobs), by_sum, by_bytes, int(task.meta["gold"]))


def letter_in(answer: str) -> str | None:
    """The letter that an answer in words chooses, upper case; None where it chooses none."""
    for pattern in LETTER_REGEXES:
        if match := re.search(pattern, answer):
            return match[1].upper()
    return None


def letter_prompt(task: Task) -> str:
    """A choice put to a chat: the choices with letters, and a word on how to answer."""
    letters = [chr(ord("A") + i) for i in range(len(task.meta["choices"]))]
    if list(task.meta["choices"]) == letters:  # they are in the prompt already
        listed = task.prompt.removesuffix("\nAnswer:")
    else:
        listed = task.prompt.removesuffix("\nAnswer:") + "".join(
            f"\n{letter}. {text}" for letter, text in zip(letters, task.meta["choices"], strict=True)
        )
    return f"{listed}\n\nAnswer with the letter of the right choice alone."
