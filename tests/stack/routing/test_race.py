"""The race to the first piece, with scripted providers; the router's tests run it against servers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from puna.base.errors import InputError, RemoteError
from puna.core.chat import Message
from puna.core.completion import TextDelta
from puna.stack.errors import ApiError
from puna.stack.providers.provider import Ask
from puna.stack.routing.accounts import Accounts, Short
from puna.stack.routing.attempt import settled
from puna.stack.routing.candidate import Candidate
from puna.stack.routing.config import RouteConfig
from puna.stack.routing.facts import Facts
from puna.stack.routing.market import State
from puna.stack.routing.race import Race, out_of_budget
from puna.stack.state.sqlite import SqliteStore
from puna.stack.testing import ScriptedProvider

FACTS = Facts(100, 100, 10, 10, 10)
ASK = Ask("auto", (Message("user", "Hello"),))


def run(
    folder: Path, providers: Sequence[ScriptedProvider], budget: float | None = None, **settings: object
) -> tuple[str, list[str]]:
    """The first words, and what became of each attempt."""
    config = RouteConfig(first_wait=0.0, **settings)  # type: ignore[arg-type]
    order = [Candidate(provider.id, "tiny", input=1.0, output=1.0) for provider in providers]
    accounts = Accounts(SqliteStore(folder / "s.db"), "auto", per_day=budget)
    state = State({provider.id: provider for provider in providers}, config)

    async def scene() -> tuple[str, list[str]]:
        race = Race(ASK, FACTS, order, state, accounts, config, {}, asyncio.get_running_loop().time())
        try:
            attempt, event = await race.first()
        except BaseException as error:
            error.add_note(str([(line.candidate, line.outcome) for line in race.lines]))
            raise
        assert isinstance(event, TextDelta)
        await attempt.drop(state, accounts, "left")
        return event.text, [f"{line.candidate[0]} {line.outcome}" for line in race.lines]

    return asyncio.run(scene())


def test_the_first_of_the_order_speaks(tmp_path: Path) -> None:
    assert run(tmp_path, [ScriptedProvider("a", ["A"]), ScriptedProvider("b")]) == ("A", ["a left"])


def test_failures_are_tried_again_and_passed_by(tmp_path: Path) -> None:
    gone = [RemoteError("gone")] * 3
    assert run(tmp_path, [ScriptedProvider("a", gone), ScriptedProvider("b", ["B"])], retries=2) == (
        "B",
        ["a failed", "a failed", "a failed", "b left"],
    )


def test_a_fault_of_the_request_ends_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="too long") as caught:
        run(tmp_path, [ScriptedProvider(id, [InputError(f"too long for {id}")]) for id in "abc"])
    assert str(caught.value) == "too long for a"
    assert caught.value.__notes__ == ["[('a/tiny', 'failed'), ('b/tiny', 'failed')]"]


def test_what_some_do_not_take_another_may(tmp_path: Path) -> None:
    narrow = [ScriptedProvider(id, [ApiError(400, "no seed here", code="unsupported_parameter")]) for id in "abc"]
    assert run(tmp_path, [*narrow, ScriptedProvider("d", ["D"])]) == (
        "D",
        ["a failed", "b failed", "c failed", "d left"],
    )


def test_hedges_go_one_at_a_time_and_the_losers_are_closed(tmp_path: Path) -> None:
    slow = ScriptedProvider("a", ["A"], pause=5)
    quick = ScriptedProvider("b", ["B b b"], pause=0.01)
    idle = ScriptedProvider("c")
    assert run(tmp_path, [slow, quick, idle], hedge=0.9, hedge_least=0.05) == ("B", ["a outrun", "b left"])
    assert not idle.asked


def test_a_defect_of_a_provider_is_passed_by_and_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    providers = [ScriptedProvider("a", [KeyError("choices")] * 2), ScriptedProvider("b", ["B"])]
    assert run(tmp_path, providers)[0] == "B"
    assert "a/tiny failed in a way that no provider should" in caplog.text


def test_nobody_speaks_in_time(tmp_path: Path) -> None:
    slow = [ScriptedProvider(id, ["x"], pause=5) for id in "ab"]
    with pytest.raises(RemoteError, match=r"b/tiny: no first token within 0\.1 s"):
        run(tmp_path, slow, first_token_timeout=0.1)


def test_without_money_nobody_is_asked(tmp_path: Path) -> None:
    provider = ScriptedProvider("a")
    with pytest.raises(ApiError, match="No money is left") as caught:
        run(tmp_path, [provider], budget=0.0)
    assert not provider.asked
    assert (caught.value.code, caught.value.headers["x-should-retry"]) == ("insufficient_quota", "false")


def test_one_that_leaves_while_money_is_set_aside_gets_it_back(tmp_path: Path) -> None:
    store, provider = SqliteStore(tmp_path / "s.db"), ScriptedProvider("a", pause=5)
    accounts = Accounts(store, "auto", per_day=1.0)

    async def scene(wait: float) -> None:
        state = State({"a": provider}, RouteConfig())
        candidate = Candidate("a", "tiny", input=1.0, output=1.0)
        race = Race(ASK, FACTS, [candidate], state, accounts, RouteConfig(), {}, 0.0)
        task = asyncio.ensure_future(race.first())
        await asyncio.sleep(wait)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await settled()

    for wait in (0.0, 0.0005, 0.001, 0.002, 0.005, 0.05):
        asyncio.run(scene(wait))
        assert accounts.left("") == {"the route 'auto'": pytest.approx(1.0, abs=0.001)}
        assert all(record.data["reserved"] == 0 for record in store.list("routing_budget").records)


def test_the_refusal_names_the_budget() -> None:
    assert "the route 'auto' has $0.000000 left" in out_of_budget(Short("the route 'auto'", 0, 1)).message
