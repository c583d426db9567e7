"""One route: a policy over the market, with its money. It decides, asks, hands out the answer, and keeps the record.

The record of a decision holds numbers and names, never text: what was known of every candidate, why each lost, who was
asked when and what came of it. It is written when the answer has ended, however it ended.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from puna.base.config import to_dict
from puna.base.errors import RemoteError
from puna.core.completion import Completion, Done, StreamEvent
from puna.stack.context import new_id
from puna.stack.errors import ApiError
from puna.stack.providers.provider import Ask
from puna.stack.routing.accounts import Accounts
from puna.stack.routing.attempt import Attempt, kept
from puna.stack.routing.candidate import Candidate
from puna.stack.routing.config import RouteConfig
from puna.stack.routing.decision import Decision, decide
from puna.stack.routing.explain import judge
from puna.stack.routing.facts import Facts, of_ask
from puna.stack.routing.failures import Failure, classify
from puna.stack.routing.market import Market, State
from puna.stack.routing.prices import PriceBook, dollars
from puna.stack.routing.race import Race
from puna.stack.routing.wishes import Wishes
from puna.stack.state.store import Store, run

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RoutedCompletion(Completion):
    """An answer that says whose it is.

    Attributes:
        route: {"decision", "route", "provider", "model", "precision", "price", "cost", "attempts", "lost"}.
    """

    route: Mapping[str, Any] = field(default_factory=dict)


class Route:
    """Args:
    name: of the route.
    config: its settings.
    state: of the providers, shared by all routes.
    prices: the price file.
    store: where decisions, budgets and the ledger are kept.
    """

    def __init__(self, name: str, config: RouteConfig, state: State, prices: PriceBook, store: Store) -> None:
        self.name, self.config, self.state, self.prices = name, config, state, prices
        self.market = Market(state, config, prices)
        self.accounts = Accounts(
            store, name, config.budget_per_day, config.budget_per_owner, keep_days=config.keep_days
        )

    async def decide(self, ask: Ask, wishes: Wishes) -> Decision:
        """The order in which a request's candidates are asked, and why the others are not."""
        candidates = await self.market.candidates(ask)
        counted = await self._count(ask, candidates)
        facts = of_ask(ask, self.state.meter.usual_output, counted, self.config.open_answer)
        return self.judge(facts, wishes, candidates)

    def judge(self, facts: Facts, wishes: Wishes, candidates: Sequence[Candidate]) -> Decision:
        """The same of facts alone."""
        return judge(facts, self.config, wishes, candidates, secrets.token_hex(8))

    async def _count(self, ask: Ask, candidates: Sequence[Candidate]) -> int | None:
        """Tokens of the prompt by the tokenizer of a model on this machine; the others' are of the same family."""
        for candidate in candidates:
            if candidate.local and ask.messages:
                try:
                    provider = self.state.providers[candidate.provider]
                    counted = await provider.count_tokens(candidate.model, ask.messages, ask.tools)
                except Exception:
                    continue
                if counted is not None:
                    return counted
        return None

    async def answer(self, ask: Ask, wishes: Wishes, keys: Mapping[str, str]) -> AsyncIterator[StreamEvent]:
        """The answer of whoever gives it; `Done` bears a `RoutedCompletion`."""
        id, created, began = new_id("route"), time.time(), asyncio.get_running_loop().time()
        decision = await self.decide(ask, wishes)
        capped = self.accounts.limited or any(limit.max_cost is not None for limit in decision.policy.limits)
        race = Race(ask, decision.facts, decision.order, self.state, self.accounts, self.config, keys, began, capped)
        attempt: Attempt | None = None
        ended = False
        try:
            if not decision.order:
                raise nobody(decision)
            attempt, event = await race.first()
            while not isinstance(event, Done):
                yield event
                event = await self._next(attempt)
            ended = True
            nano = await attempt.finish(
                self.state, self.accounts, event.completion, lambda: self._record(id, created, decision, race)
            )
            yield Done(self._routed(id, decision, race, attempt.candidate, event.completion, nano))
        except CutError as cut:
            assert attempt is not None
            ended = True
            await attempt.fail(self.state, self.accounts, cut.failure, cut=True)
            raise RemoteError(
                f"{attempt.candidate.key} broke off after a part of its answer was handed out: {cut.failure.message}",
                hint="Ask again; another provider cannot go on from there.",
            ) from cut.__cause__
        finally:
            if attempt is None or attempt.line.outcome != "answered":
                closing = [attempt.dropped(self.state, self.accounts, "left")] if attempt and not ended else []
                record = self._record(id, created, decision, race)
                closing.append(kept(asyncio.ensure_future(run(self.accounts.keep, ask.owner, record))))
                await asyncio.wait(closing)

    async def _next(self, attempt: Attempt) -> StreamEvent:
        try:
            return await attempt.next(self.config.idle_timeout)
        except Exception as error:
            raise CutError(classify(error)) from error

    def _record(self, id: str, created: float, decision: Decision, race: Race) -> Mapping[str, Any]:
        return {
            "id": id,
            "object": "routing.decision",
            "created_at": int(created),
            "route": self.name,
            "prices": self.prices.fingerprint,
            **decision.to_json(),
            "attempts": [to_dict(line) for line in race.lines],
            "answered_by": next((line.candidate for line in race.lines if line.outcome == "answered"), None),
            "cost": sum(line.cost for line in race.lines),
        }

    def _routed(
        self, id: str, decision: Decision, race: Race, candidate: Candidate, completion: Completion, nano: int
    ) -> RoutedCompletion:
        known = {f.name: getattr(completion, f.name) for f in fields(Completion)}
        known["cost"] = dollars(nano)
        return RoutedCompletion(**known, route={
            "decision": id,
            "route": self.name,
            "provider": candidate.provider,
            "model": candidate.model,
            "precision": candidate.precision or None,
            "price": {"input": candidate.input, "output": candidate.output, "cached_input": candidate.cached_input,
                      "source": candidate.price_source},
            "cost": dollars(nano),
            "attempts": [to_dict(line) for line in race.lines],
            "lost": {v.candidate: list(v.why) for v in decision.verdicts if v.candidate != candidate.key},
        })  # fmt: skip


class CutError(Exception):
    """An answer broke off after its beginning was handed out."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


def nobody(decision: Decision) -> ApiError:
    """The refusal where no candidate qualifies; 503 where that may pass by itself."""
    if not decision.candidates:
        return ApiError(503, "The route has no models: no provider lists any.", code="no_provider")
    why = "; ".join(f"{verdict.candidate}: {', '.join(verdict.why)}" for verdict in decision.verdicts[:20])
    without = [replace(candidate, unfit=()) for candidate in decision.candidates]
    passing = bool(decide(decision.facts, decision.policy, without).order)
    return ApiError(
        503 if passing else 400,
        f"No provider {'can be asked now' if passing else 'qualifies'}. {why}.",
        code="no_provider" if passing else "no_provider_qualifies",
        param=None if passing else "provider",
    )
