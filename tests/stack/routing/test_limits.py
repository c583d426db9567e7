"""Hard limits: each is kept, what nobody says does not fulfil it, and all reasons are given at once."""

from __future__ import annotations

from dataclasses import replace

import pytest

from puna.stack.routing.candidate import Candidate
from puna.stack.routing.config import Limits
from puna.stack.routing.facts import Facts
from puna.stack.routing.limits import reasons

FACTS = Facts(1000, 1000, 100, 200, 200, counted=True)
FINE = Candidate(
    "lambda",
    "llama-405b",
    input=1.0,
    output=2.0,
    context=8192,
    precision="fp8",
    features=("tools", "json_schema"),
    trains=False,
    retains=False,
    region="eu",
    quality=0.8,
    latency_p90=1.0,
    throughput_p10=30.0,
)


def test_who_keeps_everything_has_no_reasons_against_it() -> None:
    limits = Limits(
        only=("lambda",),
        precision="fp8",
        precisions=("fp8", "bf16"),
        features=("tools",),
        no_training=True,
        no_retention=True,
        regions=("eu",),
        max_input_price=1.0,
        max_output_price=2.0,
        max_cost=0.0014,
        max_latency=1.0,
        min_throughput=30.0,
        min_quality=0.8,
        no_doubt=True,
    )
    assert reasons(FINE, FACTS, (limits,)) == ()


@pytest.mark.parametrize(
    ("limits", "changes", "reason"),
    [
        (Limits(only=("other/*",)), {}, "not among other/*"),
        (Limits(ignore=("lambda/llama*",)), {}, "left out by name"),
        (Limits(precision="bf16"), {}, "fp8, and at least bf16"),
        (Limits(precision="fp8"), {"precision": ""}, "nobody says its precision"),
        (Limits(precisions=("bf16",)), {}, "only bf16 will do"),
        (Limits(features=("logprobs",)), {}, "does not offer logprobs"),
        (Limits(local=True), {}, "not on this machine"),
        (Limits(no_training=True), {"trains": None}, "nobody says that it does not train"),
        (Limits(no_training=True), {"trains": True}, "may train on prompts"),
        (Limits(no_retention=True), {"retains": None}, "nobody says that it does not keep"),
        (Limits(regions=("us",)), {}, "stands in eu"),
        (Limits(max_input_price=0.5), {}, "$1 for a million tokens of prompt"),
        (Limits(max_output_price=1.5), {"output": None}, "an unknown price"),
        (Limits(max_cost=0.001), {}, "may cost up to $0.001400"),
        (Limits(max_cost=0.001), {"input": None}, "nobody knows what"),
        (Limits(max_latency=0.5), {}, "1.00 s to the first token"),
        (Limits(min_throughput=31.0), {}, "30.0 tokens/s"),
        (Limits(min_quality=0.9), {}, "quality 0.8"),
        (Limits(min_quality=0.1), {"quality": None}, "quality unknown"),
        (Limits(no_doubt=True), {"doubts": ("old",)}, "doubtful: old"),
        (Limits(), {"unfit": ("circuit open",)}, "circuit open"),
        (Limits(), {"context": 1199}, "context of 1,199 tokens, and 1,200 are needed"),
        (Limits(), {"max_output": 100}, "answers of at most 100 tokens"),
    ],
)
def test_each_limit_is_kept(limits: Limits, changes: dict, reason: str) -> None:
    found = reasons(replace(FINE, **changes), FACTS, (limits,))
    assert len(found) == 1
    assert reason in found[0]


def test_what_has_not_been_measured_may_be_tried() -> None:
    fresh = replace(FINE, latency_p90=None, throughput_p10=None)
    assert reasons(fresh, FACTS, (Limits(max_latency=0.1, min_throughput=1000),)) == ()


def test_the_policy_of_this_machine_is_ones_own() -> None:
    local = replace(FINE, local=True, trains=None, retains=None, region="")
    assert reasons(local, FACTS, (Limits(local=True, no_training=True, no_retention=True, regions=("us",)),)) == ()


def test_several_limits_hold_together_and_all_reasons_are_given() -> None:
    found = reasons(replace(FINE, context=100), FACTS, (Limits(precision="bf16"), Limits(max_input_price=0.1)))
    assert len(found) == 3


def test_an_unknown_context_is_assumed_to_be_short() -> None:
    unknown = replace(FINE, context=0)
    assert reasons(unknown, FACTS, ()) == ()
    assert "assumed" in reasons(unknown, replace(FACTS, prompt_tokens=5000), ())[0]


def test_an_answer_without_a_limit_need_only_fit_as_expected() -> None:
    small = replace(FINE, context=1100, max_output=150)
    assert reasons(small, replace(FACTS, open_end=True), ()) == ()
    assert len(reasons(small, FACTS, ())) == 2


def test_what_the_request_needs_is_a_limit() -> None:
    assert reasons(FINE, replace(FACTS, needs=("tools",)), ()) == ()
    assert "does not offer seed" in reasons(FINE, replace(FACTS, needs=("tools", "seed")), ())[0]
