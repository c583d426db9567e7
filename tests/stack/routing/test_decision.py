"""Decisions: Llama 3.1 405B's published spread as the worked example, strategies, and exact replays."""

from __future__ import annotations

import datetime
import json
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.stack.routing.candidate import Candidate
from puna.stack.routing.config import Limits, Weights
from puna.stack.routing.decision import Decision, Policy, decide, read, replay
from puna.stack.routing.explain import facts_of, offers
from puna.stack.routing.facts import Facts
from puna.stack.routing.prices import PriceBook, built_in

BOOK = PriceBook(built_in().rows, datetime.date(2026, 11, 24))  # so that ages do not change with the day
FACTS = Facts(1000, 1000, 100, 200, 200, counted=True)


def spread(prompt: int, output: int, **limits: object) -> Decision:
    policy = Policy(limits=(Limits(**limits),))  # type: ignore[arg-type]
    return decide(facts_of(prompt, output), policy, offers(BOOK, "llama-3.1-405b-instruct"))


def names(decision: Decision) -> list[str]:
    return [candidate.provider for candidate in decision.order]


def why(decision: Decision, provider: str) -> str:
    return next("; ".join(v.why) for v in decision.verdicts if v.candidate.startswith(f"{provider}/"))


# Llama 3.1 405B -------------------------------------------------------------------------------------------------------


def test_the_spread_of_405b_by_the_price_of_one_request() -> None:
    """20,000 tokens of prompt and 1,000 of answer: from a quarter of a cent to 22 cents, and two cannot at all."""
    decision = spread(20_000, 1000)
    costs = {v.candidate.split("/")[0]: v.cost for v in decision.verdicts if v.place}
    assert costs == pytest.approx({
        "hyperbolic": 0.0027,
        "lambda": 0.0168,
        "openrouter": 0.0168,
        "nebius": 0.0230,
        "snowflake": 0.0252,
        "bedrock": 0.0504,
        "fireworks": 0.0630,
        "vertex": 0.1160,
        "oci": 0.22428,
    })  # fmt: skip
    assert names(decision) == list(costs)
    assert "4,096" in why(decision, "together")
    assert "16,384" in why(decision, "sambanova")
    assert "nobody says" in why(decision, "databricks")  # its context
    assert why(decision, "lambda") == "$0.014100 dearer than hyperbolic"


def test_a_long_prompt_leaves_out_the_cheapest() -> None:
    decision = spread(100_000, 1000)
    assert names(decision) == ["lambda", "nebius", "snowflake", "bedrock", "fireworks", "vertex", "oci"]
    assert why(decision, "hyperbolic") == "context of 32,768 tokens, and 101,000 are needed"


def test_long_answers_turn_the_order_round() -> None:
    """Nebius is cheaper than Snowflake for prompts and dearer for answers."""
    assert names(spread(20_000, 1000, only=["nebius", "snowflake"])) == ["nebius", "snowflake"]
    assert names(spread(1000, 1000, only=["nebius", "snowflake"])) == ["snowflake", "nebius"]


def test_limits_on_405b() -> None:
    assert names(spread(1000, 500, precision="fp8")) == ["lambda"]  # the only one that says its precision
    assert names(spread(1000, 500, precision="bf16")) == []
    assert names(spread(1000, 500, no_training=True)) == ["bedrock", "fireworks", "vertex"]
    assert names(spread(1000, 500, no_training=True, no_retention=True)) == ["fireworks"]
    assert names(spread(1000, 500, max_output_price=1.0)) == ["hyperbolic", "lambda", "openrouter"]
    assert names(spread(1000, 500, max_cost=0.0015)) == ["hyperbolic", "lambda", "openrouter"]
    assert "hyperbolic" not in names(spread(1000, 500, no_doubt=True))
    assert spread(1000, 500).verdicts[0].why[1].startswith("its price is doubtful: other listings")


def test_answers_longer_than_a_provider_gives_leave_it_out() -> None:
    assert "bedrock" not in names(spread(1000, 5000))
    assert why(spread(1000, 5000), "bedrock") == "answers of at most 4,096 tokens, and 5,000 are asked for"


# Strategies -----------------------------------------------------------------------------------------------------------

CHEAP = Candidate("cheap", "m", input=1.0, output=1.0, context=8192, precision="int4", quality=0.6,
                  latency_p50=2.0, latency_p90=3.0, throughput_p50=20.0)  # fmt: skip
FAST = Candidate("fast", "m", input=3.0, output=3.0, context=8192, precision="fp8", quality=0.8, trains=False,
                 retains=False, latency_p50=0.2, latency_p90=0.4, throughput_p50=200.0)  # fmt: skip
GOOD = Candidate("good", "m", input=9.0, output=9.0, context=8192, precision="bf16", quality=0.8, trains=False,
                 latency_p50=1.0, latency_p90=2.0, throughput_p50=50.0)  # fmt: skip
HOME = Candidate("home", "m", local=True, input=5.0, output=5.0, context=8192, precision="bf16", quality=0.5,
                 latency_p50=4.0, latency_p90=5.0, throughput_p50=8.0)  # fmt: skip
ALL = (GOOD, HOME, CHEAP, FAST)


@pytest.mark.parametrize(
    ("strategy", "order"),
    [
        ("cheapest", ["cheap", "fast", "home", "good"]),
        ("fastest", ["fast", "good", "cheap", "home"]),
        ("best", ["good", "fast", "cheap", "home"]),  # bf16 before fp8 of the same quality
        ("private", ["home", "fast", "good", "cheap"]),
    ],
)
def test_a_strategy_orders_the_candidates(strategy: str, order: list[str]) -> None:
    decision = decide(FACTS, Policy(strategy), ALL)  # type: ignore[arg-type]
    assert names(decision) == order
    assert all(verdict.why for verdict in decision.verdicts)


def test_weights_say_what_counts() -> None:
    cost = decide(FACTS, Policy("weighted", weights=Weights(1, 0, 0, 0)), ALL)
    speed = decide(FACTS, Policy("weighted", weights=Weights(0, 1, 1, 0)), ALL)
    assert (names(cost)[0], names(speed)[0]) == ("cheap", "fast")
    assert cost.verdicts[0].score == 1.0


def test_load_is_spread_by_the_square_of_the_price() -> None:
    twice = replace(CHEAP, provider="twice", input=2.0, output=2.0)
    firsts = Counter(names(decide(FACTS, Policy("spread", seed=str(i)), (CHEAP, twice)))[0] for i in range(2000))
    assert firsts["cheap"] / 2000 == pytest.approx(0.8, abs=0.03)  # 1 to 1/4


def test_named_ones_come_first_and_fallbacks_may_be_forbidden() -> None:
    policy = Policy(order=("good", "home/*"), fallbacks=True)
    assert names(decide(FACTS, policy, ALL)) == ["good", "home", "cheap", "fast"]
    alone = decide(FACTS, replace(policy, fallbacks=False), ALL)
    assert names(alone) == ["good"]
    assert "no fallbacks" in why(alone, "cheap")


def test_a_cached_beginning_makes_the_dearer_one_cheaper() -> None:
    cached = replace(FAST, cached_input=0.3, cached_tokens=950)
    assert names(decide(FACTS, Policy(), (CHEAP, cached)))[0] == "fast"
    # Where cached tokens cost as much, the cache decides between equals alone.
    twin = replace(CHEAP, provider="twin", cached_tokens=900)
    assert names(decide(FACTS, Policy(), (CHEAP, twin))) == ["twin", "cheap"]
    assert why(decide(FACTS, Policy(), (CHEAP, twin)), "cheap") == "twin has 900 tokens of the prompt in its cache"


def test_one_without_a_price_or_a_measurement_is_last_and_in_the_middle() -> None:
    unknown = Candidate("unknown", "m", context=8192)
    assert names(decide(FACTS, Policy(), (unknown, GOOD))) == ["good", "unknown"]
    assert names(decide(FACTS, Policy("fastest"), (HOME, GOOD, FAST, unknown))) == ["fast", "good", "unknown", "home"]


def test_nobody_may_be_left() -> None:
    assert decide(FACTS, Policy("weighted"), ()).order == ()
    assert decide(FACTS, Policy("spread", (Limits(local=True),)), (FAST,)).order == ()


# Replays --------------------------------------------------------------------------------------------------------------

amounts = st.none() | st.floats(0, 50, allow_nan=False)
candidates = st.builds(
    Candidate,
    provider=st.sampled_from(("a", "b", "c", "d")),
    model=st.sampled_from(("x", "y")),
    local=st.booleans(),
    input=amounts,
    output=amounts,
    cached_input=amounts,
    context=st.sampled_from((0, 1000, 8192, 131_072)),
    precision=st.sampled_from(("", "int4", "fp8", "bf16")),
    features=st.sampled_from(((), ("tools",))),
    trains=st.none() | st.booleans(),
    retains=st.none() | st.booleans(),
    quality=amounts,
    latency_p50=amounts,
    throughput_p50=amounts,
    failures=st.floats(0, 1),
    cached_tokens=st.integers(0, 2000),
)
policies = st.builds(
    Policy,
    strategy=st.sampled_from(("cheapest", "fastest", "best", "private", "weighted", "spread")),
    limits=st.lists(
        st.builds(Limits, precision=st.sampled_from(("", "fp8")), no_training=st.booleans(), max_input_price=amounts),
        max_size=2,
    ).map(tuple),
    order=st.sampled_from(((), ("b",), ("c/x", "a"))),
    fallbacks=st.booleans(),
    seed=st.text(max_size=5),
)


@given(policies, st.lists(candidates, max_size=6, unique_by=lambda c: c.key), st.integers(1, 5000), st.randoms())
def test_a_decision_replays_exactly_from_its_json_in_any_order(
    policy: Policy, given_: list[Candidate], prompt: int, random: object
) -> None:
    facts = Facts(prompt, prompt + 10, 100, 200, 200)
    decision = decide(facts, policy, given_)
    kept = json.loads(json.dumps(decision.to_json(), ensure_ascii=False))
    assert read(kept) == decision
    assert replay(kept) == (decision, True)
    places = [verdict.place for verdict in decision.verdicts if verdict.place]
    assert places == list(range(1, len(places) + 1))
    assert len(decision.verdicts) == len(given_)
    random.shuffle(given_)  # type: ignore[attr-defined]
    assert names(decide(facts, policy, given_)) == names(decision)


def test_a_record_that_was_altered_does_not_replay() -> None:
    kept = decide(FACTS, Policy(), ALL).to_json()
    kept["candidates"][0]["input"] = 0.0
    assert not replay(kept)[1]
