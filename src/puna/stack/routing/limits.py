"""The hard limits: why a candidate may not be asked, all reasons at once, so that nobody finds them one by one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase

from puna.stack.routing.candidate import Candidate
from puna.stack.routing.config import Limits, bits
from puna.stack.routing.facts import Facts
from puna.stack.routing.prices import dollars

_ASSUMED_CONTEXT = 4096  # where nobody says


def matches(candidate: Candidate, patterns: Iterable[str]) -> bool:
    """Whether one of the patterns names the candidate's provider, or its provider and model."""
    names = (candidate.provider.lower(), candidate.key.lower())
    return any(fnmatchcase(name, pattern.lower()) for pattern in patterns for name in names)


def reasons(candidate: Candidate, facts: Facts, limits: Sequence[Limits]) -> tuple[str, ...]:
    """Why a candidate does not qualify; empty where it does."""
    found = [*candidate.unfit, *_capacity(candidate, facts)]
    needed = [*facts.needs, *(feature for limit in limits for feature in limit.features)]
    if missing := [feature for feature in dict.fromkeys(needed) if feature not in candidate.features]:
        found.append(f"does not offer {', '.join(missing)}")
    for limit in limits:
        found += [*_names(candidate, limit), *_precision(candidate, limit), *_policy(candidate, limit)]
        found += [*_price(candidate, facts, limit), *_speed(candidate, limit)]
    return tuple(dict.fromkeys(found))


def _capacity(candidate: Candidate, facts: Facts) -> Iterator[str]:
    context = candidate.context or _ASSUMED_CONTEXT
    if facts.context > context:
        said = "" if candidate.context else " (assumed, as nobody says)"
        yield f"context of {context:,} tokens{said}, and {facts.context:,} are needed"
    if 0 < candidate.max_output < facts.longest and not facts.open_end:
        yield f"answers of at most {candidate.max_output:,} tokens, and {facts.longest:,} are asked for"


def _names(candidate: Candidate, limits: Limits) -> Iterator[str]:
    if limits.only and not matches(candidate, limits.only):
        yield f"not among {', '.join(limits.only)}"
    if matches(candidate, limits.ignore):
        yield "left out by name"


def _precision(candidate: Candidate, limits: Limits) -> Iterator[str]:
    has = candidate.precision
    if limits.precision and bits(has) < bits(limits.precision):
        yield f"{has or 'nobody says its precision'}, and at least {limits.precision} is demanded"
    if limits.precisions and has not in limits.precisions:
        yield f"{has or 'nobody says its precision'}, and only {' or '.join(limits.precisions)} will do"


def _policy(candidate: Candidate, limits: Limits) -> Iterator[str]:
    if candidate.local:
        return  # nothing leaves this machine
    if limits.local:
        yield "not on this machine"
    for demanded, value, does in (
        (limits.no_training, candidate.trains, "train on prompts"),
        (limits.no_retention, candidate.retains, "keep prompts"),
    ):
        if demanded and value is not False:
            yield f"may {does}" if value else f"nobody says that it does not {does}"
    if limits.regions and candidate.region not in limits.regions:
        yield f"stands in {candidate.region or 'an unknown region'}, and not in {' or '.join(limits.regions)}"


def _price(candidate: Candidate, facts: Facts, limits: Limits) -> Iterator[str]:
    for what, value, most in (
        ("prompt", candidate.input, limits.max_input_price),
        ("answer", candidate.output, limits.max_output_price),
    ):
        if most is not None and (value is None or value > most):
            price = "an unknown price" if value is None else f"${value:g}"
            yield f"{price} for a million tokens of {what}, and at most ${most:g} is allowed"
    if limits.max_cost is not None:
        worst = candidate.most(facts)
        if worst is None or dollars(worst) > limits.max_cost:
            price = "nobody knows what" if worst is None else f"up to ${dollars(worst):.6f}"
            yield f"may cost {price}, and at most ${limits.max_cost:g} is allowed"
    if limits.no_doubt and candidate.doubts:
        yield f"its price is doubtful: {'; '.join(candidate.doubts)}"


def _speed(candidate: Candidate, limits: Limits) -> Iterator[str]:
    """What has not been measured yet may be tried, or it never would be."""
    latency, throughput, quality = candidate.latency_p90, candidate.throughput_p10, candidate.quality
    if limits.max_latency is not None and latency is not None and latency > limits.max_latency:
        most = f"at most {limits.max_latency:g} s is allowed"
        yield f"{latency:.2f} s to the first token in the slowest tenth, and {most}"
    if limits.min_throughput is not None and throughput is not None and throughput < limits.min_throughput:
        yield f"{throughput:.1f} tokens/s in the slowest tenth, and at least {limits.min_throughput:g} is demanded"
    if limits.min_quality is not None and (quality is None or quality < limits.min_quality):
        known = "unknown" if quality is None else f"{quality:g}"
        yield f"quality {known}, and at least {limits.min_quality:g} is demanded"
