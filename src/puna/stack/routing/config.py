"""What a route demands and prefers: the settings of a `[routes.NAME]` table in stack.toml.

    [routes.auto]
    strategy = "cheapest"
    models = ["lambda/*", "local/*"]
    budget_per_day = 5.0
    limits = { precision = "fp8", no_training = true }

    [[routes.auto.endpoints]]
    provider = "local"
    model = "*"
    per_hour = 2.10
    prefill_per_second = 4000
    decode_per_second = 90

A request may tighten these limits, and never loosen them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from puna.base.config import require

Strategy = Literal["cheapest", "fastest", "best", "private", "weighted", "spread"]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a provider must fulfil to be asked at all. Where nobody says whether it does, it does not.

    Attributes:
        only: patterns of "provider" or "provider/model"; any where empty.
        ignore: likewise, of those that are not asked.
        precision: the least, such as "fp8" or "bf16"; "" for any.
        precisions: the only ones that will do.
        features: of "tools", "json_schema", "logprobs", "seed", "images", beyond those that the request itself needs.
        local: only on this machine.
        no_training: only where prompts are not trained on.
        no_retention: only where prompts are not kept.
        regions: only there; a machine of one's own counts as anywhere.
        max_input_price: dollars for a million tokens.
        max_output_price: likewise.
        max_cost: dollars that this one request may cost at worst.
        max_latency: seconds to the first token, kept in nine of ten requests; one not measured yet may be tried.
        min_throughput: tokens a second, reached in nine of ten; likewise.
        min_quality: on the scale of the endpoints' `quality`.
        no_doubt: leave out whose price is doubtful.
    """

    only: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    precision: str = ""
    precisions: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    local: bool = False
    no_training: bool = False
    no_retention: bool = False
    regions: tuple[str, ...] = ()
    max_input_price: float | None = None
    max_output_price: float | None = None
    max_cost: float | None = None
    max_latency: float | None = None
    min_throughput: float | None = None
    min_quality: float | None = None
    no_doubt: bool = False

    def __post_init__(self) -> None:
        if self.precision:
            require(bits(self.precision) > 0, f"precision is {self.precision!r}.", "Write bf16, fp8, int8, int4, ...")
        for name in ("max_input_price", "max_output_price", "max_cost", "max_latency", "min_throughput"):
            value = getattr(self, name)
            require(value is None or value >= 0, f"{name} is {value}, and must be at least 0.")


def bits(precision: str) -> int:
    """Bits of a weight: "fp8" -> 8; 0 where the name says none."""
    found = re.search(r"\d+", precision)
    return int(found[0]) if found else 0


@dataclass(frozen=True, slots=True)
class Weights:
    """How much each figure counts in the strategy "weighted"; each is compared with the best of the candidates."""

    cost: float = 1.0
    latency: float = 0.5
    throughput: float = 0.5
    quality: float = 1.0

    def __post_init__(self) -> None:
        for name in ("cost", "latency", "throughput", "quality"):
            require(getattr(self, name) >= 0, f"weights.{name} is {getattr(self, name)}, and must be at least 0.")


@dataclass(frozen=True, slots=True)
class EndpointConfig:
    """What the owner knows of a provider's model; it wins over the provider's own words and over the price file.

    Attributes:
        provider: its id in this server.
        model: as the provider calls it, or a pattern.
        input: dollars for a million tokens.
        output: likewise.
        cached_input: likewise, of a prompt's part that the provider has cached.
        per_hour: dollars for an hour of the machine, in place of prices by token.
        prefill_per_second: tokens of prompts that the machine reads, until it has been measured.
        decode_per_second: tokens of one answer that it writes, until it has been measured; who answers several at
            once is cheaper than this says.
        context: tokens.
        precision: of the weights.
        features: that it has beyond those that it names itself.
        trains: whether it may train on prompts.
        retains: whether it keeps prompts.
        region: where it stands.
        quality: on a scale of one's own.
    """

    provider: str
    model: str = "*"
    input: float | None = None
    output: float | None = None
    cached_input: float | None = None
    per_hour: float | None = None
    prefill_per_second: float = 1000.0
    decode_per_second: float = 20.0
    context: int = 0
    precision: str = ""
    features: tuple[str, ...] = ()
    trains: bool | None = None
    retains: bool | None = None
    region: str = ""
    quality: float | None = None

    def __post_init__(self) -> None:
        require((self.input is None) == (self.output is None), f"{self.provider}: input and output go together.")
        require(self.per_hour is None or self.input is None, f"{self.provider}: a price by the hour or by the token.")
        for name in ("input", "output", "cached_input", "per_hour"):
            value = getattr(self, name)
            require(value is None or value >= 0, f"{self.provider}: {name} is {value}, and must be at least 0.")
        for name in ("prefill_per_second", "decode_per_second"):
            require(getattr(self, name) > 0, f"{self.provider}: {name} must be above 0.")


@dataclass(frozen=True, slots=True)
class CanaryConfig:
    """Questions with known answers that are put to every provider now and then.

    Attributes:
        every: seconds between two questions to one model; 0 for none.
        questions: a TOML file of one's own; "" for those that come with Puna.
        right: the share that a sound model answers; for a small model, measure it.
        degraded: the share that shows a model to be another one, or coarser than it says.
        logprob_shift: how far the answers' mean log-probability must lie from the reference, in its deviations, where
            the questions have one.
        false_alarm: how seldom a sound model may be shut out: once in 1 / this many verdicts.
        miss: how seldom a degraded one may be cleared.
    """

    every: float = 0.0
    questions: str = ""
    right: float = 0.95
    degraded: float = 0.75
    logprob_shift: float = 1.0
    false_alarm: float = 0.001
    miss: float = 0.01

    def __post_init__(self) -> None:
        require(self.every >= 0, f"canaries.every is {self.every}, and must be at least 0.")
        require(0 < self.degraded < self.right < 1, "canaries need 0 < degraded < right < 1.")
        require(self.logprob_shift > 0, f"canaries.logprob_shift is {self.logprob_shift}, and must be above 0.")
        for name in ("false_alarm", "miss"):
            require(0 < getattr(self, name) < 0.5, f"canaries.{name} must be between 0 and 0.5.")


@dataclass(frozen=True, slots=True)
class RouteConfig:
    """A route.

    Attributes:
        strategy: "cheapest", "fastest", "best" (quality), "private" (this machine first, then who keeps nothing, then
            who does not train), "weighted", or "spread" (a draw with weights of 1 / cost squared, to spread load).
        models: patterns of "provider/model"; all where empty.
        order: patterns of those that come first, whatever the strategy says.
        fallbacks: whether another is asked where the first fails.
        limits: of all requests.
        weights: of the strategy "weighted".
        endpoints: what is known of providers' models.
        prices: a price file of one's own; "" for the one that comes with Puna.
        retries: further attempts with one provider after a failure that may pass.
        first_wait: seconds; the longest first wait between two attempts, doubled with each.
        max_wait: seconds; a provider that asks for more is left alone until then.
        first_token_timeout: seconds without a first token after which a provider has failed.
        idle_timeout: seconds without a further piece after which an answer has broken off.
        hedge: share of a provider's own requests whose first token had come by then, after which a second one is asked
            too: 0.95; 0 for never.
        hedge_least: seconds before which nobody is hedged; also what is waited for one not measured yet.
        trip: failures in a row that open a provider's circuit.
        cool_down: seconds that it stays open the first time, doubled each time that its probe fails.
        sticky: seconds that a provider is believed to have a prompt's beginning in its cache; 0 for none.
        budget_per_day: dollars, all requests of the route; None for no limit. Days are those of UTC.
        budget_per_owner: dollars a day for each owner of keys.
        canaries: known questions.
        expected_output: tokens of an answer, until the route has seen some.
        open_answer: tokens of an answer at most, where a request names no limit and money is limited.
        keep_days: how long records of decisions are kept; the ledger stays.
    """

    strategy: Strategy = "cheapest"
    models: tuple[str, ...] = ()
    order: tuple[str, ...] = ()
    fallbacks: bool = True
    limits: Limits = field(default_factory=Limits)
    weights: Weights = field(default_factory=Weights)
    endpoints: tuple[EndpointConfig, ...] = ()
    prices: str = ""
    retries: int = 1
    first_wait: float = 0.25
    max_wait: float = 5.0
    first_token_timeout: float = 60.0
    idle_timeout: float = 120.0
    hedge: float = 0.0
    hedge_least: float = 0.5
    trip: int = 5
    cool_down: float = 10.0
    sticky: float = 300.0
    budget_per_day: float | None = None
    budget_per_owner: float | None = None
    canaries: CanaryConfig = field(default_factory=CanaryConfig)
    expected_output: int = 256
    open_answer: int = 4096
    keep_days: float = 30.0

    def __post_init__(self) -> None:
        require(self.retries >= 0, f"retries is {self.retries}, and must be at least 0.")
        require(self.trip >= 1, f"trip is {self.trip}, and must be at least 1.")
        require(0 <= self.hedge < 1, f"hedge is {self.hedge}; it must be at least 0 and below 1.")
        require(min(self.first_token_timeout, self.idle_timeout) > 0, "Timeouts must be above 0 seconds.")
        for name in ("expected_output", "open_answer"):
            require(getattr(self, name) >= 1, f"{name} is {getattr(self, name)}, and must be at least 1.")
        for name in ("first_wait", "max_wait", "hedge_least", "cool_down", "sticky", "keep_days"):
            require(getattr(self, name) >= 0, f"{name} is {getattr(self, name)}, and must be at least 0.")
        for name in ("budget_per_day", "budget_per_owner"):
            value = getattr(self, name)
            require(value is None or value >= 0, f"{name} is {value}, and must be at least 0.")


DEFAULT_ROUTES: Mapping[str, RouteConfig] = {
    "auto": RouteConfig(),
    "fastest": RouteConfig(strategy="fastest"),
    "best": RouteConfig(strategy="best"),
    "private": RouteConfig(strategy="private", limits=Limits(local=True)),
    "weighted": RouteConfig(strategy="weighted"),
}
