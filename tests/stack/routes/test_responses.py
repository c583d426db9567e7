from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import pytest

from puna.base.errors import RemoteError
from puna.core.chat import Message, ToolCall
from puna.core.completion import Completion, Usage
from puna.stack.app import make_app
from puna.stack.context import Stack
from puna.stack.providers.provider import Ask, ModelInfo
from puna.stack.testing import ScriptedProvider, make_stack, running

SCHEMA_OF_F = {"type": "object", "properties": {"city": {"type": "string"}}}
F = {"type": "function", "name": "weather", "parameters": SCHEMA_OF_F}
SEARCH = {"type": "file_search", "vector_store_ids": ["vs_1"]}
CALL = Completion(Message("assistant", "", (ToolCall("weather", {"city": "Ulm"}, "call_1"),)), Usage(4, 5))
FIND = Completion(Message("assistant", "", (ToolCall("file_search", {"query": "bolts"}, "call_2"),)), Usage(4, 5))
HIT = {"file_id": "file_1", "filename": "bolts.md", "score": 0.9, "text": "The bolts of the lid are M4 screws."}
Work = Callable[[httpx.AsyncClient], Awaitable[None]]


class Stores:
    async def search(self, owner: str, vector_store_ids: Any, queries: Any, limit: int, filters: Any) -> Any:
        return [HIT]


@asynccontextmanager
async def client_of(stack: Stack) -> AsyncIterator[httpx.AsyncClient]:
    async with running(stack) as server, server.client(path="/v1") as client:
        stack.parts["vector_stores"] = Stores()
        yield client


def serve(folder: Path, provider: ScriptedProvider, work: Work) -> None:
    async def do() -> None:
        async with client_of(make_stack(folder, provider)) as client:
            await work(client)

    asyncio.run(do())


async def ask(client: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
    answer = await client.post("/responses", json={"model": "tiny", **body})
    assert answer.status_code == 200, answer.text
    return checked(answer.json(), "ResponseResource")


async def events_of(client: httpx.AsyncClient, **body: Any) -> list[dict[str, Any]]:
    answer = await client.post("/responses", json={"model": "tiny", "stream": True, **body})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    return read(answer.text)


def read(text: str) -> list[dict[str, Any]]:
    """The events of a stream, whose form is checked."""
    *blocks, last, empty = text.split("\n\n")
    assert (last, empty) == ("data: [DONE]", "")
    events = []
    for block in blocks:
        name, data = block.split("\n")
        events.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {events[-1]['type']}"
        checked(events[-1])
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    terminal = [e["type"] in ("response.completed", "response.incomplete", "response.failed") for e in events]
    assert terminal == [False] * (len(events) - 1) + [True]
    assert events[0]["type"] == "response.created"
    return events


# The schema of Open Responses, where it is at hand. -------------------------------------------------------------------

SCHEMA = os.environ.get("PUNA_OPENRESPONSES_SCHEMA", "")
# What OpenAI has and Open Responses has not: its objects are not measured by it.
BEYOND = ("file_search_call", "file_citation", '"type": "file_search"')


@cache
def _schema() -> dict[str, Any]:
    return json.loads(Path(SCHEMA).read_text(encoding="utf-8"))


@cache
def _event_names() -> dict[str, str]:
    names = {}
    for name, schema in _schema()["components"]["schemas"].items():
        if name.endswith("StreamingEvent"):
            names[schema["properties"]["type"]["enum"][0]] = name
    return names


def checked(data: dict[str, Any], name: str = "") -> dict[str, Any]:
    """The data, after it was held against the schema where there is one."""
    if not SCHEMA or any(word in json.dumps(data) for word in BEYOND):
        return data
    from jsonschema import Draft202012Validator

    name = name or _event_names()[data["type"]]
    if name not in _schema()["components"]["schemas"]:
        return data  # an older version of the schema
    validator = Draft202012Validator({"$ref": f"#/components/schemas/{name}", **_schema()})
    faults = [f"{name} {'.'.join(map(str, e.absolute_path))}: {e.message[:300]}" for e in validator.iter_errors(data)]
    assert not faults, "\n".join(faults)
    return data


@pytest.mark.skipif(not SCHEMA, reason="PUNA_OPENRESPONSES_SCHEMA names no file")
def test_the_schema_finds_faults() -> None:
    with pytest.raises(AssertionError, match="required"):
        checked({"id": "resp_1"}, "ResponseResource")


# One response ---------------------------------------------------------------------------------------------------------


def test_an_answer_has_every_field(tmp_path: Path) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        made = await ask(client, input="hello there", instructions="Be kind.", metadata={"a": "b"})
        assert made["status"] == "completed"
        assert made["output"][0]["content"][0]["text"] == "hello there"
        assert made["usage"]["input_tokens"] + made["usage"]["output_tokens"] == made["usage"]["total_tokens"]
        assert (await client.get(f"/responses/{made['id']}")).json() == made

    serve(tmp_path, ScriptedProvider(), work)


def test_a_stream_follows_the_grammar(tmp_path: Path) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        events = await events_of(client, input="one two three")
        kinds = [event["type"].removeprefix("response.") for event in events]
        assert kinds[:4] == ["created", "in_progress", "output_item.added", "content_part.added"]
        assert kinds[-4:] == ["output_text.done", "content_part.done", "output_item.done", "completed"]
        joined = "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")
        final = events[-1]["response"]
        assert joined == events[-4]["text"] == final["output"][0]["content"][0]["text"] == "one two three"
        assert (await client.get(f"/responses/{final['id']}")).json() == final

    serve(tmp_path, ScriptedProvider(), work)


def test_a_function_is_called_and_its_output_taken(tmp_path: Path) -> None:
    provider = ScriptedProvider(answers=[CALL, "It rains in Ulm."])

    async def work(client: httpx.AsyncClient) -> None:
        events = await events_of(client, input="Weather in Ulm?", tools=[F], tool_choice="required")
        deltas = "".join(e["delta"] for e in events if e["type"] == "response.function_call_arguments.delta")
        first = events[-1]["response"]
        (call,) = first["output"]
        assert json.loads(deltas) == json.loads(call["arguments"]) == {"city": "Ulm"}
        output = {"type": "function_call_output", "call_id": call["call_id"], "output": "rain"}
        made = await ask(client, input=[output], previous_response_id=first["id"], tools=[F])
        assert made["output"][0]["content"][0]["text"] == "It rains in Ulm."
        wrong = {**output, "call_id": "call_9"}
        refused = await client.post("/responses", json={"input": [wrong], "previous_response_id": first["id"]})
        assert refused.status_code == 400
        assert refused.json()["error"]["type"] == "invalid_request_error"
        assert refused.json()["error"]["param"].endswith("call_id")

    serve(tmp_path, provider, work)
    assert [message.role for message in provider.asked[1].messages] == ["user", "assistant", "tool"]


@pytest.mark.parametrize("first", [CALL, FIND, "Hello!"])
def test_a_chain_is_read_as_its_items_sent_again_are(tmp_path: Path, first: Any) -> None:
    answers = [first, "fine", "fine", "fine"] if first is FIND else [first, "fine", "fine"]
    provider = ScriptedProvider(answers=answers)

    async def work(client: httpx.AsyncClient) -> None:
        given = [{"role": "system", "content": "Mend."}, {"role": "user", "content": "Bolts?"}]
        one = await ask(client, input=given, tools=[F, SEARCH])
        more = [{"role": "user", "content": "Thanks."}]
        if first is CALL:
            more.insert(0, {"type": "function_call_output", "call_id": "call_1", "output": "rain"})
        await ask(client, input=more, previous_response_id=one["id"], tools=[F, SEARCH])
        await ask(client, input=[*given, *one["output"], *more], tools=[F, SEARCH])

    serve(tmp_path, provider, work)
    assert provider.asked[-2].messages == provider.asked[-1].messages
    assert len(provider.asked[-1].messages) >= 4


def test_a_conversation_is_read_as_a_chain_is(tmp_path: Path) -> None:
    provider = ScriptedProvider()

    async def work(client: httpx.AsyncClient) -> None:
        one = await ask(client, input="a")
        two = await ask(client, input="b", previous_response_id=one["id"])
        await ask(client, input="c", previous_response_id=two["id"])
        id = (await client.post("/conversations", json={})).json()["id"]
        for text in "abc":
            made = await ask(client, input=text, conversation=id)
            assert made["conversation"] == {"id": id}
        listed = (await client.get(f"/conversations/{id}/items", params={"order": "asc"})).json()
        assert [item["content"][0]["text"] for item in listed["data"]] == list("aabbcc")

    serve(tmp_path, provider, work)
    assert [ask.messages for ask in provider.asked[:3]] == [ask.messages for ask in provider.asked[3:]]


def test_what_is_not_stored_is_not_there(tmp_path: Path) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        for made in (
            await ask(client, input="x", store=False),
            (await events_of(client, input="x", store=False))[-1]["response"],
        ):
            assert (await client.get(f"/responses/{made['id']}")).status_code == 404
            again = await client.post("/responses", json={"input": "y", "previous_response_id": made["id"]})
            assert again.status_code == 404
            assert again.json()["error"]["param"] == "previous_response_id"

    serve(tmp_path, ScriptedProvider(), work)


def test_items_can_be_named_by_their_ids(tmp_path: Path) -> None:
    provider = ScriptedProvider(answers=[CALL, "fine"])

    async def work(client: httpx.AsyncClient) -> None:
        one = await ask(client, input="Weather?", tools=[F])
        named = {"type": "item_reference", "id": one["output"][0]["id"]}
        output = {"type": "function_call_output", "call_id": "call_1", "output": "rain"}
        await ask(client, input=[{"role": "user", "content": "Weather?"}, named, output], tools=[F])

    serve(tmp_path, provider, work)
    assert provider.asked[1].messages[1].tool_calls[0].name == "weather"


def test_documents_are_searched_and_cited(tmp_path: Path) -> None:
    provider = ScriptedProvider(answers=[FIND, "They are M4 [1]."])

    async def work(client: httpx.AsyncClient) -> None:
        made = await ask(client, input="Which bolts?", tools=[SEARCH])
        search, said = made["output"]
        assert (search["status"], search["queries"], search["results"]) == ("completed", ["bolts"], None)
        assert said["content"][0]["annotations"][0]["file_id"] == "file_1"
        shown = await client.get(f"/responses/{made['id']}", params={"include[]": "file_search_call.results"})
        assert shown.json()["output"][0]["results"][0]["text"] == HIT["text"]

    serve(tmp_path, provider, work)


def test_tools_that_are_not_here_are_refused(tmp_path: Path) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        refused = await client.post("/responses", json={"input": "x", "tools": [{"type": "web_search"}]})
        assert refused.status_code == 501
        assert refused.json()["error"]["code"] == "not_implemented"

    serve(tmp_path, ScriptedProvider(), work)


@pytest.mark.parametrize("stream", [False, True])
def test_incomplete_answers_are_told_so(tmp_path: Path, stream: bool) -> None:
    cut = Completion(Message("assistant", "one two"), Usage(2, 16), "length")

    async def work(client: httpx.AsyncClient) -> None:
        body = {"input": "x", "max_output_tokens": 16}
        made = (await events_of(client, **body))[-1]["response"] if stream else await ask(client, **body)
        assert made["status"] == "incomplete"
        assert made["incomplete_details"] == {"reason": "max_output_tokens"}
        assert made["output"][-1]["status"] == "incomplete"

    serve(tmp_path, ScriptedProvider(answers=[cut]), work)


def test_failures_before_and_within_a_stream(tmp_path: Path) -> None:
    provider = ScriptedProvider(answers=[RemoteError("gone"), RemoteError("gone"), ValueError("secret")])

    async def work(client: httpx.AsyncClient) -> None:
        refused = await client.post("/responses", json={"input": "x"})
        assert refused.status_code == 502
        error = {"message": "gone", "type": "model_error", "param": None, "code": "provider_error"}
        assert refused.json()["error"] == error
        *_, error, failed = await events_of(client, input="x")
        assert error["type"] == "error"
        assert error["error"]["message"] == "gone"
        assert failed["response"]["status"] == "failed"
        assert (await client.get(f"/responses/{failed['response']['id']}")).json()["status"] == "failed"
        unforeseen = await client.post("/responses", json={"input": "x"})
        assert unforeseen.status_code == 500
        assert "secret" not in unforeseen.text

    serve(tmp_path, provider, work)


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"input": "x", "temperature": 3}', b'{"input": [{"type": "x"}]}'])
def test_bad_bodies_get_the_error_object(tmp_path: Path, body: bytes) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        refused = await client.post("/responses", content=body, headers={"content-type": "application/json"})
        assert refused.status_code == 400
        assert refused.json()["error"].keys() == {"message", "type", "param", "code"}

    serve(tmp_path, ScriptedProvider(), work)


def test_too_long_is_refused_or_cut(tmp_path: Path) -> None:
    provider = ScriptedProvider(models=(ModelInfo("tiny", context_length=20),))
    talk = [{"role": "user", "content": f"{word} " * 6} for word in ("one", "two", "three", "four")]

    async def work(client: httpx.AsyncClient) -> None:
        refused = await client.post("/responses", json={"input": talk, "stream": True})
        assert refused.status_code == 400
        assert refused.json()["error"]["code"] == "context_length_exceeded"
        await ask(client, input=talk, instructions="Count.", truncation="auto")

    serve(tmp_path, provider, work)
    (asked,) = provider.asked
    assert asked.messages[0].content == "Count."
    assert asked.messages[-1].content.startswith("four")
    assert len(asked.messages) < 5


def test_forms_are_read_too(tmp_path: Path) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        made = await client.post("/responses", data={"model": "tiny", "input": "hello"})
        assert made.json()["output"][0]["content"][0]["text"] == "hello"

    serve(tmp_path, ScriptedProvider(), work)


# Kept responses -------------------------------------------------------------------------------------------------------


def test_responses_are_listed_and_deleted(tmp_path: Path) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        ids = [(await ask(client, input=text))["id"] for text in "abc"]
        first = (await client.get("/responses", params={"limit": 2})).json()
        assert [made["id"] for made in first["data"]] == ids[:0:-1]
        assert first["has_more"]
        assert first["data"][0]["input"][0]["content"][0]["text"] == "c"
        rest = (await client.get("/responses", params={"after": first["last_id"], "model": "tiny"})).json()
        assert [made["id"] for made in rest["data"]] == ids[:1]
        assert (await client.get("/responses", params={"model": "other"})).json()["data"] == []
        deleted = await client.delete(f"/responses/{ids[0]}")
        assert deleted.json() == {"id": ids[0], "object": "response", "deleted": True}
        assert (await client.get(f"/responses/{ids[0]}")).status_code == 404
        assert (await client.delete(f"/responses/{ids[0]}")).status_code == 404

    serve(tmp_path, ScriptedProvider(), work)


def test_input_items_are_paged(tmp_path: Path) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        made = await ask(client, input=[{"role": "user", "content": text} for text in "abc"])
        url = f"/responses/{made['id']}/input_items"
        page = (await client.get(url, params={"limit": 2, "order": "asc"})).json()
        assert [item["content"][0]["text"] for item in page["data"]] == ["a", "b"]
        rest = (await client.get(url, params={"after": page["last_id"], "order": "asc"})).json()
        assert [item["content"][0]["text"] for item in rest["data"]] == ["c"]
        assert not rest["has_more"]
        assert (await client.get("/responses/resp_0/input_items")).status_code == 404

    serve(tmp_path, ScriptedProvider(), work)


def test_a_conversation_is_compacted_and_gone_on_with(tmp_path: Path) -> None:
    provider = ScriptedProvider(answers=["M4.", "They spoke of bolts.", "fine"])

    async def work(client: httpx.AsyncClient) -> None:
        one = await ask(client, input="Which bolts?")
        body = {"model": "tiny", "previous_response_id": one["id"]}
        short = checked((await client.post("/responses/compact", json=body)).json(), "CompactResource")
        await ask(client, input=[*short["output"], {"role": "user", "content": "Go on."}])

    serve(tmp_path, provider, work)
    assert "They spoke of bolts." in provider.asked[-1].messages[1].content


# The background -------------------------------------------------------------------------------------------------------


def test_the_background_is_queued_worked_on_and_done(tmp_path: Path) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        made = await ask(client, input="one two", background=True)
        assert made["status"] == "queued"
        seen = []
        while not seen or seen[-1] in ("queued", "in_progress"):
            seen.append(checked((await client.get(f"/responses/{made['id']}")).json(), "ResponseResource")["status"])
            await asyncio.sleep(0.01)
        assert seen[-1] == "completed"
        assert "in_progress" in seen
        watched = read((await client.get(f"/responses/{made['id']}", params={"stream": True})).text)
        assert watched[-1]["response"]["output"]
        later = await client.get(f"/responses/{made['id']}", params={"stream": True, "starting_after": 3})
        assert '"sequence_number":4,' in later.text.split("\n")[1]

    serve(tmp_path, ScriptedProvider(pause=0.03), work)


def test_the_background_is_cancelled(tmp_path: Path) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        made = await ask(client, input="one two three", background=True)
        await asyncio.sleep(0.05)
        cancelled = checked((await client.post(f"/responses/{made['id']}/cancel")).json(), "ResponseResource")
        assert cancelled["status"] == "cancelled"
        assert (await client.post(f"/responses/{made['id']}/cancel")).json() == cancelled
        assert (await client.get(f"/responses/{made['id']}")).json() == cancelled
        foreground = await ask(client, input="x y")
        assert (await client.post(f"/responses/{foreground['id']}/cancel")).status_code == 409
        assert (await client.post("/responses/resp_0/cancel")).status_code == 404

    serve(tmp_path, ScriptedProvider(pause=0.1), work)


def test_what_is_under_way_is_cancelled_before_it_is_deleted(tmp_path: Path) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        made = await ask(client, input="one two three", background=True)
        assert (await client.delete(f"/responses/{made['id']}")).status_code == 200
        await asyncio.sleep(0.05)
        assert (await client.get(f"/responses/{made['id']}")).status_code == 404

    serve(tmp_path, ScriptedProvider(pause=0.2), work)


def test_a_stream_of_the_background(tmp_path: Path) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        kinds = [event["type"] for event in await events_of(client, input="one", background=True)]
        assert kinds[:3] == ["response.created", "response.queued", "response.in_progress"]
        assert kinds[-1] == "response.completed"

    serve(tmp_path, ScriptedProvider(), work)


# Clients that leave ---------------------------------------------------------------------------------------------------


class Slow(ScriptedProvider):
    """Notes when its stream ended."""

    ended = 0.0

    async def stream(self, ask: Ask) -> AsyncIterator[Any]:
        try:
            async for event in super().stream(ask):
                yield event
        finally:
            self.ended = time.monotonic()


async def leave(app: Any, body: dict[str, Any], after: float) -> tuple[str, float]:
    """Posts a body, and leaves after some seconds; returns what was sent until then, and when that was."""
    content = json.dumps({"model": "tiny", **body}).encode()
    sent: list[bytes] = []
    given = asyncio.Event()
    left = 0.0

    async def receive() -> dict[str, Any]:
        nonlocal left
        if not given.is_set():
            given.set()
            return {"type": "http.request", "body": content, "more_body": False}
        await asyncio.sleep(after)
        left = time.monotonic()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message.get("body", b""))

    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/v1/responses",
        "raw_path": b"/v1/responses",
        "query_string": b"",
        "root_path": "",
        "headers": [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())],
        "client": ("127.0.0.1", 1),
        "server": ("test", 80),
    }
    await app(scope, receive, send)
    return b"".join(sent).decode(), left


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_ends_the_generation(tmp_path: Path, stream: bool) -> None:
    provider = Slow(answers=["word " * 100], pause=0.05)

    async def do() -> None:
        stack = make_stack(tmp_path, provider)
        app = make_app(stack)
        async with app.router.lifespan_context(app):
            sent, left = await leave(app, {"input": "x", "stream": stream}, 0.3)
            assert 0 < provider.ended - left < 1
            assert "response.completed" not in sent
            kept = stack.store.list("response").records
            assert [record.data["response"]["status"] for record in kept] == (["cancelled"] if stream else [])

    asyncio.run(do())


def test_the_background_survives_its_clients_leaving(tmp_path: Path) -> None:
    provider = Slow(answers=["one two three four"], pause=0.1)

    async def do() -> None:
        stack = make_stack(tmp_path, provider)
        app = make_app(stack)
        async with app.router.lifespan_context(app):
            await leave(app, {"input": "x", "stream": True, "background": True}, 0.1)
            await asyncio.sleep(0.8)
            (record,) = stack.store.list("response").records
            assert record.data["response"]["status"] == "completed"

    asyncio.run(do())


def test_a_hundred_streams_at_once_lose_nothing(tmp_path: Path) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        texts = [f"{number} " * 20 + "end" for number in range(100)]
        streams = await asyncio.gather(*(events_of(client, input=text) for text in texts))
        assert ["".join(e.get("delta", "") for e in events) for events in streams] == texts

    serve(tmp_path, ScriptedProvider(), work)


def test_a_kept_prompt_stands_before_the_instructions(tmp_path: Path) -> None:
    provider = ScriptedProvider()

    async def work(client: httpx.AsyncClient) -> None:
        kept = {"prompt": "Speak {{tongue}}.", "variables": ["tongue"]}
        made = (await client.post("/prompts", json=kept)).json()
        prompt = {"id": made["prompt_id"], "variables": {"tongue": "German"}}
        answer = await ask(client, input="x", instructions="Be brief.", prompt=prompt)
        assert answer["prompt"] == {**prompt, "version": None}

    serve(tmp_path, provider, work)
    assert provider.asked[0].messages[0].content == "Speak German.\n\nBe brief."
