"""Traces of a whole server: which spans a request leaves, how they hang together, and what they never hold."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from puna.base.errors import RemoteError
from puna.core.chat import Message
from puna.core.completion import Completion, StreamEvent, Usage
from puna.stack import spans
from puna.stack.config import ServerConfig, StackConfig
from puna.stack.operation import server
from puna.stack.operation.otel import OtelTracer
from puna.stack.providers.provider import Ask, Provider
from puna.stack.testing import RunningServer, ScriptedProvider, listening

TRACEPARENT = f"00-{'a' * 32}-{'b' * 16}-01"
ANSWER = Completion(Message("assistant", "a hidden answer"), Usage(10, 3, cached_tokens=4), cost=0.5)
CHAT = {"model": "p/tiny", "messages": [{"role": "user", "content": "my secret question"}]}


class Traced:
    """A server whose spans are kept in memory."""

    def __init__(self, folder: Path, *providers: Provider, config: StackConfig | None = None) -> None:
        self.exporter, tracing = InMemorySpanExporter(), TracerProvider()
        tracing.add_span_processor(SimpleSpanProcessor(self.exporter))
        named = {provider.id: provider for provider in providers}
        self.stack, self.app = server.build(config or StackConfig(), folder, named, OtelTracer(tracing))

    def talk(self, work: Callable[[httpx.AsyncClient], Awaitable[Any]]) -> Any:
        async def go() -> Any:
            running = self.app.router.lifespan_context(self.app)
            async with running, RunningServer(self.app, self.stack).client() as client:
                return await work(client)

        return asyncio.run(go())

    def ask(self, body: Mapping[str, Any], **headers: str) -> httpx.Response:
        return self.talk(lambda client: client.post("/v1/chat/completions", json=body, headers=headers))

    @property
    def spans(self) -> list[ReadableSpan]:
        """In the order in which they began."""
        return sorted(self.exporter.get_finished_spans(), key=lambda span: span.start_time or 0)

    def tree(self) -> list[str]:
        """Names, indented below what they hang on."""
        names = {span.context.span_id: span for span in self.spans}

        def depth(span: ReadableSpan) -> int:
            above = span.parent and names.get(span.parent.span_id)
            return depth(above) + 1 if above else 0

        return [f"{'  ' * depth(span)}{span.name}" for span in self.spans]

    def written(self) -> str:
        return "".join(span.to_json() for span in self.spans)


def test_a_request_is_a_span_and_its_answer_another_below_it(tmp_path: Path) -> None:
    traced = Traced(tmp_path, ScriptedProvider("p", answers=[ANSWER]))
    body = {**CHAT, "max_tokens": 7, "temperature": 0.5, "seed": 3, "stop": ["private stop"]}
    answer = traced.ask(body, traceparent=TRACEPARENT)
    assert answer.status_code == 200
    assert traced.tree() == ["POST /v1/chat/completions", "  chat tiny"]
    request, generation = traced.spans
    assert request.parent is not None
    assert (f"{request.context.trace_id:032x}", f"{request.parent.span_id:016x}") == ("a" * 32, "b" * 16)
    assert dict(request.attributes or {}) == {
        "http.request.method": "POST", "url.scheme": "http", "http.route": "/v1/chat/completions",
        "http.response.status_code": 200, "puna.request.id": answer.headers["x-request-id"],
    }  # fmt: skip
    attributes = dict(generation.attributes or {})
    assert attributes.pop("gen_ai.response.time_to_first_chunk") > 0
    assert attributes == {
        "gen_ai.operation.name": "chat", "gen_ai.provider.name": "puna", "puna.provider.id": "p",
        "gen_ai.request.model": "tiny", "gen_ai.request.max_tokens": 7, "gen_ai.request.temperature": 0.5,
        "gen_ai.request.top_p": attributes["gen_ai.request.top_p"], "gen_ai.request.seed": 3,
        "gen_ai.usage.input_tokens": 10, "gen_ai.usage.output_tokens": 3, "gen_ai.usage.cache_read.input_tokens": 4,
        "gen_ai.response.finish_reasons": ("stop",), "puna.cost.dollars": 0.5,
    }  # fmt: skip
    assert not any(word in traced.written() for word in ("secret", "hidden", "private"))


def test_a_stream_ends_its_spans_when_it_ends(tmp_path: Path) -> None:
    traced = Traced(tmp_path, ScriptedProvider("p", answers=[ANSWER], pause=0.001))
    answer = traced.ask({**CHAT, "stream": True})
    assert answer.text.endswith("data: [DONE]\n\n")
    request, generation = traced.spans
    assert (generation.end_time or 0) <= (request.end_time or 0)
    assert (generation.attributes or {})["gen_ai.usage.output_tokens"] == 3
    assert "puna.cancelled" not in (generation.attributes or {})


def test_a_failure_is_named_and_its_message_is_not_kept(tmp_path: Path) -> None:
    traced = Traced(tmp_path, ScriptedProvider("p", answers=[RemoteError("my secret question is forbidden")]))
    assert traced.ask(CHAT).status_code == 502
    request, generation = traced.spans
    assert ((request.attributes or {})["error.type"], request.status.is_ok) == ("502", False)
    assert ((generation.attributes or {})["error.type"], generation.status.is_ok) == ("RemoteError", False)
    assert "secret" not in traced.written()


def test_refusals_are_traced_and_health_checks_are_not(tmp_path: Path) -> None:
    traced = Traced(tmp_path, ScriptedProvider("p"), config=StackConfig(server=ServerConfig(require_keys=True)))

    async def work(client: httpx.AsyncClient) -> None:
        assert (await client.get("/v1/health")).status_code == 200
        assert (await client.get("/metrics", headers={"authorization": "Bearer nobody"})).status_code == 401
        assert (await client.get("/v1/responses/resp_private", headers={"authorization": "x"})).status_code == 401
        assert (await client.request("FROB", "/v1/models")).status_code == 401

    traced.talk(work)
    assert traced.tree() == ["GET (none)", "_OTHER (none)"]
    assert "private" not in traced.written()
    assert [(span.attributes or {})["http.response.status_code"] for span in traced.spans] == [401, 401]
    assert all(span.status.is_unset for span in traced.spans)  # a refused caller is no failure of the server


def test_the_log_names_the_trace(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    traced = Traced(tmp_path, ScriptedProvider("p"))
    with caplog.at_level(logging.INFO, "puna.access"):
        traced.ask(CHAT, traceparent=TRACEPARENT)
    assert json.loads(caplog.records[-1].getMessage())["trace"] == "a" * 32


def test_each_attempt_of_a_route_is_a_span_that_says_how_it_ended(tmp_path: Path) -> None:
    wrong = ScriptedProvider("wrong", answers=[RemoteError("away")] * 9)
    right = ScriptedProvider("right", answers=[ANSWER] * 9)
    config = StackConfig(routes={"first": {"strategy": "cheapest", "retries": 0}})
    traced = Traced(tmp_path, wrong, right, config=config)
    assert traced.ask({**CHAT, "model": "auto/first"}).status_code == 200
    assert traced.tree()[:2] == ["POST /v1/chat/completions", "  route first"]
    attempts = {span.name: dict(span.attributes or {}) for span in traced.spans if span.name.startswith("attempt")}
    assert attempts["attempt right/tiny"]["puna.routing.outcome"] == "answered"
    if "attempt wrong/tiny" in attempts:  # who is asked first of two that cost the same is drawn
        assert attempts["attempt wrong/tiny"]["error.type"] == "failed"
    chats = [line for line in traced.tree() if line.endswith("chat tiny")]
    assert chats == ["      chat tiny"] * len(attempts)


def test_looking_up_is_a_span_without_the_question(tmp_path: Path) -> None:
    traced = Traced(tmp_path, ScriptedProvider("p"))

    async def work(client: httpx.AsyncClient) -> None:
        store = (await client.post("/v1/vector_stores", json={"name": "private"})).json()["id"]
        found = await client.post(f"/v1/vector_stores/{store}/search", json={"query": "my secret question"})
        assert found.status_code == 200, found.text
        gone = await client.post("/v1/vector_stores/vs_my_secret/search", json={"query": "x"})
        assert gone.status_code == 404

    traced.talk(work)
    found, gone = (dict(span.attributes or {}) for span in traced.spans if span.name == "retrieval vector stores")
    assert found["gen_ai.operation.name"] == "retrieval"
    assert (found["puna.retrieval.passages"], found["gen_ai.request.top_k"]) == (0, 10)
    assert str(found["gen_ai.data_source.id"]).startswith("vs_")
    assert gone["error.type"] == "ApiError"
    assert "secret" not in traced.written()


def test_vectors_are_spans_too(tmp_path: Path) -> None:
    traced = Traced(tmp_path, ScriptedProvider("p"))
    body = {"model": "p/letters", "input": ["my secret", "b"]}
    assert traced.talk(lambda client: client.post("/v1/embeddings", json=body)).status_code == 200
    assert traced.tree() == ["POST /v1/embeddings", "  embeddings letters"]
    assert (traced.spans[1].attributes or {})["puna.texts"] == 2
    assert "secret" not in traced.written()


# Other servers --------------------------------------------------------------------------------------------------------


def remote(url: str) -> StackConfig:
    return StackConfig(providers={"far": {"type": "remote::openai", "url": f"{url}/v1", "profile": "puna"}})


def test_a_trace_goes_on_in_the_server_that_is_asked(tmp_path: Path) -> None:
    far = Traced(tmp_path / "far", ScriptedProvider("p", answers=[ANSWER]))
    with listening(far.app) as url:
        near = Traced(tmp_path / "near", config=remote(url))
        assert near.ask({**CHAT, "model": "far/p/tiny"}, traceparent=TRACEPARENT).status_code == 200
    generation = next(span for span in near.spans if span.name == "chat p/tiny")
    assert generation.kind is SpanKind.CLIENT
    attributes = generation.attributes or {}
    assert (attributes["server.address"], attributes["server.port"]) == ("127.0.0.1", int(url.rpartition(":")[2]))
    there = next(span for span in far.spans if span.name == "POST /v1/chat/completions")
    assert there.context.trace_id == generation.context.trace_id == int("a" * 32, 16)
    assert there.parent is not None
    assert there.parent.span_id == generation.context.span_id


class Headers:
    """What an application was sent."""

    def __init__(self) -> None:
        self.seen: list[Mapping[str, str]] = []
        self.app = FastAPI()
        self.app.middleware("http")(self._keep)

    async def _keep(self, request: Any, call_next: Any) -> Any:
        self.seen.append(dict(request.headers))
        return await call_next(request)


def test_without_tracing_nothing_is_passed_on_and_no_span_is_there(tmp_path: Path) -> None:
    seen: list[spans.Span | None] = []

    class Looking(ScriptedProvider):
        async def stream(self, ask: Ask) -> AsyncIterator[StreamEvent]:
            seen.append(spans.current())
            async for event in super().stream(ask):
                yield event

    headers = Headers()
    with listening(headers.app) as url:
        stack, app = server.build(remote(url), tmp_path, {"p": Looking("p")})

        async def work() -> None:
            async with app.router.lifespan_context(app), RunningServer(app, stack).client() as client:
                for model in ("p/tiny", "far/x"):
                    sent = {"traceparent": TRACEPARENT}
                    await client.post("/v1/chat/completions", json={**CHAT, "model": model}, headers=sent)

        asyncio.run(work())
    assert seen == [None]
    assert headers.seen
    assert not any("traceparent" in each for each in headers.seen)
