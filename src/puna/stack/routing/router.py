"""`Router`: a provider whose models are routes, and whose answers come from the other providers.

"auto/cheapest" is the route "cheapest" of the router "auto". Where stack.toml names no routes there is one for each
strategy. Every decision is kept and can be made again; every answer says who gave it and what it cost.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, cast

from puna.base.config import from_dict
from puna.base.errors import ConfigError, InputError, near
from puna.core.chat import Message, ToolSpec
from puna.core.completion import StreamEvent
from puna.stack import spans
from puna.stack.errors import invalid
from puna.stack.providers.provider import Ask, Health, ModelInfo, Provider
from puna.stack.routing.accounts import Short
from puna.stack.routing.attempt import settled
from puna.stack.routing.canaries import Finding, Question, Watch, put, read_questions
from puna.stack.routing.config import DEFAULT_ROUTES, RouteConfig
from puna.stack.routing.facts import of_ask
from puna.stack.routing.market import State
from puna.stack.routing.prices import PriceBook, built_in, read_prices
from puna.stack.routing.route import Route
from puna.stack.routing.wishes import read_wishes
from puna.stack.state.store import Store, run

WATCH = "routing_watch"
_log = logging.getLogger(__name__)


class Router:
    """Args:
    providers: by id; routers among them are left out.
    store: where decisions, budgets, the ledger and the canaries' findings are kept.
    routes: name -> settings.
    id: of this provider.
    prices: in place of each route's own price file.
    """

    type = "inline::router"

    def __init__(
        self,
        providers: Mapping[str, Provider],
        store: Store,
        routes: Mapping[str, RouteConfig] = DEFAULT_ROUTES,
        id: str = "auto",
        prices: PriceBook | None = None,
    ) -> None:
        if not routes:
            raise ConfigError("A router without routes answers nothing.", hint="Name one: [routes.auto].")
        others = {name: provider for name, provider in providers.items() if provider.type != self.type}
        self.id, self.store = id, store
        watching = next((config for config in routes.values() if config.canaries.every), next(iter(routes.values())))
        self.state = State(others, watching)
        self.routes = {
            name: Route(name, config, self.state, prices or _prices(config), store) for name, config in routes.items()
        }
        self._questions: Sequence[Question] = ()
        self._watching: asyncio.Task[None] | None = None

    async def start(self) -> None:
        canaries = self.state.config.canaries
        if canaries.every:
            self._questions = read_questions(canaries.questions)
            for record in (await run(self.store.list, WATCH, limit=10_000)).records:
                self.state.watches[record.id] = Watch.from_json(canaries, record.data)
            self._watching = asyncio.ensure_future(self._watch())

    async def stop(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        await settled()

    async def models(self) -> Sequence[ModelInfo]:
        found = []
        for name, route in self.routes.items():
            candidates = await route.market.candidates()
            features = frozenset(feature for candidate in candidates for feature in candidate.features)
            context = max((candidate.context for candidate in candidates), default=0)
            meta = {"strategy": route.config.strategy, "candidates": [candidate.key for candidate in candidates]}
            found.append(ModelInfo(name, context_length=context, features=features, meta=meta))
        return found

    async def health(self) -> Health:
        """Whether anybody can be asked; who cannot is named."""
        shut = {}
        candidates = [candidate for route in self.routes.values() for candidate in await route.market.candidates()]
        for candidate in candidates:
            if candidate.unfit:
                shut[candidate.key] = "; ".join(candidate.unfit)
        fit = [candidate for candidate in candidates if not candidate.unfit]
        return Health(bool(fit), ". ".join(f"{key}: {why}" for key, why in sorted(shut.items())))

    async def stream(self, ask: Ask) -> AsyncIterator[StreamEvent]:
        """The answer of the route that `ask.model` names.

        `ask.routing`, where a request has it, is OpenRouter's `provider` object, and its `keys` are the caller's own by
        provider.
        """
        routing: dict[str, Any] = dict(getattr(ask, "routing", None) or {})
        keys = routing.pop("keys", {})
        if not isinstance(keys, Mapping):
            raise invalid("provider.keys must be an object: a key for each provider.", "provider.keys")
        route = self.route(ask.model)
        span = spans.begin(f"route {ask.model}", {"puna.route": ask.model})
        async with aclosing(cast(Any, spans.along(span, route.answer(ask, read_wishes(routing), keys)))) as events:
            async for event in events:
                yield event

    def route(self, name: str) -> Route:
        """A route by its name.

        Raises:
            InputError: there is none.
        """
        if name not in self.routes:
            raise InputError(f"There is no route {name!r}.", hint=near(name, self.routes))
        return self.routes[name]

    async def embed(self, model: str, texts: Sequence[str]) -> list[list[float]]:
        raise InputError(
            "A route gives no embeddings: vectors of different models cannot be compared.",
            hint="Name one model for all texts.",
        )

    async def count_tokens(self, model: str, messages: Sequence[Message], tools: Sequence[ToolSpec] = ()) -> int | None:
        for candidate in await self.route(model).market.candidates():
            provider = self.state.providers[candidate.provider]
            if (counted := await provider.count_tokens(candidate.model, messages, tools)) is not None:
                return counted
        return None

    # Canaries --------------------------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        every = self.state.config.canaries.every
        while True:
            await asyncio.sleep(every * random.uniform(0.5, 1.5))  # not to be told by the clock
            try:
                await self.sing()
            except Exception:
                _log.exception("canaries failed")

    async def sing(self) -> Mapping[str, Finding | None]:
        """Puts the next question to every candidate; what was found of each that answered."""
        route = next((route for route in self.routes.values() if route.config is self.state.config), None)
        assert route is not None, "the state's settings are a route's"
        self._questions = self._questions or read_questions(self.state.config.canaries.questions)
        found = {}
        for candidate in await route.market.candidates():
            watch = self.state.watch(candidate.key)
            question = self._questions[watch.next % len(self._questions)]
            watch.next += 1
            ask = question.ask(candidate.model, "logprobs" in candidate.features)
            hold = await run(route.accounts.reserve, "", candidate.most(of_ask(ask, 8)) or 0)
            if isinstance(hold, Short):
                _log.warning("no canary for %s: %s", candidate.key, hold)
                continue
            nano, entry = 0, {"candidate": candidate.key, "outcome": "canary failed", "purpose": "canary"}
            before = watch.quarantine
            try:
                async with asyncio.timeout(route.config.first_token_timeout):
                    completion = await put(self.state.providers[candidate.provider], ask)
                rates = candidate.rates
                nano, entry["outcome"] = rates.of(completion.usage) if rates else 0, "canary"
                found[candidate.key] = watch.add(question, completion)
            except Exception as error:
                _log.info("%s did not answer a canary: %s", candidate.key, error)
            finally:
                await run(route.accounts.settle, hold, "", nano, entry)
            await run(self.store.put, WATCH, candidate.key, watch.to_json())
            if watch.quarantine != before:
                _log.warning("%s is %s", candidate.key, watch.quarantine or "let in again: its answers are sound")
        return found


def read_routes(routes: Mapping[str, Mapping[str, Any]]) -> Mapping[str, RouteConfig]:
    """The `[routes.NAME]` tables of a stack.toml; the default routes where there are none."""
    return {name: from_dict(RouteConfig, data, f"routes.{name}") for name, data in routes.items()} or DEFAULT_ROUTES


def _prices(config: RouteConfig) -> PriceBook:
    return read_prices(config.prices) if config.prices else built_in()
