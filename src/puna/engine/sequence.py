"""A request, and the state of one sequence that answers it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from puna.core.completion import SamplingParams, StopReason, TokenLogprob
from puna.engine.adapters import Adapter
from puna.engine.sampler import Sampler

if TYPE_CHECKING:
    from puna.engine.grammar import Matcher

# Told of each new token; a reason ends the sequence with it.
OnToken = Callable[[int], StopReason | None]


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked of the engine: one sequence.

    Attributes:
        prompt: token ids.
        params: how to sample, and when to stop.
        priority: lower goes first.
        tenant: whose request it is: tenants share no cached text, and wait in turns.
        adapter: name of a loaded LoRA adapter; "" for none.
    """

    prompt: tuple[int, ...]
    params: SamplingParams
    priority: int = 0
    tenant: str = ""
    adapter: str = ""


@dataclass(slots=True, eq=False)
class Sequence:
    """One sequence under way.

    Attributes:
        number: in the order of arrival.
        request: what was asked.
        limit: tokens at most, the prompt's included.
        sampler: the state of its sampling.
        matcher: the state of its grammar, if it has one.
        adapter: the one of its request's name when it began.
        on_token: told of each new token.
        tokens: the prompt, and what has been generated.
        drafts: guesses of the tokens that follow, for the coming step.
        pages: of the cache, in order.
        hashes: of the pages that are full.
        computed: tokens whose keys and values are in the cache.
        cached_tokens: tokens of the prompt that were found in the prefix cache.
        logprobs: one per new token, when asked for.
        prompt_logprobs: one per token of the prompt after its first, when asked for.
        stop_reason: None while it runs.
        error: what made it fail, without touching the others.
        preemptions: how often it had to give its pages back.
    """

    number: int
    request: Request
    limit: int
    sampler: Sampler
    matcher: Matcher | None = None
    adapter: Adapter | None = None
    on_token: OnToken | None = None
    tokens: list[int] = field(default_factory=list)
    drafts: list[int] = field(default_factory=list)
    pages: list[int] = field(default_factory=list)
    hashes: list[bytes] = field(default_factory=list)
    computed: int = 0
    cached_tokens: int = 0
    logprobs: list[TokenLogprob] = field(default_factory=list)
    prompt_logprobs: list[float] = field(default_factory=list)
    stop_reason: StopReason | None = None
    error: Exception | None = None
    preemptions: int = 0

    @property
    def ids(self) -> list[int]:
        """The new tokens."""
        return self.tokens[len(self.request.prompt) :]

    @property
    def salt(self) -> str:
        """What must be equal for two sequences to share pages: an adapter changes keys and values."""
        return f"{self.request.tenant}\0{self.adapter.number if self.adapter else ''}"

    @property
    def pending(self) -> int:
        """Tokens that must be computed before the next one can be chosen."""
        return len(self.tokens) - self.computed

    @property
    def decoding(self) -> bool:
        """Whether all but what was generated last has been computed."""
        return self.computed >= len(self.request.prompt)

    @property
    def ended(self) -> bool:
        return self.stop_reason is not None or self.error is not None

    @property
    def urgency(self) -> tuple[int, int]:
        """The less, the sooner its turn."""
        return self.request.priority, self.number
