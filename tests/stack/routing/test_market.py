"""The market: what the owner says wins over the provider, and the provider over the price file."""

from __future__ import annotations

import asyncio
import datetime

import pytest

from puna.base.errors import RemoteError
from puna.core.chat import Message
from puna.core.completion import Usage
from puna.core.verdict import Price
from puna.stack.providers.provider import Ask, ModelInfo
from puna.stack.routing.candidate import Candidate
from puna.stack.routing.config import EndpointConfig, RouteConfig
from puna.stack.routing.market import Market, State
from puna.stack.routing.prices import PriceBook, PriceRow
from puna.stack.testing import ScriptedProvider

ROW = PriceRow("far", "llama", 1.0, 2.0, "https://x", "2026-11-01", context=32_768, precision="fp8", trains=False,
               features=("tools",), doubt="a rumour")  # fmt: skip
BOOK = PriceBook([ROW], datetime.date(2026, 11, 24))
ASK = Ask("auto", (Message("user", "Hello"),))


class Remote(ScriptedProvider):
    type = "remote::openai"


def candidates(provider: ScriptedProvider, *endpoints: EndpointConfig, **settings: object) -> list[Candidate]:
    config = RouteConfig(endpoints=endpoints, **settings)  # type: ignore[arg-type]
    market = Market(State({provider.id: provider}, config), config, BOOK)
    return asyncio.run(market.candidates())


def test_the_price_file_fills_in_what_a_provider_does_not_say() -> None:
    (found,) = candidates(Remote("far", models=(ModelInfo("llama"), ModelInfo("vectors", "embedding"))))
    assert (found.input, found.output, found.context, found.precision) == (1.0, 2.0, 32_768, "fp8")
    assert found.features == ("tools",)
    assert found.trains is False
    assert found.doubts == ("a rumour",)
    assert found.price_source == "https://x"


def test_a_provider_knows_better_than_the_file_and_the_owner_than_both() -> None:
    model = ModelInfo("llama", context_length=8192, precision="bf16", price=Price(3.0, 4.0, 0.5))
    (found,) = candidates(Remote("far", models=(model,)))
    assert (found.input, found.cached_input, found.context, found.precision) == (3.0, 0.5, 8192, "bf16")
    assert (found.price_source, found.doubts) == ("the provider", ())
    own = EndpointConfig("far", "l*", input=7.0, output=8.0, precision="int4", trains=True, quality=0.3)
    (found,) = candidates(Remote("far", models=(model,)), own)
    assert (found.input, found.precision, found.trains, found.quality) == (7.0, "int4", True, 0.3)
    assert found.price_source == "stack.toml"


def test_an_unknown_price_is_none_and_this_machine_costs_nothing() -> None:
    (remote,) = candidates(Remote("elsewhere", models=(ModelInfo("llama"),)))
    assert remote.rates is None
    (local,) = candidates(ScriptedProvider("home", models=(ModelInfo("llama", features=frozenset({"json_schema"})),)))
    assert local.local
    assert local.input == 0.0
    assert {"regex", "choice"} <= set(local.features)


def test_a_machine_by_the_hour_is_priced_by_what_was_measured() -> None:
    provider = ScriptedProvider("home", models=(ModelInfo("llama"),))
    own = EndpointConfig("home", per_hour=3.6, prefill_per_second=1000, decode_per_second=10)
    config = RouteConfig(endpoints=(own,))
    state = State({"home": provider}, config)
    market = Market(state, config, BOOK)
    (found,) = asyncio.run(market.candidates())
    assert found.output == pytest.approx(100.0)
    assert "stated 10.0 tokens/s" in found.price_source
    state.meter.of("home/llama").answered(0.1, 1.0, Usage(500, 41))
    (found,) = asyncio.run(market.candidates())
    assert found.output == pytest.approx(25.0)
    assert found.input == pytest.approx(0.2)
    assert "measured 40.0 tokens/s" in found.price_source


def test_only_what_the_route_names_belongs_to_it() -> None:
    provider = Remote("far", models=(ModelInfo("llama-8b"), ModelInfo("llama-70b"), ModelInfo("other")))
    assert [c.model for c in candidates(provider, models=("far/LLAMA*",))] == ["llama-8b", "llama-70b"]


def test_measurements_circuits_quarantines_and_caches_are_seen() -> None:
    provider = Remote("far", models=(ModelInfo("llama"),))
    config = RouteConfig(trip=1)
    state = State({"far": provider}, config)
    market = Market(state, config, BOOK)
    state.meter.of("far/llama").answered(0.5, 1.0, Usage(100, 51))
    state.affinity.remember("far/llama", ASK, 90)
    (found,) = asyncio.run(market.candidates(ASK))
    assert (found.latency_p50, found.throughput_p10, found.cached_tokens, found.unfit) == (0.5, 50.0, 90, ())
    state.breaker("far/llama").failed()
    state.watch("far/llama").quarantine = "quarantined: wrong answers"
    (found,) = asyncio.run(market.candidates())
    assert [reason.split(" ")[0] for reason in found.unfit] == ["circuit", "quarantined:"]


def test_a_provider_that_stops_listing_keeps_its_models_and_lists_are_not_asked_for_each_time() -> None:
    class Listing(Remote):
        calls = 0

        async def models(self) -> tuple[ModelInfo, ...]:
            self.calls += 1
            if self.calls > 1:
                raise RemoteError("down")
            return (ModelInfo("llama"),)

    now = [0.0]
    provider, config = Listing("far"), RouteConfig()
    market = Market(State({"far": provider}, config, lambda: now[0]), config, BOOK)

    async def scene() -> None:
        for _ in range(3):
            assert len(await market.candidates()) == 1
        assert provider.calls == 1
        now[0] = 61.0
        assert len(await market.candidates()) == 1  # the old list does while the new one is read
        await asyncio.sleep(0.01)
        assert provider.calls == 2
        assert len(await market.candidates()) == 1

    asyncio.run(scene())


def test_one_that_was_down_at_first_is_soon_asked_again() -> None:
    class Late(Remote):
        up = False

        async def models(self) -> tuple[ModelInfo, ...]:
            if not self.up:
                raise RemoteError("down")
            return (ModelInfo("llama"),)

    now = [0.0]
    provider, config = Late("far"), RouteConfig()
    market = Market(State({"far": provider}, config, lambda: now[0]), config, BOOK)

    async def scene() -> None:
        assert await market.candidates() == []
        provider.up = True
        now[0] = 5.0
        await market.candidates()
        await asyncio.sleep(0.01)
        assert len(await market.candidates()) == 1

    asyncio.run(scene())


def test_requests_that_come_together_wait_for_the_first_list() -> None:
    class Slow(Remote):
        calls = 0

        async def models(self) -> tuple[ModelInfo, ...]:
            self.calls += 1
            await asyncio.sleep(0.02)
            return (ModelInfo("llama"),)

    provider, config = Slow("far"), RouteConfig()
    market = Market(State({"far": provider}, config), config, BOOK)

    async def scene() -> list[list[Candidate]]:
        return await asyncio.gather(*(market.candidates() for _ in range(5)))

    assert [len(found) for found in asyncio.run(scene())] == [1] * 5
    assert provider.calls == 1
