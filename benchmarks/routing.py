"""What routing saves and what it costs: Llama 3.1 405B's published prices, a day of requests, and failing providers.

Money: every request of a workload is priced at each provider that can take it, and at the one that the router picks;
the rivals are those that can take all of them. Time: milliseconds to the first token and for each token, beside the
same provider asked directly. Failures: the share of requests that are answered while every provider fails one time in
five. Nothing is asked outside this process; prices are those of the price file.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from puna.base.errors import RemoteError
from puna.core.chat import Message
from puna.core.completion import Completion, Done, SamplingParams, StreamEvent, TextDelta, Usage
from puna.stack.providers.provider import Ask, ModelInfo
from puna.stack.routing.config import Limits, RouteConfig
from puna.stack.routing.explain import facts_of, judge, offers
from puna.stack.routing.prices import built_in, dollars
from puna.stack.routing.router import Router, read_routes
from puna.stack.routing.wishes import Wishes
from puna.stack.state.sqlite import SqliteStore
from puna.stack.testing import ScriptedProvider

MODEL = "llama-3.1-405b-instruct"
TOKENS = 500
LIMIT_MS = 1.0  # a token may cost this much
ASK = Ask("auto", (Message("user", "hello " * 200),), SamplingParams(max_tokens=TOKENS))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=60)
    arguments = parser.parse_args()
    costs = money(arguments.requests)
    times = asyncio.run(overhead(arguments.rounds))
    answered = {
        name: asyncio.run(outage(name == "router", arguments.requests // 4)) for name in ("router", "one provider")
    }
    print(f"{'who answers ' + str(arguments.requests) + ' requests':36} {'dollars':>9}")
    for name, cost in sorted(costs.items(), key=lambda item: item[1]):
        print(f"{name:36} {cost:9.2f}")
    for name, value in times.items():
        print(f"{name:36} {value:9.3f} ms")
    for name, share in answered.items():
        print(f"answered by {name:24} {share:9.1%}")
    rivals = {name: cost for name, cost in costs.items() if not name.startswith("router")}
    print(json.dumps({
        "question": "what does routing save, and what does it cost?",
        "dollars": costs,
        "ratios_to_cheapest_rival": {
            name: costs[name] / min(rivals.values()) for name in ("router", "router, undoubted prices")
        },
        "milliseconds": times,
        "limit_ms_per_token": LIMIT_MS,
        "answered": answered,
        "prices": built_in().fingerprint,
    }))  # fmt: skip


def money(count: int) -> dict[str, float]:
    """Dollars for the workload: by the router, and by each provider that can take every request."""
    drawn = random.Random(0)
    asked = [(int(drawn.lognormvariate(7, 1.3)) + 20, int(drawn.lognormvariate(5.5, 0.9)) + 5) for _ in range(count)]
    asked = [(min(prompt, 100_000), min(output, 2000)) for prompt, output in asked]
    candidates = offers(built_in(), MODEL)
    totals: dict[str, float] = {}
    able: dict[str, int] = {}
    for name, limits in (("router", Limits()), ("router, undoubted prices", Limits(no_doubt=True))):
        totals[name] = 0.0
        for prompt, output in asked:
            decision = judge(facts_of(prompt, output), RouteConfig(limits=limits), Wishes(), candidates)
            totals[name] += dollars(decision.order[0].cost(decision.facts) or 0)
            for verdict in decision.verdicts if name == "router" else ():
                if verdict.place:
                    who = f"always {verdict.candidate.split('/')[0]}"
                    able[who] = able.get(who, 0) + 1
                    totals[who] = totals.get(who, 0.0) + (verdict.cost or 0.0)
    return {name: cost for name, cost in totals.items() if name.startswith("router") or able[name] == count}


class Quick(ScriptedProvider):
    """Answers at once, or fails with some probability before its first token."""

    type = "remote::openai"

    def __init__(self, id: str, failing: float = 0.0) -> None:
        super().__init__(id, models=(ModelInfo("llama", context_length=8192),))
        self.failing, self.drawn = failing, random.Random(id)

    async def stream(self, ask: Ask) -> AsyncIterator[StreamEvent]:
        del ask
        if self.drawn.random() < self.failing:
            raise RemoteError("gone")
        for _ in range(TOKENS):
            yield TextDelta("x")
        yield Done(Completion(Message("assistant", "x" * TOKENS), Usage(200, TOKENS)))


def routed(folder: str, providers: list[Quick], **settings: Any) -> Router:
    endpoints = [{"provider": p.id, "input": i + 1.0, "output": i + 1.0} for i, p in enumerate(providers)]
    routes = read_routes({"auto": {"endpoints": endpoints, "first_wait": 0.0, **settings}})
    return Router({provider.id: provider for provider in providers}, SqliteStore(Path(folder) / "s.db"), routes)


async def overhead(rounds: int) -> dict[str, float]:
    """Milliseconds that the router adds, with twelve candidates, with a budget and without."""
    found = {}
    for name, settings in (("without a budget", {}), ("with a budget", {"budget_per_day": 1000.0})):
        with tempfile.TemporaryDirectory() as folder:
            providers = [Quick(f"p{i}") for i in range(12)]
            router = routed(folder, providers, **settings)
            firsts: dict[str, list[float]] = {"direct": [], "routed": []}
            wholes: dict[str, list[float]] = {"direct": [], "routed": []}
            for _ in range(rounds):
                for who, provider in (("direct", providers[0]), ("routed", router)):
                    begun, first, last = time.perf_counter(), 0.0, 0.0
                    async for event in provider.stream(ASK):
                        first = first or time.perf_counter()
                        last = time.perf_counter() if isinstance(event, TextDelta) else last
                    firsts[who].append(first - begun)
                    wholes[who].append(last - first)
            await router.stop()
            median = {who: statistics.median(values) for who, values in firsts.items()}
            found[f"to the first token, {name}"] = (median["routed"] - median["direct"]) * 1e3
            decoding = {who: statistics.median(values) for who, values in wholes.items()}
            found[f"for each token, {name}"] = (decoding["routed"] - decoding["direct"]) / TOKENS * 1e3
    return found


async def outage(routing: bool, count: int) -> float:
    """The share of requests that are answered where each provider fails one time in five."""
    with tempfile.TemporaryDirectory() as folder:
        providers = [Quick(f"p{i}", 0.2) for i in range(3)]
        router = routed(folder, providers)
        answered = 0
        for _ in range(count):
            try:
                async for _event in (router if routing else providers[0]).stream(ASK):
                    continue
                answered += 1
            except RemoteError:
                continue
        await router.stop()
        return answered / count


if __name__ == "__main__":
    main()
