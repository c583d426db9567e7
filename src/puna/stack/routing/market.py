"""The market: what all providers offer just now, as `Candidate`s.

What the owner has written in stack.toml counts most, then what the provider says itself, then the price file. A model
in this process costs nothing but its machine's hours, where they have a price.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase

from puna.core.verdict import Price
from puna.stack.providers.provider import Ask, ModelInfo, Provider
from puna.stack.routing.affinity import Affinity
from puna.stack.routing.breaker import Breaker
from puna.stack.routing.canaries import Watch
from puna.stack.routing.candidate import ITSELF, Candidate
from puna.stack.routing.config import EndpointConfig, RouteConfig
from puna.stack.routing.meter import Meter, quantile
from puna.stack.routing.prices import PriceBook, PriceRow, Rates, rented

_log = logging.getLogger(__name__)
_FRESH_SECONDS = 60.0  # that a provider's list of models is used before it is asked for again
_RETRY_SECONDS = 5.0  # until one that has never answered is asked for it again
_LIST_SECONDS = 5.0  # that a provider may take for it
_OWN_GRAMMARS = ("regex", "lark", "choice", "span")  # what the engine holds answers to, beyond JSON schemas


class State:
    """What is known of the providers' models from experience, by all routes together: measurements, circuits, caches,
    canaries, and the lists of models. The first route's settings of these count for all.

    Args:
        providers: by id, without routers.
        config: of the first route.
        clock: seconds.
    """

    def __init__(
        self, providers: Mapping[str, Provider], config: RouteConfig, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.providers, self.config = providers, config
        self._clock = clock
        self.meter = Meter(config.expected_output)
        self.affinity = Affinity(config.sticky, clock)
        self.watches: dict[str, Watch] = {}
        self.models: dict[str, Sequence[ModelInfo]] = {}
        self._breakers: dict[str, Breaker] = {}
        self._read_at: float | None = None
        self._reading: asyncio.Task[None] | None = None

    def breaker(self, key: str) -> Breaker:
        """The circuit of a "provider/model"."""
        if key not in self._breakers:
            self._breakers[key] = Breaker(self.config.trip, self.config.cool_down, self._clock)
        return self._breakers[key]

    def watch(self, key: str) -> Watch:
        """What the canaries have told of a "provider/model"."""
        return self.watches.setdefault(key, Watch(self.config.canaries))

    async def refresh(self) -> None:
        """Asks the providers what they offer: the first time they are waited for, later on that happens meanwhile."""
        fresh = _FRESH_SECONDS if len(self.models) == len(self.providers) else _RETRY_SECONDS
        if self._read_at is not None and self._clock() - self._read_at < fresh:
            return
        if self._reading is None or self._reading.done():
            self._reading = asyncio.ensure_future(self._read_all())
        if self._read_at is None:
            await asyncio.shield(self._reading)

    async def _read_all(self) -> None:
        await asyncio.gather(*map(self._read, self.providers.values()))
        self._read_at = self._clock()

    async def _read(self, provider: Provider) -> None:
        """One that does not answer keeps its last list."""
        try:
            async with asyncio.timeout(_LIST_SECONDS):
                self.models[provider.id] = await provider.models()
        except Exception as error:
            _log.warning("%s does not list its models: %s", provider.id, error or type(error).__name__)


class Market:
    """What one route may ask.

    Args:
        state: of the providers.
        config: of the route.
        prices: the price file.
    """

    def __init__(self, state: State, config: RouteConfig, prices: PriceBook) -> None:
        self.state, self.config, self.prices = state, config, prices

    async def candidates(self, ask: Ask | None = None) -> list[Candidate]:
        """What may be asked by this route; with a request, what of its prompt each has cached."""
        state = self.state
        await state.refresh()
        found = [
            self._candidate(state.providers[id], model)
            for id, models in state.models.items()
            for model in models
            if model.type == "llm" and self._belongs(f"{id}/{model.id}")
        ]
        cached = state.affinity.cached(ask, [key for key, _ in found]) if ask else {}
        return [make(cached.get(key, 0)) for key, make in found]

    def _belongs(self, key: str) -> bool:
        patterns = self.config.models
        return not patterns or any(fnmatchcase(key.lower(), pattern.lower()) for pattern in patterns)

    def _candidate(self, provider: Provider, model: ModelInfo) -> tuple[str, Callable[[int], Candidate]]:
        """The name of a candidate, and what makes it once its cached tokens are known."""
        key = f"{provider.id}/{model.id}"
        own = self._own(provider.id, model.id)
        row = self.prices.find(provider.id, model.id)
        local = provider.type.startswith("inline::")
        measured = self.state.meter.of(key)
        rates, source = self._rates(key, model, own, row, local)
        features = dict.fromkeys((*sorted(model.features), *own.features, *(row.features if row else ())))
        if local and "json_schema" in features:
            features |= dict.fromkeys(_OWN_GRAMMARS)
        watch = self.state.watches.get(key)
        unfit = [
            reason for reason in (self.state.breaker(key).closed_to_all, watch.quarantine if watch else "") if reason
        ]

        def make(cached: int) -> Candidate:
            return Candidate(
                provider=provider.id,
                model=model.id,
                local=local,
                input=rates and rates.input,
                output=rates and rates.output,
                cached_input=rates and rates.cached_input,
                context=own.context or model.context_length or (row.context if row else 0),
                max_output=row.max_output if row else 0,
                precision=own.precision or model.precision or (row.precision if row else ""),
                features=tuple(features),
                trains=own.trains if own.trains is not None or row is None else row.trains,
                retains=own.retains if own.retains is not None or row is None else row.retains,
                region=own.region or (row.region if row else ""),
                quality=own.quality if own.quality is not None or watch is None else watch.quality,
                latency_p50=quantile(measured.latencies, 0.5),
                latency_p90=quantile(measured.latencies, 0.9),
                throughput_p50=quantile(measured.rates, 0.5),
                throughput_p10=quantile(measured.rates, 0.1),
                failures=measured.failures,
                observations=len(measured.outcomes),
                cached_tokens=cached,
                unfit=tuple(unfit),
                doubts=self.prices.doubts(row) if row and source == row.url else (),
                price_source=source,
            )

        return key, make

    def _own(self, provider: str, model: str) -> EndpointConfig:
        """What the owner says of a model; nothing where no pattern fits."""
        for endpoint in self.config.endpoints:
            if endpoint.provider == provider and fnmatchcase(model.lower(), endpoint.model.lower()):
                return endpoint
        return EndpointConfig(provider, model)

    def _rates(
        self, key: str, model: ModelInfo, own: EndpointConfig, row: PriceRow | None, local: bool
    ) -> tuple[Rates | None, str]:
        """The price and where it comes from."""
        if own.per_hour is not None:
            measured = self.state.meter.of(key)
            prefill = quantile(measured.prefill, 0.5) or own.prefill_per_second
            decode = quantile(measured.rates, 0.5) or own.decode_per_second
            how = "measured" if measured.rates else "stated"
            return rented(own.per_hour, prefill, decode), f"${own.per_hour:g} an hour, {how} {decode:.1f} tokens/s"
        if own.input is not None and own.output is not None:
            return Rates(own.input, own.output, own.cached_input), "stack.toml"
        if model.price != Price():
            price = model.price
            return Rates(price.input, price.output, price.cached_input or None), ITSELF
        if row is not None:
            return row.rates, row.url
        return (Rates(0.0, 0.0), "this machine") if local else (None, "")
