from __future__ import annotations

import math
from dataclasses import FrozenInstanceError, replace
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.base.errors import ConfigError
from puna.core.chat import Message, ToolCall
from puna.core.completion import (
    Completion,
    Constraint,
    Done,
    SamplingParams,
    StreamEvent,
    TextDelta,
    ToolCallDelta,
    Usage,
)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -0.1),
        ("temperature", math.nan),
        ("top_k", -1),
        ("top_p", 0.0),
        ("top_p", 1.01),
        ("top_p", math.nan),
        ("min_p", -0.1),
        ("min_p", 1.0),
        ("repetition_penalty", 0.0),
        ("presence_penalty", -2.1),
        ("presence_penalty", math.nan),
        ("frequency_penalty", 2.1),
        ("n", 0),
        ("max_tokens", 0),
        ("logprobs", -1),
    ],
)
def test_a_setting_out_of_range_is_refused_with_its_name_value_and_limit(name: str, value: float) -> None:
    settings: dict[str, Any] = {name: value}
    with pytest.raises(ConfigError, match=f"{name} is {value}, and must be (at least|above|between)"):
        SamplingParams(**settings)


def test_one_stop_string_must_be_in_a_list() -> None:
    with pytest.raises(ConfigError, match="stop is the text 'END'") as caught:
        SamplingParams(stop="END")  # type: ignore[arg-type]
    assert "('END',)" in caught.value.hint


@given(
    st.floats(0, 10),
    st.integers(0, 1000),
    st.floats(0, 1, exclude_min=True),
    st.floats(0, 1, exclude_max=True),
    st.integers(1, 10**6),
    st.none() | st.integers(0, 20),
    st.floats(-2, 2),
    st.integers(1, 100),
    st.dictionaries(st.integers(0, 200), st.floats(-100, 100)),
)
def test_every_setting_in_range_is_taken(
    temperature: float,
    top_k: int,
    top_p: float,
    min_p: float,
    tokens: int,
    logprobs: int | None,
    penalty: float,
    n: int,
    bias: dict[int, float],
):
    params = SamplingParams(temperature, top_k, top_p, min_p, max_tokens=tokens, logprobs=logprobs, n=n)
    params = replace(params, presence_penalty=penalty, frequency_penalty=-penalty, logit_bias=bias)
    assert replace(params) == params


def test_by_default_there_is_one_answer_of_any_form() -> None:
    params = SamplingParams()
    assert (params.n, params.constraint, params.tool_choice, dict(params.logit_bias)) == (1, None, "auto", {})
    assert not params.prompt_logprobs
    assert Constraint("choice", ["a"]) == Constraint("choice", ["a"]) != Constraint("choice", ["b"])


def test_an_answer_holds_the_others_that_were_asked_for() -> None:
    others = tuple(Completion(Message("assistant", text)) for text in "bc")
    completion = Completion(Message("assistant", "a"), Usage(10, 3, cached_tokens=8), others=others)
    assert [c.message.content for c in (completion, *completion.others)] == ["a", "b", "c"]
    assert completion.usage.cached_tokens == 8
    assert completion.prompt_logprobs == ()


def test_replacing_a_setting_checks_it_again() -> None:
    with pytest.raises(ConfigError):
        replace(SamplingParams(), top_p=2.0)


def test_stream_events_can_be_told_apart_and_not_changed() -> None:
    completion = Completion(Message("assistant", "hello"))
    events: list[StreamEvent] = [TextDelta("hello"), ToolCallDelta(ToolCall("f")), Done(completion)]
    assert [type(event) for event in events] == list(get_args(StreamEvent))
    with pytest.raises(FrozenInstanceError):
        completion.cost = 1.0  # type: ignore[misc]
