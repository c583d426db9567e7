"""The responses API over a socket: OpenAI's client, and a real (random) model that is held to what was asked of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from puna.base.errors import RemoteError
from puna.core.chat import Message, ToolCall
from puna.core.completion import Completion, Usage
from puna.engine.local import LocalModel
from puna.stack.context import Stack
from puna.stack.providers.engine import EngineProvider
from puna.stack.responses import records
from puna.stack.responses.marks import Marks
from puna.stack.state.sqlite import SqliteStore
from puna.stack.testing import ScriptedProvider, live, make_stack
from puna.testing import tiny_model, tiny_tokenizer

openai = pytest.importorskip("openai")

CITY = {
    "type": "object",
    "properties": {"city": {"enum": ["Ulm", "Bonn"]}},
    "required": ["city"],
    "additionalProperties": False,
}
WEATHER = {"type": "function", "name": "weather", "parameters": CITY, "strict": True}
NEWS = {**WEATHER, "name": "news"}
CALL = Completion(Message("assistant", "", (ToolCall("weather", {"city": "Ulm"}, "call_1"),)), Usage(4, 5))


@contextmanager
def openai_client(stack: Stack) -> Iterator[Any]:
    """OpenAI's client of a server on this machine."""
    with live(stack, "/v1") as url, httpx.Client(trust_env=False, timeout=60) as http:
        yield openai.OpenAI(base_url=url, api_key="x", max_retries=0, http_client=http)


def engine(folder: Path) -> Stack:
    return make_stack(folder, EngineProvider("local", {"tiny": lambda: LocalModel(tiny_model(2), tiny_tokenizer())}))


def test_openais_client_reads_answers(tmp_path: Path) -> None:
    provider = ScriptedProvider(answers=["one two", CALL, "It rains.", RemoteError("gone"), RemoteError("gone")])
    with openai_client(make_stack(tmp_path, provider)) as client:
        made = client.responses.create(model="tiny", input="hello", metadata={"a": "b"})
        assert made.output_text == "one two"
        assert made.usage.input_tokens + made.usage.output_tokens == made.usage.total_tokens
        first = client.responses.create(model="tiny", input="Weather?", tools=[WEATHER], previous_response_id=made.id)
        (call,) = first.output
        assert json.loads(call.arguments) == {"city": "Ulm"}
        output = {"type": "function_call_output", "call_id": call.call_id, "output": "rain"}
        last = client.responses.create(model="tiny", input=[output], previous_response_id=first.id)
        assert last.output_text == "It rains."
        assert client.responses.retrieve(made.id) == made
        items = client.responses.input_items.list(first.id).data
        assert [item.type for item in items] == ["message"]
        client.responses.delete(made.id)
        with pytest.raises(openai.NotFoundError) as missing:
            client.responses.retrieve(made.id)
        assert missing.value.code == "not_found"
        with pytest.raises(openai.InternalServerError) as failed:
            client.responses.create(model="tiny", input="x")
        assert failed.value.code == "provider_error"
        with pytest.raises(openai.APIError, match="gone"):
            list(client.responses.create(model="tiny", input="x", stream=True))


def test_openais_stream_helper(tmp_path: Path) -> None:
    with openai_client(make_stack(tmp_path, ScriptedProvider(answers=["one two", CALL]))) as client:
        with client.responses.stream(model="tiny", input="hello") as stream:
            said = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
            final = stream.get_final_response()
        assert said == final.output_text == "one two"
        with client.responses.stream(model="tiny", input="hello", tools=[WEATHER]) as stream:
            kinds = [event.type for event in stream]
            final = stream.get_final_response()
        assert kinds[-1] == "response.completed"
        assert final.output[0].name == "weather"


def test_openais_client_keeps_conversations(tmp_path: Path) -> None:
    with openai_client(make_stack(tmp_path, ScriptedProvider())) as client:
        talk = client.conversations.create(metadata={"a": "b"})
        client.responses.create(model="tiny", input="hello", conversation=talk.id)
        client.conversations.items.create(talk.id, items=[{"type": "message", "role": "user", "content": "more"}])
        items = list(client.conversations.items.list(talk.id, order="asc", limit=2))
        assert [item.content[0].text for item in items] == ["hello", "hello", "more"]
        assert client.conversations.update(talk.id, metadata={"a": "c"}).metadata == {"a": "c"}
        assert client.conversations.delete(talk.id).deleted


def test_openais_client_follows_the_background(tmp_path: Path) -> None:
    with openai_client(make_stack(tmp_path, ScriptedProvider(answers=["one two", "word " * 50], pause=0.02))) as client:
        made = client.responses.create(model="tiny", input="x", background=True)
        assert made.status == "queued"
        until = time.monotonic() + 10
        while client.responses.retrieve(made.id).status in ("queued", "in_progress") and time.monotonic() < until:
            time.sleep(0.02)
        assert client.responses.retrieve(made.id).output_text == "one two"
        other = client.responses.create(model="tiny", input="x", background=True)
        assert client.responses.cancel(other.id).status == "cancelled"


def test_a_client_that_closes_its_stream_ends_the_generation(tmp_path: Path) -> None:
    stack = make_stack(tmp_path, ScriptedProvider(answers=["word " * 1000], pause=0.01))
    with openai_client(stack) as client:
        with client.responses.create(model="tiny", input="x", stream=True) as stream:
            id = next(iter(stream)).response.id
        until = time.monotonic() + 1.0
        while client.responses.retrieve(id).status == "in_progress" and time.monotonic() < until:
            time.sleep(0.02)
        assert client.responses.retrieve(id).status == "cancelled"


@pytest.mark.slow
def test_a_model_is_held_to_its_tools(tmp_path: Path) -> None:
    """Random weights would call anything: what is chosen holds by force, not by luck."""
    named = {"type": "function", "name": "news"}
    allowed = {"type": "allowed_tools", "mode": "required", "tools": [named]}
    with openai_client(engine(tmp_path)) as client:

        def called(seed: int, choice: Any) -> set[str]:
            made = client.responses.create(
                model="tiny",
                input="Weather?",
                tools=[WEATHER, NEWS],
                tool_choice=choice,
                max_output_tokens=200 if choice != "none" else 16,
                extra_body={"seed": seed},
            )
            calls = [item for item in made.output if item.type == "function_call"]
            assert all(json.loads(call.arguments)["city"] in ("Ulm", "Bonn") for call in calls)
            return {call.name for call in calls}

        for seed in range(50):
            assert called(seed, "none") == set()
            assert called(seed, named) == {"news"}
            assert called(seed, allowed) == {"news"}
        for seed in range(10):
            assert called(seed, "required") <= {"news", "weather"} != set()


SCHEMAS: list[dict[str, Any]] = [
    {"type": "object", "properties": {"a": {"enum": [kind]}}, "required": ["a"], "additionalProperties": False}
    for kind in ("x", 1, None, True, "a b", "é", 2.5)
] + [
    {"type": "object", "properties": {"a": value}, "required": ["a"], "additionalProperties": False}
    for value in (
        {"type": "boolean"},
        {"type": "null"},
        {"enum": ["x", "y"]},
        {"const": "z"},
        {"type": "integer", "minimum": 0, "maximum": 9},
        {"type": "string", "maxLength": 3},
        {"type": "string", "pattern": "^[ab]{2}$"},
        {"type": "array", "items": {"enum": [1, 2]}, "minItems": 1, "maxItems": 2},
        {"type": "array", "items": {"type": "boolean"}, "maxItems": 3},
        {"anyOf": [{"const": 1}, {"const": "one"}]},
        {
            "type": "object",
            "properties": {"b": {"type": "boolean"}},
            "required": ["b"],
            "additionalProperties": False,
        },
        {"type": ["boolean", "null"]},
        {"enum": [[], {}]},
    )
]


def test_a_model_is_held_to_a_schema(tmp_path: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    assert len(SCHEMAS) == 20
    with openai_client(engine(tmp_path)) as client:
        for seed, schema in enumerate(SCHEMAS):
            form = {"type": "json_schema", "name": "a", "schema": schema, "strict": True}
            made = client.responses.create(
                model="tiny", input="hello", text={"format": form}, max_output_tokens=150, extra_body={"seed": seed}
            )
            assert made.status == "completed", (schema, made.output_text)
            jsonschema.validate(json.loads(made.output_text), schema)


def test_tokens_are_those_of_the_models_tokenizer(tmp_path: Path) -> None:
    with openai_client(engine(tmp_path)) as client:
        made = client.responses.create(
            model="tiny", input="hello there", max_output_tokens=16, top_logprobs=2, extra_body={"seed": 3}
        )
        chat = tiny_tokenizer().chat
        assert made.usage.input_tokens == len(chat.render([Message("user", "hello there")]))
        assert made.status == "incomplete"
        assert made.incomplete_details.reason == "max_output_tokens"
        assert made.usage.output_tokens == 16
        part = made.output[0].content[0]
        assert "".join(entry.token for entry in part.logprobs) == part.text or "\ufffd" in part.text
        assert all(len(entry.top_logprobs) == 2 for entry in part.logprobs)
        with pytest.raises(openai.BadRequestError) as refused:
            client.responses.create(model="tiny", input="x" * 5000)
        assert refused.value.code == "context_length_exceeded"


KILLED = """
import asyncio, sys
from pathlib import Path
import httpx
from puna.stack.app import make_app
from puna.stack.testing import ScriptedProvider, live, make_stack, talk

async def main():
    app = make_app(make_stack(Path(sys.argv[1]), ScriptedProvider(pause=0.01)))
    transport = httpx.ASGITransport(app=app)
    client = httpx.AsyncClient(transport=transport, base_url="http://t/v1")
    async with app.router.lifespan_context(app), client:
        talk = (await client.post("/conversations", json={})).json()["id"]
        print("conversation", talk, flush=True)
        for number in range(100000):
            slow = await client.post("/responses", json={"input": "word " * 2000, "background": True})
            print("background", slow.json()["id"], flush=True)
            made = await client.post("/responses", json={"input": f"say {number}", "conversation": talk})
            print("response", made.json()["id"], flush=True)

asyncio.run(main())
"""


def test_a_kill_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    said = [process.stdout.readline() for _ in range(41)]
    os.kill(process.pid, signal.SIGKILL)
    said += process.stdout.readlines()
    process.stdout.close()
    process.wait()
    told = [line.split() for line in said if line.endswith("\n")]
    store = SqliteStore(tmp_path / "stack.db")
    marks = Marks(store)
    marks.recover()
    talk = next(id for kind, id in told if kind == "conversation")
    items, _ = records.conversation_items(store, "", talk)
    texts = [item["content"][0]["text"] for item in items]
    answered = [id for kind, id in told if kind == "response"]
    # What was answered is there, in pairs, and nothing is half there.
    assert len(answered) >= 20
    assert texts == [f"say {i // 2}" for i in range(len(texts))]
    assert len(texts) // 2 in (len(answered), len(answered) + 1)
    for id in answered:
        assert records.load(store, "", id).response["status"] == "completed"
    for kept in (records.kept_of(record) for record in records.every(store, records.RESPONSE, "")):
        assert kept.response["status"] in ("completed", "failed")
    behind = [id for kind, id in told if kind == "background"]
    assert behind
    assert {records.load(store, "", id).response["status"] for id in behind} <= {"completed", "failed"}
