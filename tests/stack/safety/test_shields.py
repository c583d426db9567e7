"""Shields by kind."""

from __future__ import annotations

import pytest

from puna.core.chat import Message, ToolCall
from puna.core.protocols import Shield
from puna.stack.errors import ApiError
from puna.stack.safety.shields import SHIELDS, RegexShield, checked_pattern

PARAMS = {"patterns": {"card": [r"\b\d{4}(?: \d{4}){3}\b"], "word": "secret|classified"}, "message": "Not here."}


def test_a_pattern_blocks_with_its_hazard_and_the_owners_message() -> None:
    shield = RegexShield(PARAMS)
    assert isinstance(shield, Shield)
    verdict = shield.check([Message("user", "a SECRET")])
    assert not verdict.allowed
    assert verdict.hazards == ("word",)
    assert verdict.scores == {"card": 0.0, "word": 1.0}
    assert verdict.reason == "Not here."
    assert shield.check([Message("user", "1234 1234 1234 1234 is classified")]).hazards == ("card", "word")


def test_only_the_last_message_is_judged_and_its_calls_are_part_of_it() -> None:
    shield = RegexShield(PARAMS)
    assert shield.check([Message("user", "secret"), Message("assistant", "fine")]).allowed
    call = Message("assistant", "", (ToolCall("search", {"query": "the secret"}),))
    assert shield.check([call]).hazards == ("word",)


def test_case_can_matter() -> None:
    assert RegexShield(PARAMS | {"ignore_case": False}).check([Message("user", "SECRET")]).allowed


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"patterns": {}},
        {"patterns": ["a"]},
        {"patterns": {"a": []}},
        {"patterns": {"a": [1]}},
        {"patterns": {"a": "("}},
    ],
)
def test_parameters_that_make_no_shield_are_refused(params: dict) -> None:
    with pytest.raises(ApiError) as refused:
        RegexShield(params)
    assert refused.value.status == 400
    assert refused.value.param == "params.patterns"


def test_a_pattern_is_named_in_its_refusal() -> None:
    assert checked_pattern("a+") == "a+"
    with pytest.raises(ApiError, match=r"'\(a' is no regular expression"):
        checked_pattern("(a")


def test_llama_guard_says_that_it_needs_weights() -> None:
    with pytest.raises(ApiError) as refused:
        SHIELDS.get("llama-guard")({})
    assert refused.value.status == 501
    assert "weights" in refused.value.message
