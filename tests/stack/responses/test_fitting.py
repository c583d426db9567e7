from __future__ import annotations

import asyncio

import pytest

from puna.core.chat import Message, ToolCall
from puna.stack.errors import ApiError
from puna.stack.providers.provider import ModelInfo
from puna.stack.responses.fitting import fit, leading
from puna.stack.testing import ScriptedProvider

TEN = " ".join(["word"] * 10)
TALK = [Message("system", TEN), *[Message(role, TEN) for _ in range(5) for role in ("user", "assistant")]]  # 110 tokens


def dropped(messages: list[Message], limit: int, drop: bool, wanted: int | None = 16) -> int:
    model = ModelInfo("tiny", context_length=limit)
    return asyncio.run(fit(ScriptedProvider(), model, messages, (), wanted, drop))


def test_what_fits_stays() -> None:
    assert dropped(TALK, 200, drop=True) == dropped(TALK, 111, drop=False) == 0
    assert dropped(TALK, 0, drop=False) == 0  # nobody knows the context


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ApiError) as caught:
        dropped(TALK, 110, drop=False)
    assert (caught.value.status, caught.value.code) == (400, "context_length_exceeded")
    assert "110" in caught.value.message


def test_the_oldest_turns_go_first_and_no_more_than_need_be() -> None:
    # Of 80 tokens 64 are for the input: the system's 10, and two turns of 20.
    assert dropped(TALK, 80, drop=True) == 6
    assert dropped(TALK, 31, drop=True, wanted=None) == 8


def test_room_is_kept_for_the_answer() -> None:
    assert dropped(TALK, 115, drop=True) == 2


def test_system_and_last_turn_stay_or_nothing_is_answered() -> None:
    with pytest.raises(ApiError, match="context holds 20"):
        dropped(TALK, 20, drop=True)


def test_a_result_does_not_lose_its_call() -> None:
    call = Message("assistant", TEN, (ToolCall("f", {}, "a"),))
    talk = [Message("user", TEN), call, Message("tool", TEN, tool_call_id="a"), Message("user", TEN)]
    assert dropped(talk, 40, drop=True) == 3


def test_system_messages_at_the_front_are_counted() -> None:
    assert leading(TALK) == 1
    assert leading([Message("system", "")]) == 1


def test_what_surely_fits_is_not_counted() -> None:
    class Silent(ScriptedProvider):
        async def count_tokens(self, *_: object) -> int:
            raise AssertionError("counted")

    def tried(limit: int) -> int:
        return asyncio.run(fit(Silent(), ModelInfo("tiny", context_length=limit), TALK, (), 16, False))

    assert tried(4096) == 0
    with pytest.raises(AssertionError, match="counted"):
        tried(1600)
