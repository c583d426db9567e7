"""What is asked of a model and what comes back: `SamplingParams`, `Completion`, and the one union of stream events."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from puna.base.errors import ConfigError
from puna.core.chat import Message, ToolCall

StopReason = Literal["end_of_turn", "end_of_message", "stop", "length", "cancelled"]


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How to choose the next token.

    Attributes:
        temperature: 0 takes the most probable token; 1 leaves the model's distribution as it is.
        top_k: keep the k most probable tokens; 0 keeps all.
        top_p: keep the smallest set of tokens whose probability reaches p (nucleus sampling, arXiv 1904.09751).
        min_p: drop tokens less probable than this share of the most probable one.
        repetition_penalty: divide the logits of tokens already seen (arXiv 1909.05858); 1 does nothing.
        max_tokens: stop after this many new tokens.
        stop: stop strings; the text ends before the first that appears.
        seed: the same seed gives the same text; None draws one.
        logprobs: return the log-probability of each chosen token and of this many alternatives; None for none.
    """

    temperature: float = 0.6
    top_k: int = 0
    top_p: float = 0.9
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    max_tokens: int = 256
    stop: tuple[str, ...] = ()
    seed: int | None = None
    logprobs: int | None = None

    def __post_init__(self) -> None:
        if isinstance(self.stop, str):
            raise ConfigError(f"stop is the text {self.stop!r}.", hint=f"Give a list of texts: ({self.stop!r},).")
        bounds = {
            "temperature": (self.temperature >= 0, "at least 0"),
            "top_k": (self.top_k >= 0, "at least 0 (0 keeps every token)"),
            "top_p": (0 < self.top_p <= 1, "above 0 and at most 1"),
            "min_p": (0 <= self.min_p < 1, "at least 0 and below 1"),
            "repetition_penalty": (self.repetition_penalty > 0, "above 0"),
            "max_tokens": (self.max_tokens >= 1, "at least 1"),
            "logprobs": (self.logprobs is None or self.logprobs >= 0, "at least 0, or None"),
        }
        for name, (holds, rule) in bounds.items():
            if not holds:
                raise ConfigError(f"{name} is {getattr(self, name)}, and must be {rule}")


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts and seconds of one request."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0


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
    """

    message: Message
    usage: Usage = field(default_factory=Usage)
    stop_reason: StopReason = "end_of_turn"
    ids: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    cost: float = 0.0


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
