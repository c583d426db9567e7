"""Agents over HTTP."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from puna.core.chat import Message, ToolCall
from puna.core.completion import Completion
from puna.stack.app import make_app
from puna.stack.testing import ScriptedProvider, make_stack

LOCAL = {"name": "local", "parameters": [{"name": "x", "parameter_type": "string", "required": True}]}
CALL = Completion(Message("assistant", "", (ToolCall("local", {"x": "1"}),)))


def events_of(text: str) -> list[dict[str, Any]]:
    blocks = text.removesuffix("\n\n").split("\n\n")
    assert all(block.startswith("data: ") for block in blocks)
    chunks = [json.loads(block.removeprefix("data: ")) for block in blocks]
    return [chunk["event"]["payload"] if "event" in chunk else chunk for chunk in chunks]


async def begin(client: Any, prefix: str, **config: Any) -> str:
    body = {"agent_config": {"model": "scripted/tiny", "instructions": "Be good.", **config}}
    agent = (await client.post(f"{prefix}/agents", json=body)).json()["agent_id"]
    session = (await client.post(f"{prefix}/agents/{agent}/session", json={"session_name": "s"})).json()["session_id"]
    return f"{prefix}/agents/{agent}/session/{session}"


def say(text: str, stream: bool) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], "stream": stream}


@pytest.mark.parametrize(("prefix", "kind"), [("/v1", dict), ("/v1alpha", str)])
def test_a_turn_waits_for_the_client_and_goes_on(serve: Any, prefix: str, kind: type) -> None:
    async def scenario(client: Any, stack: Any) -> None:
        path = await begin(client, prefix, client_tools=[LOCAL])
        answer = await client.post(f"{path}/turn", json=say("Go", True))
        assert answer.headers["content-type"].startswith("text/event-stream")
        payloads = events_of(answer.text)
        assert payloads[0]["event_type"] == "turn_start"
        assert payloads[-1]["event_type"] == "turn_awaiting_input"
        turn = payloads[-1]["turn"]
        (call,) = turn["output_message"]["tool_calls"]
        assert isinstance(call["arguments"], kind)
        one = f"{path}/turn/{turn['turn_id']}"
        given = {"tool_responses": [{"call_id": call["call_id"], "tool_name": "local", "content": "2"}], "stream": True}
        payloads = events_of((await client.post(f"{one}/resume", json=given)).text)
        assert [payload["event_type"] for payload in payloads][-1] == "turn_complete"
        kept = (await client.get(one)).json()
        assert kept == payloads[-1]["turn"]
        step = kept["steps"][1]
        assert (await client.get(f"{one}/step/{step['step_id']}")).json() == {"step": step}
        assert (await client.get(path)).json()["turns"] == [kept]
        assert (await client.get(path, params={"turn_ids": ["x"]})).json()["turns"] == []
        assert (await client.post(f"{one}/resume", json=given)).status_code == 409

    serve(scenario, ScriptedProvider(answers=[CALL, "Done"]))


def test_a_turn_without_streaming_and_results_by_id(serve: Any) -> None:
    async def scenario(client: Any, stack: Any) -> None:
        path = await begin(client, "/v1alpha", client_tools=[LOCAL])
        turn = (await client.post(f"{path}/turn", json=say("Go", False))).json()
        (call,) = turn["output_message"]["tool_calls"]
        given = {"tool_responses": {call["call_id"]: {"tool_name": "local", "content": "2"}}}
        done = (await client.post(f"{path}/turn/{turn['turn_id']}/resume", json=given)).json()
        assert done["output_message"]["content"] == "Done"

    serve(scenario, ScriptedProvider(answers=[CALL, "Done"]))


def test_agents_and_sessions_are_listed_paged_and_deleted(serve: Any) -> None:
    async def scenario(client: Any, stack: Any) -> None:
        paths = [await begin(client, "/v1alpha") for _ in range(3)]
        page = (await client.get("/v1alpha/agents", params={"start_index": 1, "limit": 1})).json()
        agent = paths[1].split("/")[3]
        assert ([row["agent_id"] for row in page["data"]], page["has_more"]) == ([agent], True)
        assert (await client.get(f"/v1alpha/agents/{agent}")).json()["agent_config"]["instructions"] == "Be good."
        sessions = (await client.get(f"/v1alpha/agents/{agent}/sessions")).json()
        assert [row["session_name"] for row in sessions["data"]] == ["s"]
        assert (await client.delete(paths[1])).status_code == 204
        assert (await client.get(paths[1])).status_code == 404
        assert (await client.delete(f"/v1alpha/agents/{agent}")).status_code == 204
        assert (await client.get(f"/v1alpha/agents/{agent}")).status_code == 404
        assert (await client.get(paths[0], headers={"x-test-owner": "you"})).status_code == 404

    serve(scenario)


def test_a_failure_on_the_way_is_the_last_event(serve: Any) -> None:
    async def scenario(client: Any, stack: Any) -> None:
        path = await begin(client, "/v1")
        last = events_of((await client.post(f"{path}/turn", json=say("Go", True))).text)[-1]
        assert last["error"]["type"] == "server_error"
        path = await begin(client, "/v1")
        assert (await client.post(f"{path}/turn", json={"messages": []})).status_code == 400

    serve(scenario, ScriptedProvider(answers=[RuntimeError("x")]))


def test_a_client_that_leaves_ends_its_turn_within_a_second(tmp_path: Path) -> None:
    async def go() -> None:
        stack = make_stack(tmp_path, ScriptedProvider(pause=0.05))
        server = uvicorn.Server(uvicorn.Config(make_app(stack), host="127.0.0.1", port=0, log_config=None))
        serving = asyncio.ensure_future(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
            path = await begin(client, "/v1alpha")
            async with client.stream("POST", f"{path}/turn", json=say("word " * 400, True)) as answer:
                async for line in answer.aiter_lines():
                    if "step_progress" in line:
                        break
            left = time.monotonic()
            while (turn := stack.store.list("agent_turn").records[0].data)["status"] == "in_progress":
                assert time.monotonic() - left < 1
                await asyncio.sleep(0.02)
            assert (turn["status"], turn["completed_at"]) == ("failed", None)
            again = {"messages": [{"role": "user", "content": "short"}]}
            assert (await client.post(f"{path}/turn", json=again)).json()["output_message"]["content"] == "short"
        server.should_exit = True
        await serving

    asyncio.run(go())
