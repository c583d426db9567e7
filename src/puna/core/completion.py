"""What is asked of a model and what comes back: `SamplingParams`, `Completion`, and the one union of stream events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from puna.base.errors import ConfigError
from puna.core.chat import Message, ToolCall

StopReason = Literal["end_of_turn", "end_of_message", "stop", "length", "cancelled"]


@dataclass(frozen=True, slots=True)
class Constraint:
    """The form that an answer must have; a model that is held to it can produce nothing else.

    Attributes:
        kind: how `value` says it.
        value: a JSON schema (an object), a regular expression, a grammar in Lark's notation, for "choice" a list of
            texts of which the answer is one, or for "span" an object: the answer is a stretch of whole words from one
            line of `texts`, or one of the texts in `or`.
    """

    kind: Literal["json_schema", "regex", "lark", "choice", "span"]
    value: Any


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How to choose the next token.

    Attributes:
        temperature: 0 takes the most probable token; 1 leaves the model's distribution as it is.
        top_k: keep the k most probable tokens; 0 keeps all.
        top_p: keep the smallest set of tokens whose probability reaches p (nucleus sampling, arXiv 1904.09751).
        min_p: drop tokens less probable than this share of the most probable one.
        repetition_penalty: divide the logits of tokens already seen (arXiv 1909.05858); 1 does nothing.
        presence_penalty: subtracted from the logits of tokens that the answer holds already.
        frequency_penalty: subtracted from a token's logit once for each time that the answer holds it.
        logit_bias: token id -> what is added to its logit.
        max_tokens: stop after this many new tokens.
        stop: stop strings; the text ends before the first that appears.
        seed: the same seed gives the same text; None draws one.
        logprobs: return the log-probability of each chosen token and of this many alternatives; None for none.
        prompt_logprobs: return the log-probability of each token of the prompt after its first.
        n: how many answers; each after the first takes the next seed.
        constraint: the form that the answer must have; None for any.
        tool_choice: "auto", "none", "required" for at least one call, or the name of the one tool to call.
    """

    temperature: float = 0.6
    top_k: int = 0
    top_p: float = 0.9
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    max_tokens: int = 256
    stop: tuple[str, ...] = ()
    seed: int | None = None
    logprobs: int | None = None
    prompt_logprobs: bool = False
    n: int = 1
    constraint: Constraint | None = None
    tool_choice: str = "auto"

    def __post_init__(self) -> None:
        if isinstance(self.stop, str):
            raise ConfigError(f"stop is the text {self.stop!r}.", hint=f"Give a list of texts: ({self.stop!r},).")
        bounds = {
            "temperature": (self.temperature >= 0, "at least 0"),
            "top_k": (self.top_k >= 0, "at least 0 (0 keeps every token)"),
            "top_p": (0 < self.top_p <= 1, "above 0 and at most 1"),
            "min_p": (0 <= self.min_p < 1, "at least 0 and below 1"),
            "repetition_penalty": (self.repetition_penalty > 0, "above 0"),
            "presence_penalty": (abs(self.presence_penalty) <= 2, "between -2 and 2"),
            "frequency_penalty": (abs(self.frequency_penalty) <= 2, "between -2 and 2"),
            "n": (self.n >= 1, "at least 1"),
            "max_tokens": (self.max_tokens >= 1, "at least 1"),
            "logprobs": (self.logprobs is None or self.logprobs >= 0, "at least 0, or None"),
        }
        for name, (holds, rule) in bounds.items():
            if not holds:
                raise ConfigError(f"{name} is {getattr(self, name)}, and must be {rule}")


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts and seconds of one request.

    Attributes:
        prompt_tokens: of the prompt.
        completion_tokens: of the answer, the token that ended it included.
        prefill_seconds: from the request to the first token.
        decode_seconds: from the first token to the last.
        cached_tokens: how many of the prompt's tokens were found in the prefix cache.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0
    cached_tokens: int = 0


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A chosen token's natural-log probability, and the alternatives' as (id, logprob), best first."""

    id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Completion:
    """An answer.

    Attributes:
        message: the assistant's turn, tool calls parsed.
        usage: what it took.
        stop_reason: why it ended.
        ids: the new tokens, the one that ended the answer included; empty from a provider that does not say.
        logprobs: one per new token, when they were asked for.
        cost: price in US dollars; 0 for a model on this machine.
        prompt_logprobs: one per token of the prompt after its first, when they were asked for.
        others: the other answers, when more than one was asked for.
    """

    message: Message
    usage: Usage = field(default_factory=Usage)
    stop_reason: StopReason = "end_of_turn"
    ids: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    cost: float = 0.0
    prompt_logprobs: tuple[float, ...] = ()
    others: tuple[Completion, ...] = ()


@dataclass(frozen=True, slots=True)
class TextDelta:
    """More text of the assistant's turn."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """A tool call, whole: Llama's formats can be parsed only once a call has ended."""

    call: ToolCall


@dataclass(frozen=True, slots=True)
class Done:
    """The end of a stream, with the whole answer."""

    completion: Completion


StreamEvent = TextDelta | ToolCallDelta | Done
