"""A route: facts by the local tokenizer, refusals with their status, and answers that say whose they are."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from puna.core.chat import Message
from puna.core.completion import Completion, Done, SamplingParams, Usage
from puna.stack.errors import ApiError
from puna.stack.providers.provider import Ask, ModelInfo
from puna.stack.routing.accounts import DECISION
from puna.stack.routing.candidate import Candidate
from puna.stack.routing.config import Limits, RouteConfig
from puna.stack.routing.decision import Policy, decide, replay
from puna.stack.routing.facts import Facts
from puna.stack.routing.market import State
from puna.stack.routing.prices import PriceBook
from puna.stack.routing.route import Route, RoutedCompletion, nobody
from puna.stack.routing.wishes import Wishes
from puna.stack.state.sqlite import SqliteStore
from puna.stack.testing import ScriptedProvider

ASK = Ask("auto", (Message("user", "one two three"),), SamplingParams(max_tokens=50), owner="ann")
MODEL = ModelInfo("tiny", context_length=4096, precision="bf16")


def make(folder: Path, provider: ScriptedProvider, **settings: object) -> Route:
    config = RouteConfig(**settings)  # type: ignore[arg-type]
    store = SqliteStore(folder / "s.db")
    return Route("auto", config, State({provider.id: provider}, config), PriceBook([]), store)


def test_a_local_model_counts_the_prompt(tmp_path: Path) -> None:
    route = make(tmp_path, ScriptedProvider(models=(MODEL,)))
    decision = asyncio.run(route.decide(ASK, Wishes()))
    assert (decision.facts.prompt_tokens, decision.facts.counted) == (3, True)


def test_all_that_a_completion_holds_is_handed_on(tmp_path: Path) -> None:
    whole = Completion(
        Message("assistant", "Yes"), Usage(3, 1), "length", ids=(5,), others=(Completion(Message("assistant", "No")),)
    )
    route = make(tmp_path, ScriptedProvider(answers=[whole], models=(MODEL,)))

    async def scene() -> Completion:
        *_, done = [event async for event in route.answer(ASK, Wishes(), {})]
        assert isinstance(done, Done)
        return done.completion

    completion = asyncio.run(scene())
    assert isinstance(completion, RoutedCompletion)
    assert (completion.ids, completion.stop_reason, completion.others) == (whole.ids, "length", whole.others)
    assert completion.route["precision"] == "bf16"
    (record,) = route.accounts.store.list(DECISION, "ann").records
    assert (record.data["object"], record.data["answered_by"], record.data["cost"]) == (
        "routing.decision", "scripted/tiny", 0.0,
    )  # fmt: skip
    assert replay(record.data)[1]


def test_a_refusal_is_recorded_too(tmp_path: Path) -> None:
    route = make(tmp_path, ScriptedProvider(models=(MODEL,)), limits=Limits(precision="fp32"))

    async def scene() -> None:
        with pytest.raises(ApiError, match="bf16, and at least fp32 is demanded"):
            async for _ in route.answer(ASK, Wishes(), {}):
                raise AssertionError("nothing was to come")

    asyncio.run(scene())
    (record,) = route.accounts.store.list(DECISION, "ann").records
    assert (record.data["answered_by"], record.data["attempts"]) == (None, [])


def test_what_passes_by_itself_is_503_and_what_does_not_is_400() -> None:
    facts = Facts(10, 10, 10, 10, 10)
    resting = Candidate("a", "m", unfit=("circuit open",))
    coarse = Candidate("b", "m", precision="int4")
    limits = Policy(limits=(Limits(precision="fp8"),))
    assert nobody(decide(facts, Policy(), [resting])).status == 503
    assert nobody(decide(facts, limits, [coarse])).status == 400
    assert nobody(decide(facts, Policy(), [])).status == 503
    assert "b/m: int4, and at least fp8 is demanded" in nobody(decide(facts, limits, [coarse, resting])).message
