"""Explanations: what a route would decide for a request of some size, without asking anybody.

Over the price file alone it needs no server and no keys: what would this request cost at each who sells the model, and
who of them keeps the limits? That is `puna route explain`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from puna.base.errors import InputError, near
from puna.stack.routing.candidate import Candidate
from puna.stack.routing.config import RouteConfig
from puna.stack.routing.decision import Decision, Policy, decide
from puna.stack.routing.facts import Facts
from puna.stack.routing.prices import PriceBook
from puna.stack.routing.wishes import Wishes


def facts_of(prompt: int, output: int, max_tokens: int | None = None, n: int = 1, needs: Sequence[str] = ()) -> Facts:
    """The facts of a request whose sizes are known."""
    longest = max(max_tokens or output, output)
    return Facts(prompt, prompt, output * n, longest * n, longest, counted=True, needs=tuple(needs))


def offers(book: PriceBook, model: str, cached: int = 0) -> list[Candidate]:
    """The candidates that the price file has for a model.

    Raises:
        InputError: it has none.
    """
    rows = book.of_model(model)
    if not rows:
        raise InputError(f"The price file has no model {model!r}.", hint=near(model, book.models()))
    return [
        Candidate(
            provider=row.provider,
            model=row.model,
            input=row.input,
            output=row.output,
            cached_input=row.cached_input,
            context=row.context,
            max_output=row.max_output,
            precision=row.precision,
            features=row.features,
            trains=row.trains,
            retains=row.retains,
            region=row.region,
            cached_tokens=cached,
            doubts=book.doubts(row),
            price_source=row.url,
        )
        for row in rows
    ]


def judge(
    facts: Facts, config: RouteConfig, wishes: Wishes, candidates: Sequence[Candidate], seed: str = "explain"
) -> Decision:
    """A decision by a route's settings and a request's wishes."""
    policy = Policy(
        strategy=wishes.strategy or config.strategy,
        limits=(config.limits, wishes.limits),
        weights=config.weights,
        order=wishes.order or config.order,
        fallbacks=wishes.fallbacks and config.fallbacks,
        seed=seed,
    )
    return decide(facts, policy, candidates)


def with_cached(candidates: Sequence[Candidate], tokens: int) -> list[Candidate]:
    """The candidates as if each had so many tokens of the prompt in its cache."""
    return [replace(candidate, cached_tokens=tokens) for candidate in candidates] if tokens else list(candidates)
