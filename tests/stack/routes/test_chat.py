"""Chat over HTTP: whole and streamed, kept and fetched, refused and broken off; by hand and by OpenAI's own client."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from puna.base.errors import InputError, RemoteError
from puna.core.chat import Message, ToolCall
from puna.core.completion import Completion, StreamEvent, TextDelta, Usage
from puna.engine.local import LocalModel
from puna.stack.app import make_app
from puna.stack.context import Caller, Stack
from puna.stack.providers.engine import EngineProvider
from puna.stack.providers.provider import Ask
from puna.stack.testing import ScriptedProvider, live, make_stack, talk
from puna.testing import tiny_model, tiny_tokenizer

USER = [{"role": "user", "content": "one two three"}]
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
CALLS = Completion(Message("assistant", "", (ToolCall("look", {"at": 1}), ToolCall("look", {"at": 2}))), Usage(3, 9))


def ask(stack: Stack, **body: Any) -> httpx.Response:
    async def work(client: httpx.AsyncClient) -> httpx.Response:
        return await client.post("/v1/chat/completions", json={"model": "tiny", "messages": USER, **body})

    return talk(stack, work)


def events(answer: httpx.Response) -> list[Any]:
    """The data of a stream; what is no JSON as it is."""
    lines = [line[6:] for line in answer.text.split("\n\n") if line]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


def test_a_whole_answer(tmp_path: Path) -> None:
    provider = ScriptedProvider(answers=["Hello there"])
    answer = ask(make_stack(tmp_path, provider), temperature=0, max_tokens=7, seed=3, user="x", made_up=1)
    data = answer.json()
    assert answer.status_code == 200
    assert data["choices"][0]["message"]["content"] == "Hello there"
    assert data["model"] == "scripted/tiny"
    assert data["usage"]["prompt_tokens"] == 3
    params = provider.asked[0].params
    assert (params.temperature, params.max_tokens, params.seed) == (0, 7, 3)


def test_a_stream_joins_to_the_answer_and_ends_with_done(tmp_path: Path) -> None:
    answer = ask(make_stack(tmp_path), stream=True, stream_options={"include_usage": True})
    assert answer.headers["content-type"].startswith("text/event-stream")
    *chunks, done = events(answer)
    assert done == "[DONE]"
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    text = "".join(c["choices"][0]["delta"].get("content", "") for c in chunks if c["choices"])
    assert text == "one two three"
    assert chunks[-1]["usage"]["total_tokens"] == 6
    assert [c["choices"][0]["finish_reason"] for c in chunks[:-1]][-1] == "stop"


@pytest.mark.parametrize("parallel", [None, True, False])
def test_tool_calls_come_with_ids_whole_and_streamed(tmp_path: Path, parallel: bool | None) -> None:
    stack = make_stack(tmp_path, ScriptedProvider(answers=[CALLS, CALLS]))
    body = {"tools": [TOOL], "parallel_tool_calls": parallel}
    choice = ask(stack, **body).json()["choices"][0]
    wanted = [1] if parallel is False else [1, 2]
    calls = choice["message"]["tool_calls"]
    assert [json.loads(call["function"]["arguments"])["at"] for call in calls] == wanted
    assert choice["finish_reason"] == "tool_calls"
    assert all(call["id"].startswith("call_") for call in calls)
    stack = make_stack(tmp_path, ScriptedProvider(answers=[CALLS]))
    *chunks, _ = events(ask(stack, **body, stream=True))
    pieces = [piece for c in chunks for piece in c["choices"][0]["delta"].get("tool_calls", [])]
    assert [json.loads(piece["function"]["arguments"])["at"] for piece in pieces] == wanted
    assert [piece["index"] for piece in pieces] == list(range(len(wanted)))
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_allowed_tools_are_all_that_the_model_sees(tmp_path: Path) -> None:
    provider = ScriptedProvider()
    other = {"type": "function", "function": {"name": "read"}}
    allowed = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [other]}}
    ask(make_stack(tmp_path, provider), tools=[TOOL, other], tool_choice=allowed)
    assert [tool.name for tool in provider.asked[0].tools] == ["read"]
    assert provider.asked[0].params.tool_choice == "required"


@pytest.mark.parametrize(
    ("body", "status", "param", "words"),
    [
        ({"model": "nobody"}, 404, "model", "'nobody'"),
        ({"model": "letters"}, 400, "model", "embedding"),
        ({"messages": []}, 400, "messages", "at least one"),
        ({"messages": "hi"}, 400, "messages", "list"),
        ({"temperature": 9}, 400, "temperature", "less than or equal"),
        ({"n": "many"}, 400, "n", "integer"),
        ({"functions": [{"name": "f"}]}, 400, "functions", "tools"),
        ({"top_logprobs": 3}, 400, "top_logprobs", "logprobs"),
        ({"stream_options": {"include_usage": True}}, 400, "stream_options", "stream"),
        ({"tool_choice": "required"}, 400, "tool_choice", "no tools"),
        ({"response_format": {"type": "xml"}}, 400, "response_format.type", "xml"),
        ({"response_format": {"type": "text"}, "structured_outputs": {"regex": "a"}}, 400, "structured_outputs", "one"),
        ({"max_tokens": 0}, 400, "max_tokens", "at least 1"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("stream", [False, True])
def test_a_refusal_names_the_field(
    tmp_path: Path, body: Any, status: int, param: str, words: str, stream: bool
) -> None:
    if "stream_options" in body and stream:
        return
    answer = ask(make_stack(tmp_path), **{**body, "stream": stream})
    error = answer.json()["error"]
    assert answer.status_code == status, answer.text
    assert error["param"] == param
    assert words in error["message"]
    assert error["code"]


@pytest.mark.parametrize(
    ("error", "status"), [(InputError("too long"), 400), (RemoteError("gone"), 502), (KeyError(), 500)]
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_failure_before_the_first_piece_has_a_status(
    tmp_path: Path, error: Exception, status: int, stream: bool
) -> None:
    answer = ask(make_stack(tmp_path, ScriptedProvider(answers=[error])), stream=stream)
    assert answer.status_code == status
    assert answer.json()["error"]["message"]


class Breaking(ScriptedProvider):
    """Says one word and fails."""

    async def stream(self, ask: Ask) -> AsyncIterator[StreamEvent]:
        del ask
        yield TextDelta("so")
        raise RemoteError("cut off")


def test_a_failure_after_it_is_an_event_and_the_end(tmp_path: Path) -> None:
    answer = ask(make_stack(tmp_path, Breaking()), stream=True, store=True)
    assert answer.status_code == 200
    *_, failed, done = events(answer)
    assert (failed["error"]["message"], failed["error"]["code"]) == ("cut off", "provider_error")
    assert done == "[DONE]"


def test_only_the_key_for_the_provider_is_handed_on(tmp_path: Path) -> None:
    provider = ScriptedProvider("p")
    stack = make_stack(tmp_path, provider)

    async def work(client: httpx.AsyncClient) -> None:
        await client.post("/v1/chat/completions", json={"model": "tiny", "messages": USER})

    async def go() -> None:
        app = make_app(stack)

        async def signed(scope: Any, receive: Any, send: Any) -> None:
            scope.setdefault("state", {})["caller"] = Caller("ana", provider_keys={"p": "sk-1", "q": "sk-2"})
            await app(scope, receive, send)

        transport = httpx.ASGITransport(app=signed)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://t") as client,
        ):
            await work(client)

    asyncio.run(go())
    assert (provider.asked[0].owner, provider.asked[0].key) == ("ana", "sk-1")


# Kept answers ---------------------------------------------------------------------------------------------------------


def test_kept_answers_can_be_listed_fetched_marked_and_deleted(tmp_path: Path) -> None:
    path = "/v1/chat/completions"

    async def work(client: httpx.AsyncClient) -> None:
        ids = []
        for i in range(5):
            body = {"model": "tiny", "messages": [{"role": "user", "content": f"n{i}\ud800"}], "store": True,
                    "metadata": {"odd": str(i % 2), "x": "\ud800"}, "stream": i == 4}  # fmt: skip
            answer = await client.post(path, content=json.dumps(body), headers={"content-type": "application/json"})
            ids.append(events(answer)[0]["id"] if i == 4 else answer.json()["id"])
        await client.post(path, json={"model": "tiny", "messages": USER})  # not kept
        listed = (await client.get(path)).json()
        assert [row["id"] for row in listed["data"]] == ids
        assert listed["has_more"] is False
        odd = (await client.get(path, params={"metadata[odd]": "1", "order": "desc", "limit": 1})).json()
        assert ([row["id"] for row in odd["data"]], odd["has_more"]) == ([ids[3]], True)
        rest = (await client.get(path, params={"after": ids[2], "model": "tiny"})).json()
        assert [row["id"] for row in rest["data"]] == ids[3:]
        one = (await client.get(f"{path}/{ids[4]}")).json()
        assert one["choices"][0]["message"]["content"] == "n4\ufffd"
        assert one["input_messages"][0]["content"] == "n4\ufffd"
        marked = (await client.post(f"{path}/{ids[4]}", json={"metadata": {"a": "b"}})).json()
        assert marked["metadata"] == {"a": "b"} == (await client.get(f"{path}/{ids[4]}")).json()["metadata"]
        gone = (await client.delete(f"{path}/{ids[4]}")).json()
        assert gone == {"object": "chat.completion.deleted", "id": ids[4], "deleted": True}
        for method in ("GET", "DELETE"):
            refused = await client.request(method, f"{path}/{ids[4]}")
            assert (refused.status_code, refused.json()["error"]["code"]) == (404, "not_found")
        assert (await client.get(path, params={"after": "nobody"})).status_code == 404

    talk(make_stack(tmp_path), work)


def test_the_messages_of_a_kept_answer_are_paged(tmp_path: Path) -> None:
    messages = [{"role": "system", "content": "s"}, *USER]

    async def work(client: httpx.AsyncClient) -> None:
        id = (
            await client.post("/v1/chat/completions", json={"model": "tiny", "messages": messages, "store": True})
        ).json()["id"]
        path = f"/v1/chat/completions/{id}/messages"
        first = (await client.get(path, params={"limit": 1})).json()
        assert ([row["role"] for row in first["data"]], first["has_more"]) == (["system"], True)
        second = (await client.get(path, params={"after": first["last_id"]})).json()
        assert ([row["content"] for row in second["data"]], second["has_more"]) == (["one two three"], False)
        turned = (await client.get(path, params={"order": "desc"})).json()
        assert [row["role"] for row in turned["data"]] == ["user", "system"]
        assert (await client.get(path, params={"after": "x"})).status_code == 404

    talk(make_stack(tmp_path), work)


# On a socket ----------------------------------------------------------------------------------------------------------


class Slow(ScriptedProvider):
    """Never ends by itself, and notes when it is ended."""

    def __init__(self, quiet: bool) -> None:
        super().__init__()
        self.quiet, self.begun, self.ended = quiet, threading.Event(), threading.Event()

    async def stream(self, ask: Ask) -> AsyncIterator[StreamEvent]:
        del ask
        try:
            self.begun.set()
            while True:
                if not self.quiet:
                    yield TextDelta("a ")
                await asyncio.sleep(0.005)
        finally:
            self.ended.set()


@pytest.mark.parametrize("quiet", [False, True])
@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_ends_the_generation_within_a_second(tmp_path: Path, quiet: bool, stream: bool) -> None:
    provider = Slow(quiet)
    body = {"model": "tiny", "messages": USER, "stream": stream}
    with live(make_stack(tmp_path, provider), "/v1") as url:
        with httpx.Client(trust_env=False) as client:
            if stream and not quiet:
                with client.stream("POST", f"{url}/chat/completions", json=body) as answer:
                    assert next(answer.iter_bytes())
            else:
                with pytest.raises(httpx.ReadTimeout):
                    client.post(f"{url}/chat/completions", json=body, timeout=1.0)
            assert provider.begun.is_set()
        assert provider.ended.wait(1.0)


def test_a_hundred_streams_at_once_lose_nothing(tmp_path: Path) -> None:
    words = " ".join(f"w{i}" for i in range(50))

    async def one(client: httpx.AsyncClient, i: int) -> None:
        messages = [{"role": "user", "content": f"{i} {words}"}]
        answer = await client.post("chat/completions", json={"model": "tiny", "messages": messages, "stream": True})
        *chunks, done = events(answer)
        assert done == "[DONE]"
        assert "".join(c["choices"][0]["delta"].get("content", "") for c in chunks) == f"{i} {words}"

    async def go(url: str) -> None:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=60, limits=limits) as client:
            await asyncio.gather(*(one(client, i) for i in range(100)))

    with live(make_stack(tmp_path, ScriptedProvider(pause=0.001)), "/v1") as url:
        asyncio.run(go(url))


def test_openais_client(tmp_path: Path) -> None:
    openai = pytest.importorskip("openai")
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    answers = ["Hello there", "Hello again", CALLS, CALLS, '{"a": 1}', "kept"]
    provider = ScriptedProvider(answers=answers)
    tools = [{"type": "function", "function": {**TOOL["function"], "strict": True}}]  # type: ignore[dict-item]
    with (
        live(make_stack(tmp_path, provider), "/v1") as url,
        openai.OpenAI(base_url=url, api_key="x", max_retries=0, http_client=httpx.Client(trust_env=False)) as client,
    ):
        chat = client.chat.completions
        assert chat.create(model="tiny", messages=USER).choices[0].message.content == "Hello there"
        found = list(chat.create(model="tiny", messages=USER, stream=True, stream_options={"include_usage": True}))
        assert "".join(c.choices[0].delta.content or "" for c in found if c.choices) == "Hello again"
        assert found[-1].usage.total_tokens == 5
        calls = chat.create(model="tiny", messages=USER, tools=tools).choices[0].message.tool_calls
        assert [call.function.name for call in calls] == ["look", "look"]
        with chat.stream(model="tiny", messages=USER, tools=tools) as stream:
            final = stream.get_final_completion()
        assert [call.function.arguments for call in final.choices[0].message.tool_calls] == [
            '{"at": 1}',
            '{"at": 2}',
        ]
        form = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema, "strict": True}}
        chat.create(model="tiny", messages=USER, response_format=form)
        assert provider.asked[-1].params.constraint.value == schema
        kept = chat.create(model="tiny", messages=USER, store=True, metadata={"k": "v"})
        assert [one.id for one in chat.list(metadata={"k": "v"})] == [kept.id]
        assert chat.retrieve(kept.id).choices[0].message.content == "kept"
        assert [message.content for message in chat.messages.list(kept.id)] == ["one two three"]
        assert chat.delete(kept.id).deleted
        with pytest.raises(openai.NotFoundError) as missing:
            chat.create(model="nobody", messages=USER)
        assert (missing.value.code, missing.value.param) == ("not_found", "model")
        assert {model.id for model in client.models.list()} == {"scripted/tiny", "scripted/letters"}
        assert client.models.retrieve("scripted/tiny").owned_by == "scripted"
        vectors = client.embeddings.create(model="letters", input=["a", "b"]).data
        assert [vector.embedding.index(1.0) for vector in vectors] == [0, 1]
        assert client.completions.create(model="tiny", prompt="a b").choices[0].text == "a b"
        pieces = client.completions.create(model="tiny", prompt="a b", stream=True)
        assert "".join(piece.choices[0].text for piece in pieces) == "a b"


@pytest.mark.parametrize("stream", [False, True])
def test_openais_client_raises_the_error_that_fits(tmp_path: Path, stream: bool) -> None:
    openai = pytest.importorskip("openai")
    cases = ((RemoteError("gone"), openai.InternalServerError, 502), (InputError("no"), openai.BadRequestError, 400))
    for error, kind, status in cases:
        provider = ScriptedProvider(answers=[error])
        with live(make_stack(tmp_path, provider), "/v1") as url, httpx.Client(trust_env=False) as http:
            chat = openai.OpenAI(base_url=url, api_key="x", max_retries=0, http_client=http).chat.completions
            with pytest.raises(kind, match=str(error)) as caught:
                chat.create(model="tiny", messages=USER, stream=stream)
            assert caught.value.status_code == status
            assert caught.value.code


def test_openais_client_on_a_real_model(tmp_path: Path) -> None:
    """Random weights say nothing, but what they say is held to its form."""
    openai = pytest.importorskip("openai")
    schema = {
        "type": "object",
        "properties": {"a": {"enum": [1, 2]}},
        "required": ["a"],
        "additionalProperties": False,
    }
    look = {"type": "function", "function": {"name": "look", "parameters": schema}}
    provider = EngineProvider("local", {"tiny": lambda: LocalModel(tiny_model(2), tiny_tokenizer())})
    with live(make_stack(tmp_path, provider), "/v1") as url, httpx.Client(trust_env=False) as http:
        chat = openai.OpenAI(base_url=url, api_key="x", max_retries=0, http_client=http).chat.completions
        form = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
        for seed in range(5):
            said = chat.create(model="tiny", messages=USER, response_format=form, max_tokens=40, seed=seed)
            assert json.loads(said.choices[0].message.content)["a"] in (1, 2)
            forced = {"type": "function", "function": {"name": "look"}}
            answer = chat.create(
                model="tiny", messages=USER, tools=[look], tool_choice=forced, max_tokens=200, seed=seed
            )
            (call,) = answer.choices[0].message.tool_calls
            assert json.loads(call.function.arguments)["a"] in (1, 2)
        settings = {"model": "tiny", "messages": USER, "max_tokens": 6, "n": 2, "seed": 1, "logprobs": True}
        whole = chat.create(**settings, top_logprobs=3)
        texts, tokens = ["", ""], [[], []]
        for chunk in chat.create(**settings, top_logprobs=3, stream=True):
            (choice,) = chunk.choices
            texts[choice.index] += choice.delta.content or ""
            tokens[choice.index] += choice.logprobs.content if choice.logprobs else []
        for choice in whole.choices:
            assert choice.message.content == texts[choice.index]
            assert choice.logprobs.content == tokens[choice.index]
            assert all(len(item.top_logprobs) == 3 for item in choice.logprobs.content)
        assert whole.usage.completion_tokens == 12
        long = [{"role": "user", "content": "x" * 5000}]
        with pytest.raises(openai.BadRequestError) as refused:
            chat.create(model="tiny", messages=long)
        assert (refused.value.code, refused.value.param) == ("context_length_exceeded", "messages")


LLAMA_STACK = """
import sys
from llama_stack_client import LlamaStackClient
client = LlamaStackClient(base_url=sys.argv[1])
names = [model.identifier for model in client.models.list() if model.api_model_type == "llm"]
messages = [{"role": "user", "content": "one two"}]
answer = client.chat.completions.create(model=names[0], messages=messages)
assert answer.choices[0].message.content == "one two", answer
pieces = client.chat.completions.create(model=names[0], messages=messages, stream=True)
assert "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices) == "one two"
assert client.completions.create(model=names[0], prompt="a b").choices[0].text == "a b"
assert len(client.embeddings.create(model="letters", input=["a"]).data[0].embedding) == 26
print(names)
"""


def test_llama_stacks_old_client(tmp_path: Path) -> None:
    python = os.environ.get("PUNA_LLAMA_STACK_CLIENT_PYTHON")
    if not python:
        pytest.skip("PUNA_LLAMA_STACK_CLIENT_PYTHON names no Python with llama-stack-client 0.2.12")
    with live(make_stack(tmp_path), "/v1") as url:
        command = [python, "-c", LLAMA_STACK, url.removesuffix("/v1")]
        environment = {**os.environ, "NO_PROXY": "127.0.0.1"}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "['scripted/tiny']"


def test_openais_client_hears_of_a_failure_in_the_middle(tmp_path: Path) -> None:
    openai = pytest.importorskip("openai")
    said = ""
    with live(make_stack(tmp_path, Breaking()), "/v1") as url, httpx.Client(trust_env=False) as http:
        chat = openai.OpenAI(base_url=url, api_key="x", http_client=http).chat.completions
        with pytest.raises(openai.APIError, match="cut off"):
            for chunk in chat.create(model="tiny", messages=USER, stream=True):
                said += chunk.choices[0].delta.content or ""
    assert said == "so"
