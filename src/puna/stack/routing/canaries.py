"""Canaries: known questions that show whether a provider still serves the model that it says, in the bits that it says.

One wrong answer proves nothing, so a sequential test decides (Wald's probability ratio test, 1945): after every answer
it weighs "a sound model" against "a degraded one", and goes on until one of them is likely enough. The same is done
with the answers' mean log-probability where the reference is known, upwards and downwards: coarser weights shift it
long before answers go wrong. A provider that is found degraded is shut out and said to be so; it is asked on, and let
in again when it passes every test.

A failure to answer is no verdict on a model: the circuit breaker sees to that.
"""

from __future__ import annotations

import math
import re
import statistics
import tomllib
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from importlib import resources
from typing import Any, Literal, cast

import tomli_w

from puna.base.config import from_dict, read_toml, require, to_dict
from puna.base.errors import RemoteError
from puna.core.chat import Message
from puna.core.completion import Completion, Done, SamplingParams
from puna.stack.providers.provider import Ask, Provider
from puna.stack.routing.config import CanaryConfig

Finding = Literal["sound", "degraded"]
_TOKENS = 24  # of an answer
_LEAST_DEVIATION = 0.01  # of a mean log-probability


@dataclass(frozen=True, slots=True)
class Question:
    """A question with known answers; the fields are explained at the top of canaries.toml."""

    id: str
    prompt: str
    answers: tuple[str, ...]
    logprob: float | None = None
    deviation: float = 0.0

    def __post_init__(self) -> None:
        require(bool(self.answers), f"The canary {self.id!r} has no answers.")
        require(self.logprob is None or self.deviation > 0, f"The canary {self.id!r} needs a deviation above 0.")

    def is_right(self, reply: str) -> bool:
        words = f" {_normal(reply)} "
        return any(f" {_normal(answer)} " in words for answer in self.answers)

    def ask(self, model: str, logprobs: bool) -> Ask:
        params = SamplingParams(
            temperature=0.0,
            top_p=1.0,
            max_tokens=_TOKENS,
            logprobs=0 if logprobs and self.logprob is not None else None,
        )
        return Ask(model, (Message("user", self.prompt),), params)


def _normal(text: str) -> str:
    return " ".join(re.findall(r"[a-z0-9]+", text.lower().replace(",", "")))


def read_questions(path: str = "") -> Sequence[Question]:
    """The questions of a file, or those that come with Puna."""
    if path:
        data = read_toml(path)
    else:
        data = tomllib.loads(resources.files("puna.stack").joinpath("assets", "canaries.toml").read_text("utf-8"))
    require(data.get("format") == 1, f"{path or 'canaries.toml'} has format {data.get('format')!r}; this Puna reads 1.")
    return tuple(from_dict(Question, row, f"questions[{i}]") for i, row in enumerate(data.get("questions", ())))


class Sequential:
    """A sequential probability ratio test of "sound" against "degraded".

    Args:
        false_alarm: probability of finding a sound one degraded.
        miss: probability of finding a degraded one sound.
    """

    def __init__(self, false_alarm: float, miss: float) -> None:
        self.upper = math.log((1 - miss) / false_alarm)
        self.lower = math.log(miss / (1 - false_alarm))
        self.evidence = 0.0

    def add(self, log_ratio: float) -> Finding | None:
        """Takes in log(probability if degraded / probability if sound); says what is found, and then begins anew."""
        self.evidence += log_ratio
        if self.evidence >= self.upper:
            self.evidence = 0.0
            return "degraded"
        if self.evidence <= self.lower:
            self.evidence = 0.0
            return "sound"
        return None


@dataclass(slots=True)
class Watch:
    """What the canaries have told of one provider's model.

    Attributes:
        config: the shares and errors of the tests.
        asked: questions answered.
        right: of these, the right ones.
        next: number of the next question.
        quarantine: why it is shut out; "" where it is not.
    """

    config: CanaryConfig
    asked: int = 0
    right: int = 0
    next: int = 0
    quarantine: str = ""
    _tests: dict[str, Sequential] = field(default_factory=dict)
    _since: list[bool] = field(default_factory=list)
    _passed: set[str] = field(default_factory=set)

    @property
    def quality(self) -> float | None:
        """The share of right answers; None before there are enough to say."""
        return self.right / self.asked if self.asked >= 10 else None

    def add(self, question: Question, completion: Completion) -> Finding | None:
        """Takes in an answer; says what is found, where something is."""
        right = question.is_right(completion.message.content)
        self.asked += 1
        self.right += right
        self._since.append(right)
        for name, ratio in self._ratios(question, completion, right).items():
            test = self._tests.setdefault(name, Sequential(self.config.false_alarm, self.config.miss))
            finding = test.add(ratio)
            if finding == "degraded":
                self.quarantine = self._reason(name)
                self._begin_anew()
                return finding
            if finding == "sound":
                self._passed.add(name)
        if self._passed < self._tests.keys():
            return None
        self.quarantine = ""
        self._begin_anew()
        return "sound"

    def _begin_anew(self) -> None:
        self._since.clear()
        self._tests.clear()
        self._passed.clear()

    def _ratios(self, question: Question, completion: Completion, right: bool) -> Mapping[str, float]:
        sound, degraded = self.config.right, self.config.degraded
        found = {"answers": math.log(degraded / sound) if right else math.log((1 - degraded) / (1 - sound))}
        if question.logprob is not None and completion.logprobs:
            z = (_mean_logprob(completion) - question.logprob) / question.deviation
            shift = self.config.logprob_shift
            found["lower"] = -shift * z - shift * shift / 2
            found["higher"] = shift * z - shift * shift / 2
        return found

    def _reason(self, test: str) -> str:
        if test == "answers":
            return (
                f"quarantined: {sum(self._since)} of its last {len(self._since)} answers to known questions were "
                f"right, where a sound model has {self.config.right:.0%}"
            )
        return f"quarantined: the log-probabilities of its answers are {test} than the reference's"

    def to_json(self) -> dict[str, Any]:
        return {"asked": self.asked, "right": self.right, "next": self.next, "quarantine": self.quarantine}

    @classmethod
    def from_json(cls, config: CanaryConfig, data: Mapping[str, Any]) -> Watch:
        return cls(config, data["asked"], data["right"], data["next"], data["quarantine"])


async def put(provider: Provider, ask: Ask) -> Completion:
    """One canary's answer.

    Raises:
        RemoteError: the provider ended without one.
    """
    async with aclosing(cast(Any, provider.stream(ask))) as events:
        async for event in events:
            if isinstance(event, Done):
                return event.completion
    raise RemoteError(f"{provider.id} ended its answer without saying that it is complete.")


async def reference(provider: Provider, model: str, questions: Sequence[Question], rounds: int = 5) -> list[Question]:
    """The questions that a sound model answers right every time, with the log-probabilities of its answers.

    Raises:
        RemoteError: the provider failed, or gives no log-probabilities.
    """
    found = []
    for question in questions:
        ask = replace(question, logprob=0.0, deviation=1.0).ask(model, logprobs=True)
        answers = [await put(provider, ask) for _ in range(rounds)]
        if not all(question.is_right(answer.message.content) for answer in answers):
            continue
        if not all(answer.logprobs for answer in answers):
            raise RemoteError(
                f"{provider.id} gives no log-probabilities.", hint="Take a server that does, such as vLLM."
            )
        means = [_mean_logprob(answer) for answer in answers]
        # Machines and batches move the figure a little even where the weights are the same.
        deviation = max(_LEAST_DEVIATION, statistics.pstdev(means))
        found.append(replace(question, logprob=statistics.fmean(means), deviation=deviation))
    return found


def to_toml(questions: Sequence[Question]) -> str:
    """Questions as a file that `read_questions` reads."""
    return tomli_w.dumps({"format": 1, "questions": [to_dict(question) for question in questions]})


def _mean_logprob(completion: Completion) -> float:
    return sum(token.logprob for token in completion.logprobs) / len(completion.logprobs)
