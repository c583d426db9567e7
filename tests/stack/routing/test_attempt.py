"""One attempt ends once: its stream closed, its money settled, its circuit told."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from puna.base.errors import RemoteError
from puna.core.chat import Message
from puna.core.completion import Completion, Done, TextDelta, Usage
from puna.stack.providers.provider import Ask
from puna.stack.routing.accounts import BUDGET, LEDGER, Accounts, Hold
from puna.stack.routing.attempt import Attempt, Line
from puna.stack.routing.candidate import Candidate
from puna.stack.routing.config import RouteConfig
from puna.stack.routing.facts import Facts
from puna.stack.routing.failures import Failure
from puna.stack.routing.market import State
from puna.stack.state.sqlite import SqliteStore
from puna.stack.testing import ScriptedProvider

CANDIDATE = Candidate("scripted", "tiny", input=1.0, output=10.0)
FACTS = Facts(100, 120, 20, 50, 50)
ASK = Ask("tiny", (Message("user", "Hello there"),), owner="ann")


class Desk:
    """A store, its accounts and a provider's state."""

    def __init__(self, folder: Path, provider: ScriptedProvider) -> None:
        self.store = SqliteStore(folder / "s.db")
        self.accounts = Accounts(self.store, "auto", per_day=1.0)
        self.state = State({"scripted": provider}, RouteConfig(trip=1))
        self.provider = provider

    def attempt(self) -> Attempt:
        hold = self.accounts.reserve("ann", CANDIDATE.most(FACTS) or 0)
        assert isinstance(hold, Hold)
        return Attempt(CANDIDATE, self.provider, ASK, FACTS, hold, Line(CANDIDATE.key, 0.0))

    @property
    def entry(self) -> dict:
        (record,) = self.store.list(LEDGER, "ann").records
        return dict(record.data)

    @property
    def reserved(self) -> int:
        (record,) = self.store.list(BUDGET).records
        return record.data["reserved"]


def test_an_answer_is_settled_for_what_it_took(tmp_path: Path) -> None:
    done = Completion(Message("assistant", "Yes it is"), Usage(90, 30))
    desk = Desk(tmp_path, ScriptedProvider(answers=[done]))

    async def scene() -> None:
        attempt = desk.attempt()
        event = await attempt.first
        assert isinstance(event, TextDelta)
        while not isinstance(event, Done):
            event = await attempt.next(5)
        assert await attempt.finish(desk.state, desk.accounts, event.completion) == 90_000 + 300_000

    asyncio.run(scene())
    assert (desk.entry["outcome"], desk.entry["nano"], desk.entry["estimated"]) == ("answered", 390_000, False)
    assert desk.reserved == 0
    assert desk.state.meter.of("scripted/tiny").failures == 0.0
    assert len(desk.state.meter.of("scripted/tiny").latencies) == 1


@pytest.mark.parametrize(
    ("kind", "cut", "outcome", "costs"),
    [("passing", False, "failed", False), ("late", False, "late", True), ("passing", True, "cut", True)],
)
def test_a_failure_costs_only_what_may_have_been_done(
    tmp_path: Path, kind: str, cut: bool, outcome: str, costs: bool
) -> None:
    desk = Desk(tmp_path, ScriptedProvider(answers=["one two three"], pause=0.01))

    async def scene() -> None:
        attempt = desk.attempt()
        await attempt.first
        await attempt.fail(desk.state, desk.accounts, Failure(kind, "it broke"), cut)  # type: ignore[arg-type]

    asyncio.run(scene())
    assert (desk.entry["outcome"], desk.entry["nano"] > 0) == (outcome, costs)
    assert desk.reserved == 0
    assert desk.provider.closed == 1
    assert desk.state.breaker("scripted/tiny").state == "open"


@pytest.mark.parametrize(
    ("source", "price", "nano"), [("the provider", 1.0, 777), ("stack.toml", 1.0, 390_000), ("", None, 777)]
)
def test_a_bill_counts_where_the_price_is_the_providers_own(
    tmp_path: Path, source: str, price: float | None, nano: int
) -> None:
    done = Completion(Message("assistant", "Yes"), Usage(90, 30), cost=777e-9)
    desk = Desk(tmp_path, ScriptedProvider(answers=[done]))
    candidate = Candidate("scripted", "tiny", input=price, output=price and 10.0, price_source=source)

    async def scene() -> int:
        attempt = Attempt(candidate, desk.provider, ASK, FACTS, Hold(0), Line(candidate.key, 0.0))
        await attempt.first
        return await attempt.finish(desk.state, desk.accounts, done)

    assert asyncio.run(scene()) == nano


def test_a_fault_of_the_request_is_not_the_providers(tmp_path: Path) -> None:
    desk = Desk(tmp_path, ScriptedProvider(answers=["one two"]))

    async def scene() -> None:
        attempt = desk.attempt()
        await attempt.first
        await attempt.fail(desk.state, desk.accounts, Failure("request", "too long"))

    asyncio.run(scene())
    assert desk.state.breaker("scripted/tiny").state == "closed"
    assert desk.state.meter.of("scripted/tiny").failures == 0.0


def test_one_that_nobody_wants_is_stopped_before_it_speaks(tmp_path: Path) -> None:
    desk = Desk(tmp_path, ScriptedProvider(answers=["one two"], pause=30))

    async def scene() -> None:
        attempt = desk.attempt()
        await asyncio.sleep(0.01)
        await attempt.drop(desk.state, desk.accounts, "outrun")
        assert attempt.first.cancelled()

    asyncio.run(scene())
    assert (desk.entry["outcome"], desk.reserved) == ("outrun", 0)
    assert desk.entry["nano"] == 100_000  # the prompt, by estimate


def test_silence_between_two_pieces_and_an_end_without_an_answer_are_failures(tmp_path: Path) -> None:
    class Endless(ScriptedProvider):
        async def stream(self, ask: Ask):  # type: ignore[no-untyped-def]
            yield TextDelta("one")
            if not self.asked:
                self.asked.append(ask)
                await asyncio.sleep(30)

    desk = Desk(tmp_path, Endless())

    async def scene() -> None:
        attempt = desk.attempt()
        await attempt.first
        with pytest.raises(TimeoutError):
            await attempt.next(0.02)
        await attempt.drop(desk.state, desk.accounts, "left")
        attempt = desk.attempt()
        await attempt.first
        with pytest.raises(RemoteError, match="without saying that it is complete"):
            await attempt.next(5)
        await attempt.drop(desk.state, desk.accounts, "left")

    asyncio.run(scene())
