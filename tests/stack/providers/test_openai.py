"""A server elsewhere, against a real HTTP server on this machine that plays back what it is told to."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from puna.base.errors import ConfigError, RemoteError
from puna.core.chat import Message, ToolCall, ToolSpec
from puna.core.completion import Completion, Constraint, SamplingParams, TextDelta, ToolCallDelta
from puna.core.verdict import Price
from puna.engine.local import LocalModel
from puna.stack.errors import ApiError
from puna.stack.providers.engine import EngineProvider
from puna.stack.providers.openai import OpenAIConfig, OpenAIProvider, from_settings
from puna.stack.providers.provider import Ask, ModelInfo
from puna.stack.providers.remote_reading import UpstreamError
from puna.stack.testing import live, make_stack
from puna.testing import tiny_model, tiny_tokenizer

KEY = "sk-secret-0123456789abcdef"
ASK = Ask("m", [Message("user", "hi")], SamplingParams(max_tokens=5))


class Server:
    """Plays back an entry for each request; the last for ever.

    An entry is (status, headers, body); a body of a list is sent piece by piece, and a number in it is a wait in
    seconds; None in it breaks the connection.
    """

    def __init__(self, *script: Any) -> None:
        self.script = list(script)
        self.requests: list[dict[str, Any]] = []
        self.gone = asyncio.Event()
        self._server: Any = None

    async def __aenter__(self) -> Server:
        self._server = await asyncio.start_server(self._talk, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"
        return self

    async def __aexit__(self, *failure: object) -> None:
        self._server.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            first, *lines = head.strip().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            path = first.split()[1]
            self.requests.append({"path": path, "key": headers.get("authorization"), "body": json.loads(body or b"{}")})
            status, more, data = self.script.pop(0) if len(self.script) > 1 else self.script[0]
            parts = data if isinstance(data, list) else [data]
            lines = [f"HTTP/1.1 {status} X", "connection: close", *(f"{name}: {value}" for name, value in more.items())]
            if not isinstance(data, list):
                lines.append(f"content-length: {len(data)}")
            else:
                lines.append("transfer-encoding: chunked")
            writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
            for part in parts:
                if part is None:
                    writer.transport.abort()
                    return
                if isinstance(part, float):
                    await asyncio.sleep(part)
                    continue
                writer.write(part if not isinstance(data, list) else b"%x\r\n%s\r\n" % (len(part), part))
                await writer.drain()
            if isinstance(data, list):
                writer.write(b"0\r\n\r\n")
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            self.gone.set()
        finally:
            writer.close()


def play(work: Callable[[OpenAIProvider, Server], Awaitable[Any]], *script: Any, **settings: Any) -> Any:
    waits: list[float] = settings.pop("waits", [])
    given = settings.pop("models", None)

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    async def go() -> Any:
        async with Server(*script) as server:
            config = OpenAIConfig(**{"url": server.url, "key": KEY, "profile": "vllm", **settings})
            provider = OpenAIProvider("far", config, given, sleep)
            await provider.start()
            try:
                return await asyncio.wait_for(work(provider, server), 20)
            finally:
                await provider.stop()

    return asyncio.run(go())


def event(data: Any) -> bytes:
    return b"data: " + (data if isinstance(data, str) else json.dumps(data)).encode() + b"\n\n"


def piece(text: str = "", finish: str | None = None, index: int = 0, **delta: Any) -> bytes:
    return event({"choices": [{"index": index, "delta": {"content": text, **delta}, "finish_reason": finish}]})


USAGE = event({"choices": [], "usage": {"prompt_tokens": 1_000_000, "completion_tokens": 500_000,
                                        "prompt_tokens_details": {"cached_tokens": 400_000}}})  # fmt: skip
END = event("[DONE]")
HELLO = 200, {}, [piece("Hel"), b": a comment\n\n", piece("lo"), piece(finish="stop"), USAGE, END]


async def heard(provider: OpenAIProvider, ask: Ask = ASK) -> list[Any]:
    return [item async for item in provider.stream(ask)]


async def answer(provider: OpenAIProvider, ask: Ask = ASK) -> Completion:
    return (await heard(provider, ask))[-1].completion


def test_an_answer_comes_piece_by_piece() -> None:
    async def work(provider: OpenAIProvider, server: Server) -> None:
        first, second, done = await heard(provider)
        assert (first, second) == (TextDelta("Hel"), TextDelta("lo"))
        completion = done.completion
        assert (completion.message.content, completion.stop_reason) == ("Hello", "end_of_turn")
        assert completion.usage.cached_tokens == 400_000
        assert completion.cost == pytest.approx(0.6 * 2 + 0.4 * 1 + 0.5 * 4)
        request = server.requests[0]
        assert (request["path"], request["key"]) == ("/v1/chat/completions", f"Bearer {KEY}")
        assert request["body"]["stream_options"] == {"include_usage": True}

    play(work, HELLO, price=Price(2.0, 4.0, 1.0))


def test_pieces_may_be_cut_anywhere() -> None:
    whole = b"".join(HELLO[2][:-1]).replace(b"\n", b"\r\n") + "data: \u2028".encode()[:6]
    data = [whole[i : i + 7] for i in range(0, len(whole), 7)] + [b"[DONE]"]
    text = [event({"choices": [{"index": 0, "delta": {"content": "a\u2028b"}, "finish_reason": "stop"}]}).replace(
        b"\\u2028", "\u2028".encode()), END]  # fmt: skip

    async def work(provider: OpenAIProvider, server: Server) -> None:
        del server
        assert (await answer(provider)).message.content == "Hello"
        assert (await answer(provider)).message.content == "a\u2028b"

    play(work, (200, {}, data), (200, {}, text))


def test_tool_calls_are_put_together_and_given_whole() -> None:
    def part(index: int, **function: str) -> bytes:
        id = {"id": f"c{index}"} if "name" in function else {}
        return piece(tool_calls=[{"index": index, **id, "function": function}])

    data = [part(0, name="look", arguments='{"a"'), part(0, arguments=": 1}"), part(1, name="read", arguments=""),
            piece(finish="tool_calls"), END]  # fmt: skip

    async def work(provider: OpenAIProvider, server: Server) -> None:
        ask = Ask("m", ASK.messages, ASK.params, [ToolSpec("look")])
        *calls, done = await heard(provider, ask)
        assert calls == [ToolCallDelta(ToolCall("look", {"a": 1}, "c0")), ToolCallDelta(ToolCall("read", {}, "c1"))]
        assert done.completion.message.tool_calls == tuple(call.call for call in calls)
        assert server.requests[0]["body"]["tools"][0]["function"]["name"] == "look"

    play(work, (200, {}, data))


def test_several_answers() -> None:
    data = [piece("a"), piece("b", index=1), piece("c", "stop", 1), piece("d", "length"), END]

    async def work(provider: OpenAIProvider, server: Server) -> None:
        del server
        *texts, done = await heard(provider)
        assert texts == [TextDelta("a"), TextDelta("d")]
        assert done.completion.message.content == "ad"
        assert done.completion.stop_reason == "length"
        assert [other.message.content for other in done.completion.others] == ["bc"]

    play(work, (200, {}, data))


def test_a_raw_prompt_goes_to_its_own_path() -> None:
    data = [event({"choices": [{"index": 0, "text": "on", "finish_reason": None}]}),
            event({"choices": [{"index": 0, "text": "", "finish_reason": "length"}]}), END]  # fmt: skip

    async def work(provider: OpenAIProvider, server: Server) -> None:
        found = await answer(provider, Ask("m", params=ASK.params, prompt=[1, 2]))
        assert (found.message.content, found.stop_reason) == ("on", "length")
        assert server.requests[0]["path"] == "/v1/completions"
        assert server.requests[0]["body"]["prompt"] == [1, 2]

    play(work, (200, {}, data))


def test_the_callers_own_key_goes_in_place_of_the_servers() -> None:
    own = "sk-callers-own-key-1"

    async def work(provider: OpenAIProvider, server: Server) -> None:
        ask = Ask("m", ASK.messages, ASK.params, key=own)
        assert (await answer(provider, ask)).message.content == "Hello"
        assert server.requests[0]["key"] == f"Bearer {own}"
        with pytest.raises(ApiError) as caught:
            await answer(provider, ask)
        assert (caught.value.status, caught.value.code) == (401, "invalid_provider_key")
        assert own not in caught.value.message
        with pytest.raises(UpstreamError) as ours:  # the server's own key is not the caller's fault
            await answer(provider)
        assert ours.value.status == 401
        assert KEY not in str(ours.value)

    play(work, HELLO, (401, {}, f"bad key {own} {KEY}".encode()))


# Failures -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "failing",
    [
        (503, {}, b"busy"),
        (429, {"retry-after": "2"}, b"slow down"),
        (200, {}, [None]),
        (200, {}, [b": hello\n\n", None]),
        (200, {}, [event({"error": {"message": "overloaded"}})]),
        (200, {}, [piece(), END]),
    ],
)
def test_what_may_pass_is_tried_again_before_the_first_text(failing: Any) -> None:
    waits: list[float] = []

    async def work(provider: OpenAIProvider, server: Server) -> None:
        assert (await answer(provider)).message.content == "Hello"
        assert len(server.requests) == 3

    play(work, failing, failing, HELLO, waits=waits)
    assert len(waits) == 2
    least = 2.0 if failing[0] == 429 else 0.0
    assert all(least <= wait <= least + 0.5 * 2**i for i, wait in enumerate(waits))


def test_it_gives_up_in_the_end_and_where_the_server_asks_for_too_much() -> None:
    waits: list[float] = []

    async def work(provider: OpenAIProvider, server: Server) -> None:
        with pytest.raises(UpstreamError, match="answered 500: broken") as caught:
            await answer(provider)
        assert (caught.value.status, len(server.requests)) == (500, 3)
        with pytest.raises(UpstreamError) as later:
            await answer(provider)
        assert (later.value.status, later.value.retry_after, len(server.requests)) == (429, 600.0, 4)

    broken = 500, {}, b"broken"
    play(work, broken, broken, broken, (429, {"retry-after": "600"}, b"no"), retries=2, waits=waits)
    assert len(waits) == 2


def test_once_text_was_handed_out_nothing_is_tried_again() -> None:
    async def work(provider: OpenAIProvider, server: Server) -> None:
        said = ""
        with pytest.raises(UpstreamError, match="broke off"):
            async for item in provider.stream(ASK):
                said += item.text  # type: ignore[union-attr]
        assert (said, len(server.requests)) == ("Hel", 1)
        with pytest.raises(UpstreamError, match="without saying that it is complete"):
            await answer(provider)

    play(work, (200, {}, [piece("Hel"), 0.05, None]), (200, {}, [piece("Hel"), END]))


@pytest.mark.parametrize(
    ("status", "body", "code", "param"),
    [
        (400, {"error": {"message": "long", "code": "too_long", "param": "messages"}}, "too_long", "messages"),
        (422, {"detail": "no"}, "invalid_value", None),
        (400, {"object": "error", "message": "bad", "code": 400}, "invalid_value", None),
    ],
)  # fmt: skip
def test_what_the_request_has_wrong_is_the_clients(status: int, body: Any, code: str, param: str | None) -> None:
    async def work(provider: OpenAIProvider, server: Server) -> None:
        with pytest.raises(ApiError) as caught:
            await answer(provider)
        assert (caught.value.status, caught.value.code, caught.value.param) == (400, code, param)
        assert len(server.requests) == 1

    play(work, (status, {}, json.dumps(body).encode()))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ([event("no json")], "no JSON object"),
        ([event([1])], "no JSON object"),
        ([piece("x", "content_filter"), END], "withheld"),
        ([piece("", "stop", tool_calls=[{"index": 0, "function": {"name": "f", "arguments": "{"}}]), END], "tool call"),
    ],
)  # fmt: skip
def test_nonsense_is_no_answer(data: list[bytes], words: str) -> None:
    async def work(provider: OpenAIProvider, server: Server) -> None:
        del server
        with pytest.raises(RemoteError, match=words):
            await answer(provider)

    play(work, (200, {}, data), retries=0)


def test_a_silent_server_is_not_waited_for_longer_than_said() -> None:
    async def work(provider: OpenAIProvider, server: Server) -> None:
        del server
        with pytest.raises(UpstreamError, match=r"silent for 0\.1 s"):
            await answer(provider)
        assert not (await provider.health()).ok

    play(work, (200, {}, [1.0]), retries=0, timeout=0.1)


def test_a_server_that_is_not_there_is_named_without_its_password() -> None:
    async def go() -> None:
        provider = OpenAIProvider("far", OpenAIConfig("http://me:secret@127.0.0.1:9/v1", retries=0))
        health = await provider.health()
        assert not health.ok
        assert "127.0.0.1:9" in health.message
        assert "secret" not in health.message
        with pytest.raises(RemoteError):
            await provider.models()
        await provider.stop()

    asyncio.run(go())


def test_a_closed_stream_closes_the_connection() -> None:
    async def work(provider: OpenAIProvider, server: Server) -> None:
        async with aclosing(provider.stream(ASK)) as events:
            assert await anext(events) == TextDelta("a")
        await asyncio.wait_for(server.gone.wait(), 1)

    play(work, (200, {}, [part for _ in range(400) for part in (piece("a"), 0.005)]))


@pytest.mark.parametrize("after", [None, 30.0])
def test_what_comes_after_the_end_of_an_answer_neither_harms_nor_delays_it(after: float | None) -> None:
    async def work(provider: OpenAIProvider, server: Server) -> None:
        *_, last = await heard(provider)
        assert last.completion.message.content == "Hello"
        assert len(server.requests) == 1

    play(work, (200, {}, [*HELLO[2], after]))


def test_one_connection_serves_one_request_after_another() -> None:
    connections = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                await reader.readexactly(int(head.split("content-length: ")[1].split()[0]))
                writer.write(b"HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n")
                for part in HELLO[2]:
                    writer.write(b"%x\r\n%s\r\n" % (len(part), part))
                writer.write(b"0\r\n\r\n")
        except asyncio.IncompleteReadError:
            left.set()
        finally:
            writer.close()

    async def go() -> None:
        async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            provider = OpenAIProvider("far", OpenAIConfig(f"http://127.0.0.1:{port}/v1"))
            for _ in range(3):
                *_, last = await heard(provider)
                assert last.completion.message.content == "Hello"
            await provider.stop()
            await left.wait()

    left = asyncio.Event()
    asyncio.run(go())
    assert connections == 1


# Models, vectors, rankings --------------------------------------------------------------------------------------------

MODELS = 200, {}, json.dumps({"data": [
    {"id": "m", "max_model_len": 512},
    {"id": "nomic-embed", "context_length": 2048},
    {"id": "r", "meta": {"n_ctx_train": 64}, "pricing": {"prompt": "0.000001", "completion": "0.000002"}},
    {"id": "bge-reranker"}, {"name": "?"}, "x",
    {"id": "e", "custom_metadata": {"model_type": "embedding", "context_length": 9}, "meta": []},
]}).encode()  # fmt: skip


def test_models_are_listed_and_the_list_is_kept() -> None:
    async def work(provider: OpenAIProvider, server: Server) -> None:
        found = {info.id: info for info in await provider.models()}
        assert [(info.type, info.context_length) for info in found.values()] == [
            ("llm", 512), ("embedding", 2048), ("llm", 64), ("rerank", 0), ("embedding", 9)]  # fmt: skip
        assert found["r"].price == Price(1.0, 2.0)
        assert {"tools", "json_schema", "regex"} <= found["m"].features
        await provider.models()
        assert len(server.requests) == 1
        assert (await provider.health()).ok
        provider._ask_at = 0.0
        assert len(await provider.models()) == 5  # an old list does where none is to be had

    play(work, MODELS, MODELS, (500, {}, b"no"), retries=0)


def test_names_that_are_given_are_all_that_is_offered() -> None:
    async def go() -> None:
        async with Server(MODELS) as server:
            config = OpenAIConfig(server.url, models=("m",), embedding_models=("r",))
            provider = OpenAIProvider("far", config)
            assert [(info.id, info.type) for info in await provider.models()] == [("m", "llm"), ("r", "embedding")]
            await provider.stop()

    asyncio.run(go())
    given = [ModelInfo("own")]

    async def own(provider: OpenAIProvider, server: Server) -> None:
        assert await provider.models() == given
        assert server.requests == []

    play(own, MODELS, models=given)


def test_a_server_that_is_slow_to_list_holds_nobody_up() -> None:
    async def work(provider: OpenAIProvider, server: Server) -> None:
        started = time.monotonic()
        with pytest.raises(UpstreamError, match="not listed its models yet"):
            await provider.models()
        assert time.monotonic() - started < 4.0
        asked = [await provider.models() for _ in range(2)]  # the first request is still waited for, and comes
        assert len(asked[0]) == len(asked[1]) == 5
        assert len(server.requests) == 1

    play(work, (200, {}, [2.5, MODELS[2]]))


def test_names_that_are_given_need_no_list() -> None:
    async def work(provider: OpenAIProvider, server: Server) -> None:
        for _ in range(3):
            assert [(info.id, info.type) for info in await provider.models()] == [("m", "llm"), ("e", "embedding")]
        assert len(server.requests) == 1  # asked again later, and not each time

    async def go() -> None:
        async with Server((404, {}, b"no")) as server:
            provider = OpenAIProvider("far", OpenAIConfig(server.url, models=("m",), embedding_models=("e",)))
            await work(provider, server)
            await provider.stop()

    asyncio.run(go())


def test_stopping_ends_what_is_asked() -> None:
    async def work(provider: OpenAIProvider, server: Server) -> None:
        asking = asyncio.ensure_future(provider.models())
        await asyncio.sleep(0.05)
        await provider.stop()
        assert await asking == []
        await asyncio.wait_for(server.gone.wait(), 1)

    play(work, (200, {}, [part for _ in range(400) for part in (b" ", 0.005)]))


def test_vectors_and_rankings() -> None:
    vectors = {"data": [{"index": 1, "embedding": [0, 1]}, {"index": 0, "embedding": [1, 0]}]}
    ranking = {"results": [{"index": 1, "relevance_score": 0.9}, {"index": 0, "relevance_score": 0.1}]}

    async def work(provider: OpenAIProvider, server: Server) -> None:
        assert await provider.embed("e", ["a", "b"]) == [[1.0, 0.0], [0.0, 1.0]]
        assert await provider.rerank("r", "q", ["a", "b"]) == [0.1, 0.9]
        assert server.requests[1] == {"path": "/v1/rerank", "key": f"Bearer {KEY}",
                                      "body": {"model": "r", "query": "q", "documents": ["a", "b"]}}  # fmt: skip
        for _ in range(2):
            with pytest.raises(UpstreamError):
                await provider.embed("e", ["a", "b"])
        with pytest.raises(UpstreamError, match="no ranking"):
            await provider.rerank("r", "q", ["a"])
        assert await provider.count_tokens("m", ASK.messages) is None

    bodies = [vectors, ranking, {"data": [{}]}, {"data": vectors["data"][:1]}, {}]
    play(work, *((200, {}, json.dumps(body).encode()) for body in bodies))


# Settings -------------------------------------------------------------------------------------------------------------


def test_a_provider_is_made_of_its_settings() -> None:
    provider = from_settings("far", {"url": "http://127.0.0.1:1/v1", "profile": "ollama", "price": {"input": 2}})
    assert (provider.id, provider.profile.name, provider.config.price.input) == ("far", "ollama", 2.0)
    asyncio.run(provider.stop())
    for wrong in ({"url": "nowhere"}, {"url": "ftp://a/v1"}, {"url": "http://a/v1", "profile": "vlm"},
                  {"url": "http://a/v1", "key": "a b"}, {"url": "http://a/v1", "retries": -1},
                  {"url": "http://a/v1", "timeout": 0}, {"url": "http://a/v1", "max_wait": -1},
                  {"url": "http://a/v1", "ulr": 1}, {}):  # fmt: skip
        with pytest.raises(ConfigError):
            from_settings("far", wrong)


def test_a_proxy_of_the_environment_is_not_asked_about_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")

    async def work(provider: OpenAIProvider, server: Server) -> None:
        del server
        assert (await answer(provider)).message.content == "Hello"

    play(work, HELLO)


def test_puna_behind_puna_answers_as_the_model_itself(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    here = LocalModel(tiny_model(2), tokenizer)
    schema = {"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"], "additionalProperties": False}
    tool = ToolSpec("look", "", schema)
    greedy = SamplingParams(temperature=0, max_tokens=8, logprobs=2)
    sampled = replace(greedy, temperature=0.9, seed=4, n=2)
    cases = [
        (greedy, []),
        (sampled, []),
        (replace(greedy, max_tokens=200, tool_choice="look"), [tool]),
        (replace(greedy, constraint=Constraint("choice", ["yes", "no"])), []),
        (replace(greedy, constraint=Constraint("json_schema", schema), max_tokens=60), []),
    ]

    def told(completion: Completion) -> Any:
        calls = [(call.name, call.arguments) for call in completion.message.tool_calls]
        items = completion.logprobs
        if completion.ids and completion.ids[-1] in tokenizer.stop_ids:
            items = items[:-1]
        names = [getattr(item, "token", None) or tokenizer.token_bytes(item.id) for item in items]
        values = [(round(item.logprob, 4), len(item.top)) for item in items]
        return completion.message.content, calls, names, values, [told(other) for other in completion.others]

    async def go(url: str) -> None:
        far = OpenAIProvider("far", OpenAIConfig(url, profile="puna"))
        found = {info.id: info for info in await far.models()}
        assert {id: info.type for id, info in found.items()} == {
            "local/tiny": "llm",
            "local/tiny-embedding": "embedding",
        }
        for params, tools in cases:
            there = await answer(far, Ask("local/tiny", ASK.messages, params, tools))
            assert told(there) == told(here.chat(ASK.messages, params, tools))
        there = await answer(far, Ask("local/tiny", params=sampled, prompt="once"))
        raw = here.generate("once", sampled)
        assert [there.message.content, there.others[0].message.content] == [
            raw.message.content,
            raw.others[0].message.content,
        ]
        assert there.usage.prompt_tokens == raw.usage.prompt_tokens
        assert await far.embed("local/tiny-embedding", ["a", "b"]) == [pytest.approx(v) for v in here.embed(["a", "b"])]
        scores = await far.rerank("local/tiny-embedding", "a", ["b", "a"])
        assert scores[1] == pytest.approx(1.0)
        with pytest.raises(ApiError) as caught:
            await answer(far, Ask("local/tiny", [Message("user", "x" * 3000)], greedy))
        assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "messages")
        later = OpenAIProvider("later", far.config)
        assert [info.context_length for info in await later.models()] == [2048, 2048]
        await later.stop()
        await far.stop()

    engine = EngineProvider("local", {"tiny": lambda: LocalModel(tiny_model(2), tokenizer)})
    with live(make_stack(tmp_path, engine), "/v1") as url:
        asyncio.run(go(url))
