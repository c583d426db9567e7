"""`Candidate`: all that a decision knows of one provider's model, at the moment of deciding.

It is plain JSON, so that a decision can be kept and made again. None, "" and an empty list mean that nobody says.
"""

from __future__ import annotations

from dataclasses import dataclass

from puna.stack.routing.facts import Facts
from puna.stack.routing.prices import Rates

ITSELF = "the provider"  # the source of a price that the provider itself says


@dataclass(frozen=True, slots=True)
class Candidate:
    """A provider's model.

    Attributes:
        provider: its id in this server.
        model: as the provider calls it.
        local: whether it runs on this machine.
        input: dollars for a million tokens.
        output: likewise.
        cached_input: likewise.
        context: tokens; 0 where nobody says.
        max_output: tokens of one answer; 0 for no limit but the context.
        precision: of the weights.
        features: of "tools", "json_schema", ...
        trains: whether it may train on prompts.
        retains: whether it keeps prompts.
        region: where it stands.
        quality: on the owner's scale, or the share of known questions that it answers.
        latency_p50: seconds to the first token.
        latency_p90: likewise, kept in nine of ten requests.
        throughput_p50: tokens of one answer a second.
        throughput_p10: likewise, reached in nine of ten.
        failures: share of the last requests that failed.
        observations: how many requests these figures come from.
        cached_tokens: of this request's prompt that the provider probably has in its cache.
        unfit: why it is not to be asked now: an open circuit, a rest that it asked for, a quarantine.
        doubts: about its price.
        price_source: where the price comes from.
    """

    provider: str
    model: str
    local: bool = False
    input: float | None = None
    output: float | None = None
    cached_input: float | None = None
    context: int = 0
    max_output: int = 0
    precision: str = ""
    features: tuple[str, ...] = ()
    trains: bool | None = None
    retains: bool | None = None
    region: str = ""
    quality: float | None = None
    latency_p50: float | None = None
    latency_p90: float | None = None
    throughput_p50: float | None = None
    throughput_p10: float | None = None
    failures: float = 0.0
    observations: int = 0
    cached_tokens: int = 0
    unfit: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    price_source: str = ""

    @property
    def key(self) -> str:
        return f"{self.provider}/{self.model}"

    @property
    def rates(self) -> Rates | None:
        """None where nobody says what it costs."""
        if self.input is None or self.output is None:
            return None
        return Rates(self.input, self.output, self.cached_input)

    def cost(self, facts: Facts) -> int | None:
        """Nanodollars that a request will probably cost."""
        rates = self.rates
        return rates and rates.cost(facts.prompt_tokens, facts.expected_output, self.cached_tokens)

    def most(self, facts: Facts) -> int | None:
        """Nanodollars that it can cost at most."""
        rates = self.rates
        return rates and rates.worst(facts.most_prompt_tokens, facts.max_output)

    def seconds(self, facts: Facts) -> float | None:
        """How long it will probably take, with the failures of late counted as time lost."""
        if self.latency_p50 is None or not self.throughput_p50:
            return None
        whole = self.latency_p50 + facts.expected_output / self.throughput_p50
        return whole / max(0.05, 1.0 - self.failures)
