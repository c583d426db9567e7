"""The router against scripted servers on loopback: cheapest first, failover, hedges, budgets, records, canaries."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from puna.base.errors import ConfigError, InputError, PunaError, RemoteError
from puna.core.chat import Message
from puna.core.completion import Completion, Done, SamplingParams, StreamEvent, TextDelta, Usage
from puna.stack.conversion import OPEN_END
from puna.stack.errors import ApiError
from puna.stack.providers.provider import Ask, ModelInfo
from puna.stack.routing.accounts import BUDGET, DECISION, LEDGER
from puna.stack.routing.canaries import read_questions
from puna.stack.routing.config import RouteConfig
from puna.stack.routing.decision import replay
from puna.stack.routing.prices import NANO, PriceBook
from puna.stack.routing.route import RoutedCompletion
from puna.stack.routing.router import Router, read_routes
from puna.stack.routing.wishes import read_wishes
from puna.stack.state.sqlite import SqliteStore
from puna.stack.testing import ScriptedProvider

ASK = Ask("auto", (Message("user", "Say something."),), SamplingParams(max_tokens=100), owner="ann")


@pytest.fixture
def store(tmp_path: Path) -> SqliteStore:
    return SqliteStore(tmp_path / "stack.db")


@pytest.fixture
def play(store: SqliteStore, serve: Callable, priced: Callable) -> Callable[..., Any]:
    """Runs a scene with a router over servers with rising prices: a costs 1 $/M, b 2, c 3."""

    def run(servers: list[Any], scene: Callable[[Router], Coroutine[Any, Any, Any]], **settings: Any) -> Any:
        async def play() -> Any:
            async with serve(*servers) as providers:
                endpoints = priced(*((i + 1.0, i + 1.0) for i in range(len(servers))))
                fast = {"first_wait": 0.01, "max_wait": 0.3, "first_token_timeout": 5.0}
                routes = read_routes({"auto": {"endpoints": endpoints, **fast, **settings}})
                router = Router({p.id: p for p in providers}, store, routes, prices=PriceBook([]))
                await router.start()
                try:
                    return await scene(router)
                finally:
                    await router.stop()

        return asyncio.run(play())

    return run


async def text_of(router: Router, ask: Ask = ASK) -> tuple[str, RoutedCompletion]:
    said, completion = "", None
    async for event in router.stream(ask):
        if isinstance(event, TextDelta):
            said += event.text
        elif isinstance(event, Done):
            completion = event.completion
    assert isinstance(completion, RoutedCompletion)
    return said, completion


def outcomes(store: SqliteStore, owner: str = "ann") -> list[tuple[str, str]]:
    """(provider, outcome) of the last decision's attempts."""
    record = store.list(DECISION, owner).records[0]
    return [(line["candidate"].split("/")[0], line["outcome"]) for line in record.data["attempts"]]


# Choosing and saying so -----------------------------------------------------------------------------------------------


def test_the_cheapest_answers_and_the_answer_says_whose_it_is(
    play: Callable, server: Callable, store: SqliteStore
) -> None:
    a, b = server(), server()
    said, completion = play([b, a][::-1], text_of)
    assert said == completion.message.content == "An answer of five words"
    assert (len(a.asked), len(b.asked)) == (1, 0)
    assert completion.cost == pytest.approx(110e-6)  # 100 + 10 tokens at $1 a million
    route = completion.route
    assert (route["provider"], route["model"], route["cost"]) == ("a", "llama", completion.cost)
    assert route["price"]["source"] == "stack.toml"
    assert "dearer than a" in route["lost"]["b/llama"][0]
    (record,) = store.list(DECISION, "ann").records
    assert record.id == route["decision"]
    assert replay(record.data)[1]
    assert record.data["answered_by"] == "a/llama"
    assert "Say something" not in str(record.data)  # numbers and names alone
    (entry,) = store.list(LEDGER, "ann").records
    assert (entry.data["nano"], entry.data["completion_tokens"]) == (110_000, 10)


def test_wishes_of_a_request_are_kept(play: Callable, server: Callable) -> None:
    async def scene(router: Router) -> None:
        route = router.route("auto")
        dear = await route.decide(ASK, read_wishes({"order": ["b"]}))
        assert [c.provider for c in dear.order] == ["b", "a"]
        with pytest.raises(ApiError, match=r"No provider qualifies.*nobody says its precision") as caught:
            async for _ in route.answer(ASK, read_wishes({"precision": "bf16"}), {}):
                pass
        assert caught.value.status == 400

    play([server(), server()], scene)


def test_a_request_bears_its_wishes_and_keys(play: Callable, server: Callable) -> None:
    @dataclass(frozen=True)
    class Wishing(Ask):
        routing: Mapping[str, Any] = field(default_factory=dict)

    async def scene(router: Router) -> None:
        ask = Wishing("auto", ASK.messages, ASK.params, routing={"order": ["b"], "keys": {"b": "sk-mine"}})
        assert (await text_of(router, ask))[1].route["provider"] == "b"
        with pytest.raises(ApiError, match="max_prize"):
            await text_of(router, Wishing("auto", ASK.messages, routing={"max_prize": 1}))

    play([server(), server()], scene)


def test_an_unknown_route_and_embeddings_are_refused(play: Callable, server: Callable) -> None:
    async def scene(router: Router) -> None:
        with pytest.raises(InputError, match="auto"):
            await text_of(router, Ask("aut", ASK.messages))
        with pytest.raises(InputError, match="different models"):
            await router.embed("auto", ["a"])
        (model,) = await router.models()
        assert (model.id, model.context_length, model.features) == ("auto", 8192, {"tools"})
        assert await router.count_tokens("auto", ASK.messages) is None
        assert (await router.health()).ok

    play([server()], scene)


def test_a_router_needs_routes_and_never_asks_a_router(store: SqliteStore) -> None:
    with pytest.raises(ConfigError, match="without routes"):
        Router({}, store, {})
    inner = Router({}, store)
    assert not Router({"auto": inner}, store).state.providers
    assert set(inner.routes) == {"auto", "fastest", "best", "private", "weighted"}
    with pytest.raises(ConfigError, match=r"routes\.auto\.strategy"):
        read_routes({"auto": {"strategy": "cheap"}})


def test_without_models_there_is_no_answer(store: SqliteStore) -> None:
    async def scene() -> None:
        router = Router({}, store)
        assert not (await router.health()).ok
        with pytest.raises(ApiError, match="no models") as caught:
            await text_of(router)
        assert caught.value.status == 503

    asyncio.run(scene())


# Failover -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [
    {"status": 500}, {"status": 429, "retry_after": "60"}, {"status": 401}, {"status": 404}, {"cut": 0},
])  # fmt: skip
def test_a_failure_before_the_first_token_goes_to_the_next(
    play: Callable, server: Callable, step: Any, store: SqliteStore, fault: dict
) -> None:
    a, b = server(step(**fault)), server(step("From b"))
    said, completion = play([a, b], text_of, retries=0)
    assert said == "From b"
    assert completion.cost == pytest.approx(220e-6)
    assert outcomes(store) == [("a", "failed"), ("b", "answered")]
    assert [attempt["candidate"] for attempt in completion.route["attempts"]] == ["a/llama", "b/llama"]


def test_a_failure_that_may_pass_is_tried_again_first(
    play: Callable, server: Callable, step: Any, store: SqliteStore
) -> None:
    a, b = server(step(status=503), step("Again")), server()
    said, _ = play([a, b], text_of)
    assert said == "Again"
    assert outcomes(store) == [("a", "failed"), ("a", "answered")]


def test_a_short_rest_is_waited_for_where_there_is_nobody_else(play: Callable, server: Callable, step: Any) -> None:
    started = time.monotonic()
    said, _ = play([server(step(status=429, retry_after="0.2"), step("After a rest"))], text_of)
    assert said == "After a rest"
    assert time.monotonic() - started >= 0.2


def test_a_long_rest_is_not_waited_for_and_kept(play: Callable, server: Callable, step: Any) -> None:
    a, b = server(step(status=429, retry_after="60")), server(step("From b"))

    async def scene(router: Router) -> None:
        for _ in range(3):
            assert (await text_of(router))[0] == "From b"
        health = await router.health()
        assert health.ok
        assert "a/llama: circuit open" in health.message

    play([a, b], scene)
    assert len(a.asked) == 1  # it was left alone


def test_all_fail_and_the_last_failure_is_told(play: Callable, server: Callable, step: Any, store: SqliteStore) -> None:
    with pytest.raises(RemoteError, match="answered 500"):
        play([server(step(status=500)), server(step(status=500))], text_of)
    assert [outcome for _, outcome in outcomes(store)] == ["failed"] * 4  # two each
    assert store.list(DECISION, "ann").records[0].data["answered_by"] is None


def test_what_two_providers_find_wrong_with_a_request_is_wrong(play: Callable, server: Callable, step: Any) -> None:
    a, b, c = server(step(status=400)), server(step(status=400)), server()
    with pytest.raises(ApiError) as caught:
        play([a, b, c], text_of)
    assert caught.value.status == 400
    assert (len(a.asked), len(b.asked), len(c.asked)) == (1, 1, 0)


def test_what_one_provider_does_not_take_another_may(play: Callable, server: Callable, step: Any) -> None:
    async def scene(router: Router) -> None:
        assert (await text_of(router))[0] == "From b"
        assert router.state.meter.of("a/llama").failures == 0.0  # it has not failed

    play([server(step(status=400)), server(step("From b"))], scene)


def test_a_silent_provider_is_given_up(play: Callable, server: Callable, step: Any, store: SqliteStore) -> None:
    a, b = server(step(hang=True)), server(step("From b"))
    assert play([a, b], text_of, first_token_timeout=1.0)[0] == "From b"
    assert outcomes(store) == [("a", "late"), ("b", "answered")]
    assert a.left == 1  # its connection was closed


def test_after_the_first_token_nobody_else_is_asked(
    play: Callable, server: Callable, step: Any, store: SqliteStore
) -> None:
    a, b = server(step(cut=2)), server()

    async def scene(router: Router) -> str:
        said = ""
        with pytest.raises(RemoteError, match="after a part of its answer was handed out"):
            async for event in router.stream(ASK):
                assert isinstance(event, TextDelta)
                said += event.text
        return said

    assert play([a, b], scene) == "An answer"
    assert outcomes(store) == [("a", "cut")]
    assert not b.asked
    (entry,) = store.list(LEDGER, "ann").records
    assert entry.data["estimated"]
    assert 0 < entry.data["nano"] < 100_000


def test_a_circuit_opens_in_a_burst_and_everybody_is_answered(play: Callable, server: Callable, step: Any) -> None:
    a, b = server(step("From a"), step("From a"), step(status=500)), server(step("From b"))

    async def scene(router: Router) -> list[str]:
        return [(await text_of(router))[0] for _ in range(20)]

    said = play([a, b], scene, trip=3, retries=0, cool_down=60)
    assert said == ["From a"] * 2 + ["From b"] * 18
    assert len(a.asked) == 5  # two answers, three failures, and then it was left alone


def test_a_circuit_closes_again(play: Callable, server: Callable, step: Any) -> None:
    a, b = server(step(status=500), step("From a")), server(step("From b"))

    async def scene(router: Router) -> list[str]:
        said = [(await text_of(router))[0] for _ in range(2)]
        await asyncio.sleep(1.1)
        return [*said, (await text_of(router))[0]]

    assert play([a, b], scene, trip=1, retries=0, cool_down=1.0) == ["From b", "From b", "From a"]


def test_a_burst_of_concurrent_requests_survives_an_outage(play: Callable, server: Callable, step: Any) -> None:
    a, b, c = server(step("a"), step("a"), step(status=500)), server(step("b"), step(cut=0)), server(step("c"))

    async def scene(router: Router) -> list[str]:
        return [said for said, _ in await asyncio.gather(*(text_of(router) for _ in range(30)))]

    said = play([a, b, c], scene, retries=0)
    assert len(said) == 30
    assert set(said) <= {"a", "b", "c"}
    assert said.count("c") >= 20


# Hedging --------------------------------------------------------------------------------------------------------------


def test_a_late_answer_is_overtaken_by_a_hedge(play: Callable, server: Callable, step: Any, store: SqliteStore) -> None:
    a, b = server(step("Late", delay=3.0)), server(step("From b"))
    started = time.monotonic()
    assert play([a, b], text_of, hedge=0.9, hedge_least=0.1)[0] == "From b"
    assert time.monotonic() - started < 2.5
    assert outcomes(store) == [("a", "outrun"), ("b", "answered")]
    assert store.list(DECISION, "ann").records[0].data["attempts"][1]["hedge"] is True
    assert a.left == 1
    assert {entry.data["outcome"] for entry in store.list(LEDGER, "ann").records} == {"outrun", "answered"}


def test_a_prompt_answer_is_not_hedged(play: Callable, server: Callable, step: Any) -> None:
    a, b = server(step("From a", delay=0.02)), server()
    assert play([a, b], text_of, hedge=0.9, hedge_least=1.0)[0] == "From a"
    assert not b.asked


def test_a_hedge_that_fails_leaves_the_first_in_the_race(
    play: Callable, server: Callable, step: Any, store: SqliteStore
) -> None:
    a, b = server(step("From a", delay=0.4)), server(step(status=500))
    assert play([a, b], text_of, hedge=0.9, hedge_least=0.05)[0] == "From a"
    assert outcomes(store) == [("a", "answered"), ("b", "failed")]


# Leaving --------------------------------------------------------------------------------------------------------------


def test_a_caller_that_leaves_ends_the_stream_and_pays_for_what_came(
    play: Callable, server: Callable, step: Any, store: SqliteStore
) -> None:
    async def scene(router: Router) -> None:
        async with aclosing(router.stream(ASK)) as events:  # type: ignore[type-var]
            async for _ in events:
                break

    play([server(step("word " * 200))], scene, budget_per_day=1.0)
    assert outcomes(store) == [("a", "left")]
    (entry,) = store.list(LEDGER, "ann").records
    assert entry.data["outcome"] == "left"
    (budget,) = store.list(BUDGET).records
    assert budget.data == {"spent": entry.data["nano"], "reserved": 0}


def test_a_cancelled_request_gives_its_money_back(
    play: Callable, server: Callable, step: Any, store: SqliteStore
) -> None:
    a = server(step(hang=True))

    async def scene(router: Router) -> None:
        task = asyncio.ensure_future(text_of(router))
        while not a.asked:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        while not store.list(LEDGER, "ann").records:
            await asyncio.sleep(0.01)

    play([a], scene, budget_per_day=1.0)
    (budget,) = store.list(BUDGET).records
    assert budget.data["reserved"] == 0
    assert a.left == 1


# Budgets --------------------------------------------------------------------------------------------------------------


def test_a_budget_holds_against_a_concurrent_burst(
    play: Callable, server: Callable, step: Any, store: SqliteStore
) -> None:
    """Each request may cost at most some 420 µ$ and does cost 110; the budget lets a few through at a time."""

    async def scene(router: Router) -> list[Any]:
        return await asyncio.gather(*(text_of(router) for _ in range(40)), return_exceptions=True)

    found = play([server(step(delay=0.05))], scene, budget_per_day=0.002)
    refused = [error for error in found if isinstance(error, ApiError)]
    spent = sum(entry.data["nano"] for entry in store.list(LEDGER, "ann", limit=100).records)
    assert 0 < len(refused) < 40
    assert all((error.status, error.code) == (429, "insufficient_quota") for error in refused)
    assert spent == 110_000 * (40 - len(refused)) <= 0.002 * NANO
    (budget,) = store.list(BUDGET).records
    assert budget.data == {"spent": spent, "reserved": 0}


def test_an_answer_without_a_limit_gets_one_where_money_is_limited(play: Callable, server: Callable) -> None:
    a = server()
    ask = Ask("auto", ASK.messages, SamplingParams(max_tokens=OPEN_END))

    async def scene(router: Router) -> None:
        await text_of(router, ask)
        async for _ in router.route("auto").answer(ask, read_wishes({"max_cost": 1}), {}):
            pass

    play([a], scene, budget_per_day=1.0, open_answer=700)
    play([a], scene, open_answer=700)
    assert [body.get("max_completion_tokens") or body.get("max_tokens") for body in a.asked] == [700, 700, None, 700]


def test_one_owner_cannot_spend_anothers_money(play: Callable, server: Callable) -> None:
    async def scene(router: Router) -> None:
        await text_of(router)
        with pytest.raises(ApiError, match="the key's owner has"):
            await text_of(router)
        await text_of(router, Ask("auto", ASK.messages, ASK.params, owner="bob"))

    play([server()], scene, budget_per_owner=0.0005)


def test_what_has_no_price_is_not_asked_under_a_budget(store: SqliteStore, serve: Callable, server: Callable) -> None:
    async def scene() -> None:
        async with serve(server()) as providers:
            router = Router({"a": providers[0]}, store, {"auto": RouteConfig(budget_per_day=1.0)}, prices=PriceBook([]))
            with pytest.raises(ApiError, match="nobody says what it costs"):
                await text_of(router)
            free = Router({"a": providers[0]}, store, {"auto": RouteConfig()}, prices=PriceBook([]))
            assert (await text_of(free))[1].cost == 0.0

    asyncio.run(scene())


# Caches, keys, canaries -----------------------------------------------------------------------------------------------


def test_a_conversation_stays_where_its_beginning_is_cached(play: Callable, server: Callable) -> None:
    async def scene(router: Router) -> None:
        first = Ask("auto", (Message("system", "Rules. " * 500), Message("user", "Hello")), owner="ann")
        said, completion = await text_of(router, first)
        assert completion.route["provider"] == "b"  # its owner has said: b first
        later = Ask("auto", (*first.messages, Message("assistant", said), Message("user", "Go on")), owner="ann")
        decision = await router.route("auto").decide(later, read_wishes({"sort": "price", "order": []}))
        assert {c.provider: c.cached_tokens for c in decision.candidates} == {"a": 0, "b": 100}

    play([server(), server()], scene, order=["b"])


def test_the_callers_own_key_goes_to_its_provider_alone(play: Callable, server: Callable, store: SqliteStore) -> None:
    class Seen(ScriptedProvider):
        type = "remote::openai"

    seen = Seen("seen")
    router = Router({"seen": seen}, store, {"auto": RouteConfig()})

    async def scene() -> None:
        route = router.route("auto")
        async for _ in route.answer(
            Ask("auto", ASK.messages, key="for the router"), read_wishes(None), {"seen": "sk-mine"}
        ):
            pass

    asyncio.run(scene())
    assert seen.asked[0].key == "sk-mine"
    assert "sk-mine" not in str([record.data for record in store.list(DECISION).records])


class Remote(ScriptedProvider):
    type = "remote::openai"


def test_a_wrong_model_is_found_out_shut_out_and_remembered(
    store: SqliteStore, caplog: pytest.LogCaptureFixture
) -> None:
    known = [question.answers[0] for question in read_questions()]
    llama = (ModelInfo("llama", context_length=8192),)
    wrong = Remote("a", ["I am another model"] * 50, llama)
    right = Remote("b", [*known[:6], "From b"], llama)
    endpoints = [{"provider": id, "input": price, "output": price} for id, price in (("a", 1.0), ("b", 2.0))]
    routes = read_routes({"auto": {"endpoints": endpoints, "canaries": {"every": 3600}}})

    async def scene() -> None:
        router = Router({"a": wrong, "b": right}, store, routes, prices=PriceBook([]))
        assert [c.provider for c in (await router.route("auto").decide(ASK, read_wishes(None))).order] == ["a", "b"]
        for _ in range(6):
            await router.sing()
        said, completion = await text_of(router)
        assert said == "From b"
        assert "quarantined: 0 of its last 5 answers" in completion.route["lost"]["a/llama"][0]
        assert "a/llama: quarantined" in (await router.health()).message
        again = Router({"a": wrong, "b": right}, store, routes, prices=PriceBook([]))
        await again.start()  # after a restart it is known still
        assert [c.provider for c in (await again.route("auto").decide(ASK, read_wishes(None))).order] == ["b"]
        await again.stop()

    asyncio.run(scene())
    assert "a/llama is quarantined" in caplog.text
    assert {entry.data["purpose"] for entry in store.list(LEDGER).records} == {"canary"}


def test_canaries_stop_where_no_money_is_left(play: Callable, server: Callable) -> None:
    a = server()

    async def scene(router: Router) -> None:
        assert await router.sing() == {}

    play([a], scene, budget_per_day=0.0)
    assert not a.asked


def test_a_failing_canary_is_no_verdict(play: Callable, server: Callable, step: Any) -> None:
    async def scene(router: Router) -> None:
        for _ in range(30):
            await router.sing()
        assert router.state.watch("a/llama").asked == 0
        assert router.state.watch("a/llama").quarantine == ""

    play([server(step(status=500))], scene)


# Any faults in any order ----------------------------------------------------------------------------------------------


class Faulty(ScriptedProvider):
    """Does with each request what its script says: answers, fails before or in the middle, or is slow."""

    type = "remote::openai"

    def __init__(self, id: str, script: Sequence[str]) -> None:
        super().__init__(id, models=(ModelInfo("llama", context_length=8192),))
        self.script = list(script)

    async def stream(self, ask: Ask) -> AsyncIterator[StreamEvent]:
        self.asked.append(ask)
        step = self.script.pop(0) if self.script else "answer"
        if step == "slow":
            await asyncio.sleep(0.02)
        if step == "fail":
            raise RemoteError("gone")
        yield TextDelta("one")
        if step == "cut":
            raise RemoteError("broke off")
        await asyncio.sleep(0)
        yield Done(Completion(Message("assistant", "one"), Usage(50, 10)))


scripts = st.lists(st.sampled_from(("answer", "fail", "cut", "slow")), max_size=6)


@settings(max_examples=25)
@given(st.lists(scripts, min_size=1, max_size=3), st.integers(1, 6), st.integers(0, 12), st.integers(0, 3))
def test_whatever_fails_the_budget_holds_the_books_agree_and_every_decision_replays(
    each: list[list[str]], requests: int, budget: int, leavers: int
) -> None:
    providers = {"abc"[i]: Faulty("abc"[i], script) for i, script in enumerate(each)}
    endpoints = [{"provider": id, "input": i + 1.0, "output": i + 1.0} for i, id in enumerate(providers)]
    limit = budget * 1e-4
    route = {"endpoints": endpoints, "budget_per_day": limit, "first_wait": 0.0, "hedge": 0.9, "hedge_least": 0.005}
    with TemporaryDirectory() as folder:
        store = SqliteStore(Path(folder) / "s.db")
        router = Router(providers, store, read_routes({"auto": route}), prices=PriceBook([]))

        async def leave() -> None:
            with suppress(PunaError, ApiError):
                async with aclosing(router.stream(ASK)) as events:  # type: ignore[type-var]
                    async for _ in events:
                        break

        async def scene() -> list[Any]:
            asking = [text_of(router) for _ in range(requests)] + [leave() for _ in range(leavers)]
            found = await asyncio.gather(*asking, return_exceptions=True)
            await router.stop()
            return found[:requests]

        found = asyncio.run(scene())
        decisions = store.list(DECISION, "ann", limit=100).records
        entries = store.list(LEDGER, "ann", limit=100).records
        spent = sum(entry.data["nano"] for entry in entries)
        assert spent <= limit * NANO
        for record in store.list(BUDGET).records:
            assert record.data == {"spent": spent, "reserved": 0}
        assert len(decisions) == requests + leavers
        assert all(replay(record.data)[1] for record in decisions)
        assert sum(record.data["cost"] for record in decisions) == pytest.approx(spent / NANO)
        assert len(entries) == sum(len(provider.asked) for provider in providers.values())
        for answer in found:
            if isinstance(answer, BaseException):
                assert isinstance(answer, RemoteError | ApiError), answer
            else:
                assert answer[1].message.content == "one"
        store.close()
