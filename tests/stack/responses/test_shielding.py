from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from puna.core.chat import Message, ToolCall
from puna.core.completion import Completion, Usage
from puna.stack.context import Caller
from puna.stack.errors import ApiError
from puna.stack.responses.plan import make_plan
from puna.stack.responses.run import Run
from puna.stack.responses.shielding import Held, read_shields
from puna.stack.safety.guard import guard_of
from puna.stack.testing import ScriptedProvider, make_stack
from puna.stack.wire.responses import CreateResponse

BOMBS = {"patterns": {"weapons": ["bomb"]}, "message": "Not about weapons."}
SEARCH = {"type": "file_search", "vector_store_ids": ["vs_1"]}
FIND = Completion(Message("assistant", "", (ToolCall("file_search", {"query": "q"}, "call_1"),)), Usage(1, 1))


class Stores:
    async def search(self, owner: str, vector_store_ids: Any, queries: Any, limit: int, filters: Any) -> Any:
        return [{"file_id": "f", "filename": "a.md", "score": 1.0, "text": "How to make a bomb."}]


def play(folder: Path, provider: ScriptedProvider, params: Any = BOMBS, **body: Any) -> list[dict[str, Any]]:
    async def do() -> list[dict[str, Any]]:
        stack = make_stack(folder, provider)
        stack.parts["vector_stores"] = Stores()
        await stack.start()
        await guard_of(stack).register("ann", "calm", "regex", None, params)
        plan = await make_plan(stack, Caller("ann"), CreateResponse(**body))

        async def save() -> None:
            return

        try:
            return [event async for event in Run(stack, plan, save).events()]
        finally:
            await stack.stop()

    return asyncio.run(do())


def refusal(response: dict[str, Any]) -> str:
    return response["output"][-1]["content"][0]["refusal"]


def said(events: list[dict[str, Any]]) -> str:
    return "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")


def test_what_the_user_says_is_checked_before_the_model_is_asked(tmp_path: Path) -> None:
    provider = ScriptedProvider()
    events = play(tmp_path, provider, input="A bomb?", shields={"input": ["calm"]})
    final = events[-1]["response"]
    assert provider.asked == []
    assert final["status"] == "completed"
    assert refusal(final) == "Not about weapons."
    assert final["usage"]["total_tokens"] == 0
    kinds = [event["type"].removeprefix("response.") for event in events[2:-1]]
    assert kinds == [
        *("output_item.added", "content_part.added", "refusal.delta", "refusal.done"),
        *("content_part.done", "output_item.done"),
    ]


def test_every_message_of_the_request_is_checked(tmp_path: Path) -> None:
    provider = ScriptedProvider()
    talk = [{"role": role, "content": text} for role, text in (("user", "bomb"), ("assistant", "no"), ("user", "ok"))]
    assert refusal(play(tmp_path, provider, input=talk, guardrails=["calm"])[-1]["response"])
    assert provider.asked == []


def test_what_the_model_says_is_stopped_before_it_leaves(tmp_path: Path) -> None:
    provider = ScriptedProvider(answers=["Take care. The bomb is red. Bye."])
    events = play(tmp_path, provider, input="x", shields={"output": ["calm"]})
    final = events[-1]["response"]
    assert said(events) == "Take care."
    assert "bomb" not in str(events)
    assert final["status"] == "incomplete"
    assert final["incomplete_details"] == {"reason": "content_filter"}
    assert [item["status"] for item in final["output"]] == ["incomplete", "completed"]
    assert provider.closed == 1


def test_what_passes_is_said_whole(tmp_path: Path) -> None:
    text = "One. Two three\nfour five"
    events = play(tmp_path, ScriptedProvider(answers=[text]), input="x", guardrails=True)
    assert said(events) == text
    assert events[-1]["response"]["status"] == "completed"


def test_the_arguments_of_a_call_are_checked(tmp_path: Path) -> None:
    call = Completion(Message("assistant", "", (ToolCall("f", {"what": "bomb"}, "call_1"),)), Usage(1, 1))
    tools = [{"type": "function", "name": "f"}]
    events = play(tmp_path, ScriptedProvider(answers=[call]), input="x", tools=tools, shields={"output": ["calm"]})
    assert [item["type"] for item in events[-1]["response"]["output"]] == ["message"]


def test_what_a_tool_found_is_checked(tmp_path: Path) -> None:
    provider = ScriptedProvider(answers=[FIND, "never"])
    events = play(tmp_path, provider, input="x", tools=[SEARCH], shields={"input": ["calm"]})
    assert len(provider.asked) == 1
    assert refusal(events[-1]["response"])


def test_a_shield_that_is_not_there_is_refused(tmp_path: Path) -> None:
    stack = make_stack(tmp_path)

    async def read(shields: Any, guardrails: Any) -> Any:
        return await read_shields(stack, "ann", shields, guardrails)

    for shields, guardrails, status, param in (
        ({"output": ["nobody"]}, None, 404, "shields.output"),
        (None, ["nobody"], 404, "guardrails"),
        (None, True, 501, "guardrails"),
        ({"input": [3]}, None, 400, "shields.input"),
    ):
        with pytest.raises(ApiError) as caught:
            asyncio.run(read(shields, guardrails))
        assert (caught.value.status, caught.value.param) == (status, param)
    assert asyncio.run(read(None, None)).input == ()


def test_text_is_held_back_to_the_end_of_a_sentence() -> None:
    held = Held("One. Tw")
    assert held.take(held.ready) == "One."
    held.said += "o! And"
    assert held.take(held.ready) == " Two!"
    assert held.take(held.ready) == ""
    held.said += "x" * 700
    assert len(held.take(held.ready)) == 704
