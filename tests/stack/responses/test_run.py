from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from puna.base.errors import RemoteError
from puna.core.chat import Message, ToolCall
from puna.core.completion import Completion, Done, StreamEvent, TextDelta, Usage
from puna.stack.context import Caller
from puna.stack.conversion import NamedLogprob
from puna.stack.providers.provider import Ask
from puna.stack.responses.plan import make_plan
from puna.stack.responses.run import Run, unbroken
from puna.stack.testing import ScriptedProvider, make_stack
from puna.stack.wire.responses import CreateResponse

F = {"type": "function", "name": "f", "parameters": {"type": "object", "properties": {}}}
G = {**F, "name": "g"}
SEARCH = {"type": "file_search", "vector_store_ids": ["vs_1"]}
HIT = {"file_id": "file_1", "filename": "bolts.md", "score": 0.9, "text": "The bolts of the lid are M4 screws."}


class Stores:
    def __init__(self) -> None:
        self.queries: list[list[str]] = []

    async def search(self, owner: str, vector_store_ids: Any, queries: list[str], limit: int, filters: Any) -> Any:
        self.queries.append(queries)
        return [HIT]


def calls(*names: str, text: str = "", **arguments: Any) -> Completion:
    made = tuple(ToolCall(name, arguments, f"call_{i}") for i, name in enumerate(names))
    return Completion(Message("assistant", text, made), Usage(5, 3))


class Played:
    """What one run did."""

    def __init__(self, events: list[dict[str, Any]], run: Run, provider: Any, stores: Stores, saved: list[str]) -> None:
        self.events, self.run, self.provider, self.stores, self.saved = events, run, provider, stores, saved
        self.response = events[-1]["response"]
        self.output = self.response["output"]

    def kinds(self) -> list[str]:
        return [event["type"].removeprefix("response.") for event in self.events]

    def types(self) -> list[str]:
        return [item["type"] for item in self.output]


def play(
    folder: Path, *answers: Any, provider: Any = None, fails: Callable[[str], bool] = lambda _: False, **body: Any
) -> Played:
    provider = provider or ScriptedProvider(answers=answers)

    async def do() -> Played:
        stack = make_stack(folder, provider)
        stores = stack.parts["vector_stores"] = Stores()
        await stack.start()
        plan = await make_plan(stack, Caller(), CreateResponse(**{"input": "hello", **body}))
        saved: list[str] = []

        async def save() -> None:
            saved.append(plan.response["status"])
            if fails(saved[-1]):
                raise OSError("no space")

        run = Run(stack, plan, save)
        try:
            return Played([event async for event in run.events()], run, provider, stores, saved)
        finally:
            await stack.stop()

    return asyncio.run(do())


def test_a_text_from_first_to_last_event(tmp_path: Path) -> None:
    made = play(tmp_path, "one two")
    assert made.kinds() == [
        *("created", "in_progress"),
        *("output_item.added", "content_part.added", "output_text.delta", "output_text.delta"),
        *("output_text.done", "content_part.done", "output_item.done", "completed"),
    ]
    assert [event["sequence_number"] for event in made.events] == list(range(10))
    assert "".join(event["delta"] for event in made.events if "delta" in event) == "one two"
    assert made.output[0]["content"][0]["text"] == "one two"
    assert made.response["completed_at"] >= made.response["created_at"]
    assert made.saved == ["completed"]


def test_a_provider_that_gives_all_at_the_end_is_shown_too(tmp_path: Path) -> None:
    class AtOnce(ScriptedProvider):
        async def stream(self, ask: Ask) -> AsyncIterator[StreamEvent]:
            yield TextDelta("one ")
            yield Done(Completion(Message("assistant", "one two", (ToolCall("f", {}),)), Usage(1, 2)))

    made = play(tmp_path, provider=AtOnce(), tools=[F])
    assert made.output[0]["content"][0]["text"] == "one two"
    assert made.types() == ["message", "function_call"]


def test_nothing_said_is_an_empty_message(tmp_path: Path) -> None:
    made = play(tmp_path, "")
    assert made.output[0]["content"] == [{"type": "output_text", "text": "", "annotations": [], "logprobs": []}]
    assert "output_text.delta" not in made.kinds()


def test_a_call_ends_the_response(tmp_path: Path) -> None:
    made = play(tmp_path, calls("f", text="wait", x=1), tools=[F])
    assert made.types() == ["message", "function_call"]
    call = made.output[1]
    assert (call["call_id"], json.loads(call["arguments"]), call["status"]) == ("call_0", {"x": 1}, "completed")
    assert made.response["status"] == "completed"


def test_calls_side_by_side_are_items_of_their_own(tmp_path: Path) -> None:
    assert play(tmp_path, calls("f", "g"), tools=[F, G]).types() == ["function_call", "function_call"]
    single = play(tmp_path, calls("f", "g"), tools=[F, G], parallel_tool_calls=False)
    assert single.types() == ["function_call"]


def test_a_call_that_is_not_on_offer_never_leaves(tmp_path: Path) -> None:
    choice = {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}]}
    made = play(tmp_path, calls("g"), "sorry", tools=[F, G], tool_choice=choice)
    assert made.types() == ["message"]
    told = made.provider.asked[1].messages[-1]
    assert (told.role, told.tool_call_id) == ("tool", "call_0")
    assert "cannot be called" in told.content
    assert [tool.name for tool in made.provider.asked[0].tools] == ["f"]


def test_no_choice_means_no_tools(tmp_path: Path) -> None:
    made = play(tmp_path, calls("f"), "well", tools=[F], tool_choice="none")
    assert made.types() == ["message"]
    assert made.provider.asked[0].tools == ()


@pytest.mark.parametrize("choice", ["required", {"type": "function", "name": "f"}])
def test_a_demanded_call_that_does_not_come_is_a_failure(tmp_path: Path, choice: Any) -> None:
    made = play(tmp_path, "no", tools=[F], tool_choice=choice)
    assert made.response["status"] == "failed"
    assert made.kinds()[-2:] == ["error", "failed"]
    assert made.run.error is not None
    assert made.run.error.code == "no_tool_call"


def test_a_search_is_made_and_the_model_asked_again(tmp_path: Path) -> None:
    made = play(tmp_path, calls("file_search", query="bolts"), "They are M4 [1].", tools=[SEARCH])
    assert made.types() == ["file_search_call", "message"]
    assert made.stores.queries == [["bolts"]]
    assert made.kinds()[2:7] == [
        "output_item.added",
        "file_search_call.in_progress",
        "file_search_call.searching",
        "file_search_call.completed",
        "output_item.done",
    ]
    assert made.output[0]["results"] is None
    (note,) = made.output[1]["content"][0]["annotations"]
    assert note["file_id"] == "file_1"
    assert "output_text.annotation.added" in made.kinds()
    assert "M4 screws" in made.provider.asked[1].messages[-1].content
    assert made.response["usage"]["total_tokens"] == made.response["usage"]["input_tokens"] + 3 + 4


def test_results_are_shown_to_who_asks_for_them(tmp_path: Path) -> None:
    include = ["file_search_call.results"]
    made = play(tmp_path, calls("file_search", query="q"), "x", tools=[SEARCH], include=include)
    assert made.output[0]["results"][0]["text"] == HIT["text"]


def test_a_search_beside_a_clients_call_is_made_too(tmp_path: Path) -> None:
    made = play(tmp_path, calls("f", "file_search", query="q"), tools=[F, SEARCH])
    assert made.types() == ["function_call", "file_search_call"]
    assert len(made.provider.asked) == 1


def test_the_model_is_asked_so_often_and_no_more(tmp_path: Path) -> None:
    answers = [calls("file_search", query=str(i)) for i in range(5)]
    made = play(tmp_path, *answers, tools=[SEARCH], max_infer_iters=3)
    assert len(made.provider.asked) == 3
    assert made.response["status"] == "incomplete"
    assert made.response["incomplete_details"] == {"reason": "max_infer_iters"}
    assert made.response["completed_at"] is None


def test_tools_are_called_so_often_and_no_more(tmp_path: Path) -> None:
    answers = [calls("file_search", query="a"), calls("file_search", query="b"), "well"]
    made = play(tmp_path, *answers, tools=[SEARCH], max_tool_calls=1)
    assert made.types() == ["file_search_call", "message"]
    assert made.provider.asked[1].tools == ()


def test_an_answer_that_is_cut_is_incomplete(tmp_path: Path) -> None:
    cut = Completion(Message("assistant", "one two"), Usage(5, 16), "length")
    made = play(tmp_path, cut, max_output_tokens=16)
    assert made.kinds()[-1] == "incomplete"
    assert made.response["incomplete_details"] == {"reason": "max_output_tokens"}
    assert made.output[-1]["status"] == "incomplete"


def test_the_limit_of_tokens_is_that_of_all_turns(tmp_path: Path) -> None:
    made = play(tmp_path, calls("file_search", query="a"), "x", tools=[SEARCH], max_output_tokens=20)
    assert [ask.params.max_tokens for ask in made.provider.asked] == [20, 17]
    spent = Completion(calls("file_search", query="a").message, Usage(1, 20))
    assert play(tmp_path, spent, tools=[SEARCH], max_output_tokens=20).response["status"] == "incomplete"


class Breaks(ScriptedProvider):
    async def stream(self, ask: Ask) -> AsyncIterator[StreamEvent]:
        yield TextDelta("half")
        raise RemoteError("the other server is gone")


def test_a_failure_midway_is_told_and_then_ends(tmp_path: Path) -> None:
    made = play(tmp_path, provider=Breaks())
    assert made.kinds()[-5:] == ["output_text.done", "content_part.done", "output_item.done", "error", "failed"]
    assert made.events[-2]["error"]["type"] == "model_error"
    assert made.response["error"] == {"code": "server_error", "message": "the other server is gone"}
    assert [event["sequence_number"] for event in made.events] == list(range(len(made.events)))
    assert made.saved == ["failed"]


def test_what_cannot_be_kept_has_failed(tmp_path: Path) -> None:
    made = play(tmp_path, "fine", fails=lambda status: status == "completed")
    assert made.kinds()[-2:] == ["error", "failed"]
    assert made.saved == ["completed", "failed"]


def test_a_failed_search_fails_the_response(tmp_path: Path) -> None:
    stores = Stores()

    async def refuse(*_: Any) -> Any:
        raise RemoteError("the index is gone")

    stores.search = refuse  # type: ignore[method-assign]
    provider = ScriptedProvider(answers=[calls("file_search", query="q")])

    async def do() -> list[dict[str, Any]]:
        stack = make_stack(tmp_path, provider)
        stack.parts["vector_stores"] = stores
        await stack.start()
        plan = await make_plan(stack, Caller(), CreateResponse(input="x", tools=[SEARCH]))

        async def save() -> None:
            return

        events = [event async for event in Run(stack, plan, save).events()]
        await stack.stop()
        return events

    *_, closed, error, failed = asyncio.run(do())
    assert closed["item"]["status"] == "failed"
    assert "the index is gone" in error["message"]
    assert failed["response"]["status"] == "failed"


def test_probabilities_are_shown_for_the_text(tmp_path: Path) -> None:
    tokens = (
        NamedLogprob(1, -0.1, ((1, -0.1), (2, -3.0)), b"he", (b"he", b"ho")),
        NamedLogprob(3, -0.2, (), b"y", ()),
        NamedLogprob(9, -0.3, (), b"<end>", ()),
    )
    made = play(tmp_path, Completion(Message("assistant", "hey"), Usage(1, 3), logprobs=tokens), top_logprobs=2)
    shown = made.output[0]["content"][0]["logprobs"]
    assert [entry["token"] for entry in shown] == ["he", "y"]
    assert shown[0]["bytes"] == [104, 101]
    assert [top["token"] for top in shown[0]["top_logprobs"]] == ["he", "ho"]


def test_closing_the_events_ends_the_model(tmp_path: Path) -> None:
    provider = ScriptedProvider(answers=["one two three four"])

    async def do() -> tuple[dict[str, Any], list[str]]:
        stack = make_stack(tmp_path, provider)
        await stack.start()
        plan = await make_plan(stack, Caller(), CreateResponse(input="x"))
        saved: list[str] = []

        async def save() -> None:
            saved.append(plan.response["status"])

        async with aclosing(Run(stack, plan, save).events()) as events:
            async for event in events:
                if event["type"] == "response.output_text.delta":
                    break
        await stack.stop()
        return plan.response, saved

    response, saved = asyncio.run(do())
    assert provider.closed == 1
    assert saved == ["cancelled"]
    assert response["output"][0]["status"] == "incomplete"


def test_a_write_that_has_begun_is_ended() -> None:
    done: list[str] = []

    async def write() -> None:
        await asyncio.sleep(0.02)
        done.append("written")

    async def do() -> None:
        task = asyncio.ensure_future(unbroken(write()))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(do())
    assert done == ["written"]
