"""What has been measured of each provider's model: first tokens, tokens a second, failures, and what answers come to.

Figures are of the last requests of this process; after a restart they are gathered anew. A quantile is a value that was
measured, never one between two: with two observations, nine tenths are the larger of them.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from puna.core.completion import Usage

WINDOW = 200  # observations that count
_LEAST_TOKENS = 8  # an answer of fewer says nothing about the speed
_MEMORY = 0.05  # how much one answer moves the usual length


def quantile(values: Iterable[float], share: float) -> float | None:
    """The least value that at least this share of the values does not exceed; None of nothing."""
    ordered = sorted(values)
    if not ordered:
        return None
    return ordered[min(len(ordered) - 1, max(0, math.ceil(share * len(ordered)) - 1))]


@dataclass(slots=True)
class Measured:
    """The last observations of one candidate.

    Attributes:
        latencies: seconds to the first token.
        rates: tokens of one answer a second.
        prefill: tokens of the prompt that were read a second, the cached ones left out.
        outcomes: True for an answer, False for a failure.
    """

    latencies: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))
    rates: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))
    prefill: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))
    outcomes: deque[bool] = field(default_factory=lambda: deque(maxlen=WINDOW))

    def answered(self, latency: float, seconds: float, usage: Usage) -> None:
        """Takes in an answer.

        Args:
            latency: seconds to its first token.
            seconds: from there to its last.
            usage: what it took.
        """
        self.outcomes.append(True)
        self.latencies.append(latency)
        decoding = usage.decode_seconds or seconds
        if usage.completion_tokens >= _LEAST_TOKENS and decoding > 0:
            self.rates.append((usage.completion_tokens - 1) / decoding)
        fresh, prefill = usage.prompt_tokens - usage.cached_tokens, usage.prefill_seconds or latency
        if fresh >= _LEAST_TOKENS and prefill > 0:
            self.prefill.append(fresh / prefill)

    def failed(self) -> None:
        self.outcomes.append(False)

    @property
    def failures(self) -> float:
        """Share of the last requests that failed."""
        return self.outcomes.count(False) / len(self.outcomes) if self.outcomes else 0.0


class Meter:
    """All candidates' measurements, and the usual length of an answer."""

    def __init__(self, expected_output: float = 256.0) -> None:
        self.usual_output = expected_output
        self._measured: dict[str, Measured] = {}

    def of(self, key: str) -> Measured:
        """The measurements of a "provider/model"."""
        return self._measured.setdefault(key, Measured())

    def learn_length(self, tokens: int) -> None:
        if tokens > 0:
            self.usual_output += _MEMORY * (tokens - self.usual_output)
