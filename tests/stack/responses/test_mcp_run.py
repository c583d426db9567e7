"""Tools of real servers within responses, from their lists to what the model reads of their calls."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path
from typing import Any

import pytest

from puna.stack.testing import ScriptedProvider, live, make_stack

SECRET = "sesame-0123"


def tool(farm: Any, **fields: Any) -> dict[str, Any]:
    whole = {"type": "mcp", "server_label": "farm", "server_url": farm.url, "authorization": SECRET}
    return {**whole, "require_approval": "never", **fields}


async def ask(client: Any, status: int = 200, **body: Any) -> dict[str, Any]:
    answer = await client.post("/v1/responses", json=body)
    assert answer.status_code == status, answer.text
    return answer.json()


async def events_of(client: Any, **body: Any) -> list[dict[str, Any]]:
    answer = await client.post("/v1/responses", json={"stream": True, **body})
    lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: {")]
    return [json.loads(line) for line in lines]


def types(response: dict[str, Any]) -> list[str]:
    return [item["type"] for item in response["output"]]


def read(provider: ScriptedProvider) -> list[tuple[str, str]]:
    """What the model was told last."""
    return [(message.role, message.content) for message in provider.asked[-1].messages]


def test_events_of_a_list_and_of_a_call(serve: Any, farm: Any, calls: Any, near: Any) -> None:
    provider = ScriptedProvider(answers=[calls("count", {"herd": "abc"}), "There are three."])

    async def scenario(client: Any, stack: Any) -> None:
        events = await events_of(client, input="How many?", tools=[tool(farm)])
        assert [event["sequence_number"] for event in events] == list(range(len(events)))
        first = [event["type"].removeprefix("response.") for event in events[:12]]
        assert first == [
            "created",
            "in_progress",
            "output_item.added",
            "mcp_list_tools.in_progress",
            "mcp_list_tools.completed",
            "output_item.done",
            "output_item.added",
            "mcp_call.in_progress",
            "mcp_call_arguments.delta",
            "mcp_call_arguments.done",
            "mcp_call.completed",
            "output_item.done",
        ]
        assert {event["item_id"] for event in events[7:11]} == {events[6]["item"]["id"]}
        assert json.loads(events[9]["arguments"]) == {"herd": "abc"}
        assert events[8]["delta"] == events[9]["arguments"]
        (listed, made, said) = events[-1]["response"]["output"]
        assert {row["name"] for row in listed["tools"]} >= {"count", "shear"}
        count = next(row for row in listed["tools"] if row["name"] == "count")
        assert count["input_schema"]["required"] == ["herd"]
        assert count["annotations"]["readOnlyHint"] is True
        assert (made["output"], made["error"], made["status"]) == ("3", None, "completed")
        assert said["content"][0]["text"] == "There are three."
        assert read(provider)[-1] == ("tool", "3")
        shown = events[-1]["response"]["tools"][0]
        assert shown["headers"] is None
        assert "authorization" not in shown

    serve(scenario, provider, prepare=near())
    assert {headers["authorization"] for _, headers in farm.asked} == {f"Bearer {SECRET}"}


def test_tools_are_listed_once_in_a_chain(serve: Any, farm: Any, near: Any) -> None:
    provider = ScriptedProvider(answers=list("abcdefgh"))

    async def scenario(client: Any, stack: Any) -> None:
        first = await ask(client, input="x", tools=[tool(farm, allowed_tools=["count"])])
        assert types(first) == ["mcp_list_tools", "message"]
        assert [spec.name for spec in provider.asked[-1].tools] == ["count"]
        again = await ask(
            client, input="y", tools=[tool(farm, allowed_tools=["count"])], previous_response_id=first["id"]
        )
        assert types(again) == ["message"]
        assert [spec.name for spec in provider.asked[-1].tools] == ["count"]
        # The same items sent again are the same conversation.
        items = [{"role": "user", "content": "x"}, *first["output"], {"role": "user", "content": "y"}]
        replay = await ask(client, input=items, tools=[tool(farm, allowed_tools=["count"])])
        assert types(replay) == ["message"]
        assert provider.asked[-1].messages == provider.asked[-2].messages
        assert farm.methods().count("tools/list") == 1
        # What was listed lacks what is wanted now.
        wider = await ask(client, input="y", tools=[tool(farm)], previous_response_id=first["id"])
        assert types(wider) == ["mcp_list_tools", "message"]
        conversation = (await client.post("/v1/conversations", json={})).json()["id"]
        for expected in (["mcp_list_tools", "message"], ["message"]):
            made = await ask(client, input="x", tools=[tool(farm)], conversation=conversation)
            assert types(made) == expected
        # Without the tool the chain goes on.
        assert types(await ask(client, input="z", previous_response_id=again["id"])) == ["message"]
        assert provider.asked[-1].tools == ()

    serve(scenario, provider, prepare=near())


def test_another_server_of_the_same_label_is_listed_anew(serve: Any, farm: Any, farms: Any, near: Any) -> None:
    async def scenario(client: Any, stack: Any) -> None:
        first = await ask(client, input="x", tools=[tool(farm)])
        with farms() as other:
            second = await ask(client, input="y", tools=[tool(other)], previous_response_id=first["id"])
            assert types(second) == ["mcp_list_tools", "message"]
            assert "tools/list" in other.methods()

    serve(scenario, ScriptedProvider(answers=list("ab")), prepare=near())


def test_nothing_runs_before_it_is_approved(serve: Any, farm: Any, calls: Any, near: Any) -> None:
    provider = ScriptedProvider(answers=[calls("shear", {"name": "Bo"}), "Bo is shorn.", "Good."])
    asking = tool(farm)
    del asking["require_approval"]  # every call waits by default

    async def scenario(client: Any, stack: Any) -> None:
        first = await ask(client, input="Shear Bo.", tools=[asking])
        assert (first["status"], types(first)) == ("completed", ["mcp_list_tools", "mcp_approval_request"])
        request = first["output"][1]
        assert (request["name"], json.loads(request["arguments"])) == ("shear", {"name": "Bo"})
        assert farm.ran == []
        yes = {"type": "mcp_approval_response", "approval_request_id": request["id"], "approve": True}
        body = {"input": [yes], "previous_response_id": first["id"]}
        refused = await ask(client, 400, **body)
        assert refused["error"]["param"] == "tools"
        second = await ask(client, tools=[asking], **body)
        assert types(second) == ["mcp_call", "message"]
        assert second["output"][0]["approval_request_id"] == request["id"]
        assert second["output"][0]["output"] == "Bo is shorn."
        assert farm.ran == ["shear"]
        assert read(provider) == [("user", "Shear Bo."), ("assistant", ""), ("tool", "Bo is shorn.")]
        body["previous_response_id"] = second["id"]
        refused = await ask(client, 400, tools=[asking], **body)
        assert refused["error"]["code"] == "approval_answered"
        third = await ask(client, input="Thanks.", tools=[asking], previous_response_id=second["id"])
        assert types(third) == ["message"]
        assert farm.ran == ["shear"]
        assert len((await client.get(f"/v1/responses/{second['id']}/input_items")).json()["data"]) == 1

    serve(scenario, provider, prepare=near())
    assert farm.methods().count("tools/list") == 1


def test_what_is_denied_is_not_run_and_the_model_learns_why(serve: Any, farm: Any, calls: Any, near: Any) -> None:
    provider = ScriptedProvider(answers=[calls("shear", {"name": "Bo"}), "As you wish.", "So?"])
    asking = tool(farm, require_approval="always")

    async def scenario(client: Any, stack: Any) -> None:
        first = await ask(client, input="Shear Bo.", tools=[asking])
        id = first["output"][1]["id"]
        no = {"type": "mcp_approval_response", "approval_request_id": id, "approve": False, "reason": "It is winter."}
        second = await ask(client, input=[no], previous_response_id=first["id"], tools=[asking])
        assert types(second) == ["message"]
        assert read(provider)[-1][0] == "tool"
        assert "did not approve" in read(provider)[-1][1]
        assert "It is winter." in read(provider)[-1][1]
        await ask(client, input="And?", previous_response_id=first["id"], tools=[asking])
        assert "waits for the user's approval" in read(provider)[-2][1]
        unknown = {**no, "approval_request_id": "mcpr_none"}
        refused = await ask(client, 400, input=[unknown], previous_response_id=first["id"], tools=[asking])
        assert refused["error"]["param"] == "input.0.approval_request_id"

    serve(scenario, provider, prepare=near())
    assert farm.ran == []


def test_some_calls_run_and_others_wait(serve: Any, farm: Any, calls: Any, near: Any) -> None:
    both = calls("count", {"herd": "ab"})
    both = type(both)(
        type(both.message)(
            "assistant", "", (*both.message.tool_calls, *calls("shear", {"name": "Bo"}, "c2").message.tool_calls)
        ),
        both.usage,
        both.stop_reason,
    )
    mixed = tool(farm, require_approval={"never": {"read_only": True}})

    async def scenario(client: Any, stack: Any) -> None:
        made = await ask(client, input="x", tools=[mixed])
        assert types(made) == ["mcp_list_tools", "mcp_call", "mcp_approval_request"]
        assert made["status"] == "completed"

    serve(scenario, ScriptedProvider(answers=[both]), prepare=near())
    assert farm.ran == ["count"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_server_that_is_down_has_a_failed_list(serve: Any, near: Any, stream: bool) -> None:
    down = {"type": "mcp", "server_label": "down", "server_url": "http://127.0.0.1:9/mcp"}
    provider = ScriptedProvider(answers=["Without tools.", "Still."])

    async def scenario(client: Any, stack: Any) -> None:
        if stream:
            events = await events_of(client, input="x", tools=[down])
            names = [event["type"] for event in events]
            assert "response.mcp_list_tools.failed" in names
            assert "response.mcp_list_tools.completed" not in names
            made = events[-1]["response"]
        else:
            made = await ask(client, input="x", tools=[down])
        assert (made["status"], types(made)) == ("completed", ["mcp_list_tools", "message"])
        assert made["output"][0]["tools"] == []
        assert "cannot be reached" in made["output"][0]["error"]
        again = await ask(client, input="y", previous_response_id=made["id"], tools=[down])
        assert types(again) == ["mcp_list_tools", "message"]
        forced = await ask(client, 424, input="x", tools=[down], tool_choice="required")
        assert forced["error"]["code"] == "failed_dependency"

    serve(scenario, provider, prepare=near())


def test_calls_that_fail_are_told_to_the_model(serve: Any, farm: Any, calls: Any, near: Any) -> None:
    answers = [calls("fail", {}), calls("wait", {}), calls("fill", {"length": 60_000}), calls("nothing", {}), "Sorry."]
    provider = ScriptedProvider(answers=answers)

    async def scenario(client: Any, stack: Any) -> None:
        events = await events_of(client, input="x", tools=[tool(farm)])
        assert [event["type"] for event in events].count("response.mcp_call.failed") == 3
        made = events[-1]["response"]
        assert made["status"] == "completed"
        errors = [item["error"] for item in made["output"] if item["type"] == "mcp_call"]
        assert errors[0] == {
            "type": "mcp_tool_execution_error",
            "content": [{"type": "text", "text": "The llama spat."}],
        }
        assert (errors[1]["type"], "did not answer within" in errors[1]["message"]) == ("mcp_protocol_error", True)
        assert "longer than 50,000 bytes" in errors[2]["message"]
        told = [text for role, text in read(provider) if role == "tool"]
        assert told[0] == "Error: The llama spat."
        assert "cannot be called now" in told[3]
        replay = await ask(client, input=[{"role": "user", "content": "x"}, *made["output"]], tools=[tool(farm)])
        assert replay["status"] == "completed"

    serve(scenario, provider, prepare=near(seconds=2, max_bytes=50_000))


def test_servers_may_have_tools_of_one_name(serve: Any, farm: Any, calls: Any, near: Any) -> None:
    provider = ScriptedProvider(answers=[calls("second_count", {"herd": "abcd"}), "Four."])
    both = [tool(farm), tool(farm, server_label="second")]

    async def scenario(client: Any, stack: Any) -> None:
        made = await ask(client, input="x", tools=both)
        assert types(made) == ["mcp_list_tools", "mcp_list_tools", "mcp_call", "message"]
        assert (made["output"][2]["name"], made["output"][2]["server_label"]) == ("count", "second")

    serve(scenario, provider, prepare=near())


def test_a_choice_of_a_tool_holds(serve: Any, farm: Any, calls: Any, near: Any) -> None:
    provider = ScriptedProvider(answers=[calls("count", {"herd": "ab"}), "Two."])
    choice = {"type": "mcp", "server_label": "farm", "name": "count"}

    async def scenario(client: Any, stack: Any) -> None:
        made = await ask(client, input="x", tools=[tool(farm)], tool_choice=choice)
        assert made["tool_choice"] == choice
        assert [asked.params.tool_choice for asked in provider.asked] == ["count", "auto"]
        assert [spec.name for spec in provider.asked[0].tools] == ["count"]
        wrong = await ask(client, 400, input="x", tools=[tool(farm)], tool_choice={**choice, "name": "fly"})
        assert wrong["error"]["param"] == "tool_choice"

    serve(scenario, provider, prepare=near())


def test_requests_cannot_reach_this_machine_unless_it_is_allowed(serve: Any, farm: Any) -> None:
    async def scenario(client: Any, stack: Any) -> None:
        refused = await ask(client, 400, input="x", tools=[tool(farm)])
        assert (refused["error"]["param"], refused["error"]["code"]) == ("tools.0.server_url", "address_not_allowed")
        unknown = {"type": "mcp", "server_label": "c", "connector_id": "none"}
        refused = await ask(client, 404, input="x", tools=[unknown])
        assert refused["error"]["param"] == "tools.0.connector_id"

    serve(scenario)
    assert farm.asked == []


def test_an_authorization_is_neither_kept_nor_logged(
    serve: Any, farm: Any, calls: Any, near: Any, tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    provider = ScriptedProvider(answers=[calls("count", {"herd": "abc"}), "Three.", "x"])
    given = tool(farm, headers={"x-key": SECRET})
    del given["authorization"]
    url = f"{farm.url}?key={SECRET}"

    async def scenario(client: Any, stack: Any) -> None:
        made = await ask(client, input="x", tools=[tool(farm)])
        other = await client.post("/v1/responses", json={"input": "y", "tools": [given], "background": True})
        while (await client.get(f"/v1/responses/{other.json()['id']}")).json()["status"] in ("queued", "in_progress"):
            await asyncio.sleep(0.01)
        await ask(client, input="z", tools=[{**given, "server_url": url, "headers": None}])
        seen = (await client.get(f"/v1/responses/{made['id']}")).text + (await client.get("/v1/responses")).text
        assert SECRET not in seen

    serve(scenario, provider, prepare=near())
    assert any(SECRET in headers.get("x-key", "") for _, headers in farm.asked)
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or SECRET.encode() not in path.read_bytes(), path
    ours = [record for record in caplog.records if record.name.startswith("puna")]
    assert not any(SECRET in record.getMessage() for record in ours)


def test_a_client_that_leaves_ends_the_call(serve: Any, farm: Any, calls: Any, near: Any) -> None:
    provider = ScriptedProvider(answers=[calls("wait", {})])

    async def scenario(client: Any, stack: Any) -> None:
        made = await client.post("/v1/responses", json={"input": "x", "tools": [tool(farm)], "background": True})
        id = made.json()["id"]
        while farm.ran != ["wait"]:
            await asyncio.sleep(0.01)
        gone = (await client.post(f"/v1/responses/{id}/cancel")).json()
        assert gone["status"] == "cancelled"
        call = gone["output"][1]
        assert (call["type"], call["status"], call["output"]) == ("mcp_call", "incomplete", None)
        while not farm.cancelled:
            await asyncio.sleep(0.01)

    serve(scenario, provider, prepare=near())
    assert "notifications/cancelled" in farm.methods()
    assert farm.methods()[-1] == "DELETE"


def test_the_openai_client_knows_every_item_and_event(tmp_path: Path, farm: Any, calls: Any, near: Any) -> None:
    from openai import OpenAI
    from openai.types.responses import response_output_item as items

    answers = [calls("count", {"herd": "abc"}), "Three.", calls("shear", {"name": "Bo"})]
    stack = make_stack(tmp_path, ScriptedProvider(answers=answers))
    near()(stack)
    with live(stack, "/v1") as url, OpenAI(base_url=url, api_key="none") as client:
        with client.responses.stream(model="tiny", input="x", tools=[tool(farm)]) as stream:
            kinds = {type(event).__name__ for event in stream}
            made = stream.get_final_response()
        assert made.output_text == "Three."
        assert isinstance(made.output[0], items.McpListTools)
        assert isinstance(made.output[1], items.McpCall)
        assert {f"ResponseMcpListTools{word}Event" for word in ("InProgress", "Completed")} <= kinds
        words = ("InProgress", "ArgumentsDelta", "ArgumentsDone", "Completed")
        assert {f"ResponseMcpCall{word}Event" for word in words} <= kinds
        asking = tool(farm, require_approval="always")
        asked = client.responses.create(model="tiny", input="x", tools=[asking], previous_response_id=made.id)
        assert isinstance(asked.output[0], items.McpApprovalRequest)
