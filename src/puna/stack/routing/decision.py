"""A decision: from facts, limits and candidates to an order in which they are asked, and why each other lost.

`decide` is a function of its arguments alone: no clock, no chance, no other state. What it is given is kept with what
it says, so that `replay` can make any decision of the log again and say whether it comes out the same. Even the draw of
the strategy "spread" comes from a seed that is kept.
"""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from puna.base.config import from_dict, to_dict
from puna.stack.routing.candidate import Candidate
from puna.stack.routing.config import Limits, Strategy, Weights, bits
from puna.stack.routing.facts import Facts
from puna.stack.routing.limits import matches, reasons
from puna.stack.routing.prices import dollars

FORMAT = 1
_NEVER = float("inf")


@dataclass(frozen=True, slots=True)
class Policy:
    """How to choose.

    Attributes:
        strategy: what comes first.
        limits: all of them must be kept: the route's, and the request's own.
        weights: of the strategy "weighted".
        order: patterns of those that come first, whatever the strategy says.
        fallbacks: whether those after the first may be asked.
        seed: of the strategy "spread".
    """

    strategy: Strategy = "cheapest"
    limits: tuple[Limits, ...] = ()
    weights: Weights = field(default_factory=Weights)
    order: tuple[str, ...] = ()
    fallbacks: bool = True
    seed: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a candidate.

    Attributes:
        candidate: "provider/model".
        place: 1 for the first to be asked; 0 for one that may not be.
        cost: dollars that the request will probably cost there; None where nobody knows.
        most: dollars at most.
        seconds: how long it will probably take; None where it has not been measured.
        score: by which the strategy ranked it; more is better.
        why: the reasons against it; for the first, what speaks for it.
    """

    candidate: str
    place: int
    cost: float | None = None
    most: float | None = None
    seconds: float | None = None
    score: float | None = None
    why: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Decision:
    """An order of candidates with everything that led to it."""

    facts: Facts
    policy: Policy
    candidates: tuple[Candidate, ...]
    verdicts: tuple[Verdict, ...]

    @property
    def order(self) -> tuple[Candidate, ...]:
        """Those to be asked, in turn."""
        places = {verdict.candidate: verdict.place for verdict in self.verdicts}
        return tuple(sorted((c for c in self.candidates if places[c.key]), key=lambda c: places[c.key]))

    def to_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "facts": to_dict(self.facts),
            "policy": to_dict(self.policy),
            "candidates": [to_dict(candidate) for candidate in self.candidates],
            "verdicts": [to_dict(verdict) for verdict in self.verdicts],
        }


def decide(facts: Facts, policy: Policy, candidates: Sequence[Candidate]) -> Decision:
    """Ranks the candidates that keep all limits, and says why the others do not."""
    against = {c.key: reasons(c, facts, policy.limits) for c in candidates}
    fit = [c for c in candidates if not against[c.key]]
    seconds = _seconds(fit, facts)
    scores = _scores(fit, facts, policy, seconds)
    ranked = sorted(fit, key=lambda c: (_named(c, policy), -scores[c.key], *_ties(c, facts, seconds)))
    if not policy.fallbacks:
        against |= {c.key: (f"no fallbacks, and {ranked[0].key} comes first",) for c in ranked[1:]}
        ranked = ranked[:1]
    verdicts = []
    for place, c in enumerate(ranked, 1):
        why = _praise(c, facts, policy) if place == 1 else _behind(c, ranked[0], facts, policy, seconds)
        verdicts.append(_verdict(c, place, facts, scores.get(c.key), why))
    kept = {c.key for c in ranked}
    verdicts += [_verdict(c, 0, facts, None, against[c.key]) for c in candidates if c.key not in kept]
    return Decision(facts, policy, tuple(candidates), tuple(verdicts))


def read(record: Mapping[str, Any]) -> Decision:
    """A decision as it was kept."""
    return Decision(
        facts=from_dict(Facts, record["facts"]),
        policy=from_dict(Policy, record["policy"]),
        candidates=tuple(from_dict(Candidate, row) for row in record["candidates"]),
        verdicts=tuple(from_dict(Verdict, row) for row in record["verdicts"]),
    )


def replay(record: Mapping[str, Any]) -> tuple[Decision, bool]:
    """Makes a kept decision again; also whether it came out the same."""
    kept = read(record)
    again = decide(kept.facts, kept.policy, kept.candidates)
    return again, again == kept


# Ranking --------------------------------------------------------------------------------------------------------------


def _named(candidate: Candidate, policy: Policy) -> int:
    """The place in the order that was asked for by name."""
    for place, pattern in enumerate(policy.order):
        if matches(candidate, (pattern,)):
            return place
    return len(policy.order)


def _ties(candidate: Candidate, facts: Facts, seconds: Mapping[str, float]) -> tuple[float, int, float, str]:
    """What decides between equals: the price, then who has the prompt in its cache, then the speed, then the name."""
    cost = candidate.cost(facts)
    return _NEVER if cost is None else cost, -candidate.cached_tokens, seconds[candidate.key], candidate.key


def _seconds(fit: Sequence[Candidate], facts: Facts) -> dict[str, float]:
    """How long each takes; one not measured yet is taken for one in the middle, so that it gets its turn."""
    known = {c.key: s for c in fit if (s := c.seconds(facts)) is not None}
    middle = statistics.median(known.values()) if known else 0.0
    return {c.key: known.get(c.key, middle) for c in fit}


def _scores(fit: Sequence[Candidate], facts: Facts, policy: Policy, seconds: Mapping[str, float]) -> dict[str, float]:
    match policy.strategy:
        case "cheapest":
            return {c.key: -_cost(c, facts) for c in fit}
        case "fastest":
            return {c.key: -seconds[c.key] for c in fit}
        case "best":
            # The same weights in more bits come first among those of one quality.
            return {c.key: (0.0 if c.quality is None else c.quality) + bits(c.precision) * 1e-6 for c in fit}
        case "private":
            return {c.key: float(4 * c.local + 2 * (c.retains is False) + (c.trains is False)) for c in fit}
        case "weighted":
            return _weighted(fit, facts, policy.weights)
        case "spread":
            return _drawn(fit, facts, policy.seed)


def _cost(candidate: Candidate, facts: Facts) -> float:
    """In dollars; one whose price nobody knows is dearer than all."""
    cost = candidate.cost(facts)
    return 1e12 if cost is None else dollars(cost)


def _weighted(fit: Sequence[Candidate], facts: Facts, weights: Weights) -> dict[str, float]:
    """A sum of shares: in each figure the best has 1, one that is half as good has 0.5."""

    def shares(values: Mapping[str, float | None], less: bool) -> dict[str, float]:
        known = [value for value in values.values() if value is not None]
        middle = statistics.median(known) if known else 1.0
        filled = {key: middle if value is None else value for key, value in values.items()}
        best = min(filled.values()) if less else max(filled.values())
        if less:
            return {key: 1.0 if value == best else best / value for key, value in filled.items()}
        return {key: value / best if best > 0 else 1.0 for key, value in filled.items()}

    figures = (
        (weights.cost, shares({c.key: _cost(c, facts) for c in fit}, True)),
        (weights.latency, shares({c.key: c.latency_p50 for c in fit}, True)),
        (weights.throughput, shares({c.key: c.throughput_p50 for c in fit}, False)),
        (weights.quality, shares({c.key: c.quality for c in fit}, False)),
    ) if fit else ()  # fmt: skip
    return {c.key: sum(weight * share[c.key] for weight, share in figures) for c in fit}


def _drawn(fit: Sequence[Candidate], facts: Facts, seed: str) -> dict[str, float]:
    """A weighted draw without replacement (Efraimidis and Spirakis, 2006), with weights of 1 / cost squared."""
    costs = {c.key: _cost(c, facts) for c in fit}
    least = min(costs.values(), default=0.0)
    if not least:
        return {key: 1.0 if not cost else 0.0 for key, cost in costs.items()}
    return {key: _uniform(seed, key) ** ((cost / least) ** 2) for key, cost in costs.items()}


def _uniform(seed: str, key: str) -> float:
    """A number between 0 and 1 that a seed and a name fix."""
    return (int.from_bytes(hashlib.sha256(f"{seed}:{key}".encode()).digest()[:6]) + 0.5) / 2**48


# Saying why -----------------------------------------------------------------------------------------------------------


def _verdict(c: Candidate, place: int, facts: Facts, score: float | None, why: tuple[str, ...]) -> Verdict:
    cost, most = c.cost(facts), c.most(facts)
    return Verdict(
        c.key,
        place,
        None if cost is None else dollars(cost),
        None if most is None else dollars(most),
        c.seconds(facts),
        score,
        why,
    )


def _praise(c: Candidate, facts: Facts, policy: Policy) -> tuple[str, ...]:
    if policy.order and _named(c, policy) < len(policy.order):
        return ("named first",)
    words = {
        "cheapest": "the cheapest that qualifies",
        "fastest": "the fastest that qualifies",
        "best": "the best that qualifies",
        "private": "on this machine" if c.local else "the most private that qualifies",
        "weighted": "the best sum of weights",
        "spread": "drawn",
    }
    doubts = tuple(f"its price is doubtful: {doubt}" for doubt in c.doubts)
    return (words[policy.strategy], *doubts)


def _behind(
    c: Candidate, first: Candidate, facts: Facts, policy: Policy, seconds: Mapping[str, float]
) -> tuple[str, ...]:
    name = first.provider if first.model == c.model else first.key
    if _named(c, policy) != _named(first, policy):
        return (f"{name} is named before it",)
    cost, best = c.cost(facts), first.cost(facts)
    if policy.strategy == "fastest" and seconds[c.key] > seconds[first.key]:
        return (f"{seconds[c.key] - seconds[first.key]:.2f} s slower than {name}",)
    if policy.strategy == "best":
        if (c.quality or 0.0) < (first.quality or 0.0):
            return (f"quality {'unknown' if c.quality is None else f'{c.quality:g}'}, {name} has {first.quality:g}",)
        if bits(c.precision) < bits(first.precision):
            return (f"{c.precision or 'an unknown precision'}, {name} has {first.precision}",)
    if policy.strategy == "private" and first.local and not c.local:
        return ("not on this machine",)
    if policy.strategy in ("weighted", "spread"):
        return ("a lower sum of weights",) if policy.strategy == "weighted" else ("drawn later",)
    if cost is None:
        return ("nobody says what it costs",)
    if best is not None and cost > best:
        return (f"${dollars(cost - best):.6f} dearer than {name}",)
    if c.cached_tokens < first.cached_tokens:
        return (f"{name} has {first.cached_tokens:,} tokens of the prompt in its cache",)
    return (f"no better than {name}",)
