"""Judgements: a `Verdict` on a text, a `Score` on a task, a `Price` on a token.

`Verdict` is one noun for guards, data filters and synthetic-data filters alike: whoever reads a verdict need not
know who gave it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether something may pass, and why.

    Attributes:
        allowed: the decision.
        hazards: codes of what was found, such as "S1"; empty when allowed.
        scores: probabilities or measures behind the decision, by name.
        reason: one sentence for a reader.
    """

    allowed: bool
    hazards: tuple[str, ...] = ()
    scores: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Task:
    """One question with a checkable answer.

    Attributes:
        id: stable name.
        prompt: what the model is asked, as a user's message.
        answer: the reference answer.
        kind: the sort of question; scores are also given by kind.
        meta: JSON values, such as the span that the answer quotes.
    """

    id: str
    prompt: str
    answer: str
    kind: str = ""
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Score:
    """A mean over `count` samples with its 95 % interval."""

    name: str
    value: float
    count: int
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars for a million tokens."""

    input: float = 0.0
    output: float = 0.0
    cached_input: float = 0.0
