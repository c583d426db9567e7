"""Routing over HTTP: decisions that replay, a ledger that adds up, sourced prices, explanations; one's own alone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from puna.core.chat import Message
from puna.core.completion import Completion, Usage
from puna.stack.providers.provider import Ask, ModelInfo, Provider
from puna.stack.routes.routing import router_of
from puna.stack.routing.router import Router, read_routes
from puna.stack.testing import ScriptedProvider, make_stack, running

BASE = "/v1alpha/routing"
ANSWER = Completion(Message("assistant", "Yes"), Usage(1000, 100))
Scene = Callable[[httpx.AsyncClient, Router], Awaitable[Any]]


class Remote(ScriptedProvider):
    type = "remote::openai"


def play(folder: Path, scene: Scene, routed: bool = True) -> Any:
    """Runs a scene against a server with two remote providers, of which "cheap" costs half as much as "dear"."""

    async def run() -> Any:
        llama = (ModelInfo("llama", context_length=8192),)
        providers: list[Provider] = [Remote(id, [ANSWER] * 9, llama) for id in ("cheap", "dear")]
        stack = make_stack(folder, *providers)
        endpoints = [{"provider": id, "input": price, "output": price} for id, price in (("cheap", 1.0), ("dear", 2.0))]
        routes = read_routes({"auto": {"endpoints": endpoints, "budget_per_day": 1.0}})
        router = Router(stack.providers, stack.store, routes)
        if routed:
            stack.providers["auto"] = router
        async with running(stack) as server, server.client(raises=True) as client:
            return await scene(client, router)

    return asyncio.run(run())


async def ask(router: Router, owner: str = "") -> None:
    async for _ in router.stream(Ask("auto", (Message("user", "Hello"),), owner=owner)):
        pass


def test_decisions_are_listed_and_replay(tmp_path: Path) -> None:
    async def scene(client: httpx.AsyncClient, router: Router) -> None:
        for _ in range(3):
            await ask(router)
        await ask(router, "another owner")
        page = (await client.get(f"{BASE}/decisions", params={"limit": 2})).json()
        assert (len(page["data"]), page["has_more"]) == (2, True)
        rest = (await client.get(f"{BASE}/decisions", params={"after": page["last_id"]})).json()
        assert (len(rest["data"]), rest["has_more"]) == (1, False)
        one = (await client.get(f"{BASE}/decisions/{page['first_id']}")).json()
        assert one["replays"] is True
        assert one["answered_by"] == "cheap/llama"
        assert one["attempts"][0]["outcome"] == "answered"

    play(tmp_path, scene)


def test_a_route_is_a_model_like_any_other(tmp_path: Path) -> None:
    """Through the chat route: whole and as a stream, by the short name and by the long one."""

    async def scene(client: httpx.AsyncClient, router: Router) -> None:
        body = {"model": "auto", "messages": [{"role": "user", "content": "Hello"}]}
        answer = await client.post("/v1/chat/completions", json=body)
        assert answer.status_code == 200, answer.text
        assert answer.json()["choices"][0]["message"]["content"] == "Yes"
        answer = await client.post("/v1/chat/completions", json={**body, "model": "auto/auto", "stream": True})
        assert "Yes" in answer.text
        assert answer.text.rstrip().endswith("data: [DONE]")
        assert len((await client.get(f"{BASE}/decisions")).json()["data"]) == 2
        models = [model["id"] for model in (await client.get("/v1/models")).json()["data"]]
        assert {"auto/auto", "cheap/llama", "dear/llama"} <= set(models)

    play(tmp_path, scene)


def test_another_owners_decision_is_not_there(tmp_path: Path) -> None:
    async def scene(client: httpx.AsyncClient, router: Router) -> None:
        await ask(router, "ann")
        (record,) = router.store.list("routing_decision", "ann").records
        answer = await client.get(f"{BASE}/decisions/{record.id}")
        assert answer.status_code == 404
        assert answer.json()["error"]["code"] == "not_found"
        assert (await client.get(f"{BASE}/ledger")).json()["totals"]["dollars"] == 0

    play(tmp_path, scene)


def test_the_ledger_adds_up(tmp_path: Path) -> None:
    async def scene(client: httpx.AsyncClient, router: Router) -> None:
        await ask(router)
        await ask(router)
        ledger = (await client.get(f"{BASE}/ledger", params={"limit": 1})).json()
        assert ledger["has_more"]
        assert ledger["data"][0]["dollars"] == pytest.approx(0.0011)
        assert ledger["totals"]["by_candidate"] == {"cheap/llama": pytest.approx(0.0022)}
        assert ledger["left_today"]["auto"]["the route 'auto'"] == pytest.approx(1 - 0.0022)

    play(tmp_path, scene)


def test_prices_have_sources_dates_and_doubts(tmp_path: Path) -> None:
    async def scene(client: httpx.AsyncClient, router: Router) -> None:
        prices = (await client.get(f"{BASE}/prices", params={"model": "405b"})).json()
        rows = {row["provider"]: row for row in prices["data"]}
        assert rows["lambda"]["precision"] == "fp8"
        assert all(row["url"] and row["date"] for row in rows.values())
        assert rows["hyperbolic"]["doubts"]
        assert (await client.get(f"{BASE}/prices", params={"model": "nothing"})).json()["data"] == []

    play(tmp_path, scene)


def test_an_explanation_asks_nobody(tmp_path: Path) -> None:
    async def scene(client: httpx.AsyncClient, router: Router) -> None:
        body = {"prompt_tokens": 1000, "output_tokens": 100, "provider": {"max_price": {"prompt": 1.5}}}
        found = (await client.post(f"{BASE}/explain", json=body)).json()
        assert found["order"] == ["cheap/llama"]
        verdicts = {verdict["candidate"]: verdict for verdict in found["verdicts"]}
        assert verdicts["cheap/llama"]["cost"] == pytest.approx(0.0011)
        assert "at most $1.5 is allowed" in verdicts["dear/llama"]["why"][0]
        body = {"messages": [{"role": "user", "content": "x" * 4000}], "needs": ["tools"]}
        found = (await client.post(f"{BASE}/explain", json=body)).json()
        assert found["order"] == []
        assert 1000 <= found["facts"]["prompt_tokens"] <= 1050
        assert not any(provider.asked for provider in router.state.providers.values())

    play(tmp_path, scene)


def test_an_explanation_over_the_price_file_needs_no_router(tmp_path: Path) -> None:
    async def scene(client: httpx.AsyncClient, router: Router) -> None:
        body = {
            "prompt_tokens": 20_000,
            "output_tokens": 1000,
            "max_tokens": 1000,
            "price_list": "llama-3.1-405b-instruct",
        }
        found = (await client.post(f"{BASE}/explain", json=body)).json()
        assert found["order"][0] == "hyperbolic/llama-3.1-405b-instruct"
        answer = await client.post(f"{BASE}/explain", json={"prompt_tokens": 5})
        assert answer.status_code == 400
        assert answer.json()["error"]["param"] == "price_list"
        assert (await client.get(f"{BASE}/decisions")).json()["data"] == []

    play(tmp_path, scene, routed=False)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "prompt_tokens"),
        ({"prompt_tokens": 5, "route": "aut"}, "route"),
        ({"prompt_tokens": 5, "price_list": "gpt"}, "price_list"),
        ({"prompt_tokens": 5, "provider": {"max_prize": 1}}, "provider.max_prize"),
        ({"prompt_tokens": -1}, "prompt_tokens"),
    ],
)
def test_bad_bodies_are_refused(tmp_path: Path, body: dict, param: str) -> None:
    async def scene(client: httpx.AsyncClient, router: Router) -> None:
        answer = await client.post(f"{BASE}/explain", json=body)
        assert answer.status_code == 400
        assert answer.json()["error"]["param"] == param

    play(tmp_path, scene)


def test_a_router_is_found_within_its_meter(tmp_path: Path) -> None:
    class Meter:
        def __init__(self, provider: Provider) -> None:
            self.provider, self.id, self.type = provider, provider.id, provider.type

    stack = make_stack(tmp_path, ScriptedProvider())
    assert router_of(stack) is None
    router = Router(stack.providers, stack.store)
    stack.providers["auto"] = Meter(router)  # type: ignore[assignment]
    assert router_of(stack) is router
