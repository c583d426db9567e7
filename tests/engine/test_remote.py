"""A model behind a URL, against a real HTTP server on this machine."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from puna.base.errors import ConfigError, PunaError, RemoteError
from puna.core.chat import Message, ToolCall, ToolSpec
from puna.core.completion import Completion, Done, SamplingParams, TextDelta, ToolCallDelta
from puna.core.protocols import ChatModel
from puna.core.verdict import Price
from puna.engine.remote import RemoteConfig, RemoteModel

KEY = "sk-secret-0123456789abcdef"
ASK = [Message("user", "hi")]


class Server:
    """Plays back what it is told to, one entry a request; the last is played for ever.

    An entry is (status, headers, body), or a function of the request that returns one. A body of a list of bytes is
    sent piece by piece, and the connection is cut after it without an end.
    """

    def __init__(self) -> None:
        self.script: list[Any] = []
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                with server.lock:
                    server.requests.append(body | {"path": self.path})
                    server.headers.append(dict(self.headers))
                    entry = server.script.pop(0) if len(server.script) > 1 else server.script[0]
                status, headers, data = entry(body) if callable(entry) else entry
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                if isinstance(data, list):
                    self.send_header("content-type", "text/event-stream")
                    self.send_header("content-length", str(sum(map(len, data)) + headers.get("missing", 0)))
                    self.end_headers()
                    for piece in data:
                        self.wfile.write(piece)
                        self.wfile.flush()
                    self.close_connection = True
                    return
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                with suppress(ConnectionError):  # the client may have given up
                    self.wfile.write(data)

            def log_message(self, format: str, *args: object) -> None: ...

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"

    def play(self, *script: Any) -> None:
        self.script = list(script)


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.http.shutdown()
    thread.join()
    server.http.server_close()


@pytest.fixture
def waits() -> list[float]:
    return []


@pytest.fixture
def model(server: Server, waits: list[float]) -> Iterator[Callable[..., RemoteModel]]:
    opened = []

    def make(**settings: Any) -> RemoteModel:
        config = RemoteConfig(**{"url": server.url, "model": "m", **settings})
        opened.append(RemoteModel(config, KEY, sleep=waits.append))
        return opened[-1]

    yield make
    for remote in opened:
        remote.close()


def answer(content: str | None = "hello", finish: str = "stop", **message: Any) -> tuple[int, dict[str, str], bytes]:
    choice = {"message": {"role": "assistant", "content": content, **message}, "finish_reason": finish}
    usage = {"prompt_tokens": 1_000_000, "completion_tokens": 500_000}
    return 200, {}, json.dumps({"choices": [choice], "usage": usage}).encode()


def event(data: Any) -> bytes:
    return b"data: " + (data if isinstance(data, str) else json.dumps(data)).encode() + b"\n\n"


def piece(text: str = "", finish: str | None = None, **delta: Any) -> bytes:
    return event({"choices": [{"delta": {"content": text, **delta}, "finish_reason": finish}]})


def refused(status: int, headers: dict[str, str] | None = None, said: str = "no") -> tuple[int, dict[str, str], bytes]:
    return status, headers or {}, said.encode()


def test_it_is_a_chat_model(model):
    assert isinstance(model(), ChatModel)


def test_a_conversation_is_sent_in_openais_form_and_answered(server, model):
    server.play(answer())
    messages = [
        Message("system", "s"),
        Message("assistant", "", (ToolCall("f", {"a": 1}, "id1"),), end_of_turn=False),
        Message("tool", "1", tool_call_id="id1", name="f"),
    ]
    params = SamplingParams(temperature=0, max_tokens=7, stop=("X",), seed=3, top_k=5)
    completion = model(price=Price(input=2.0, output=4.0)).chat(messages, params, [ToolSpec("f", "does")])
    assert completion.message == Message("assistant", "hello")
    assert completion.stop_reason == "end_of_turn"
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (1_000_000, 500_000)
    assert completion.cost == pytest.approx(2.0 + 2.0)
    (sent,) = server.requests
    assert sent["path"] == "/v1/chat/completions"
    assert {k: sent[k] for k in ("model", "temperature", "max_tokens", "stop", "seed", "top_k")} == {
        "model": "m", "temperature": 0, "max_tokens": 7, "stop": ["X"], "seed": 3, "top_k": 5,
    }  # fmt: skip
    assert "min_p" not in sent and "repetition_penalty" not in sent and "stream" not in sent
    assert sent["tools"][0]["function"]["name"] == "f"
    assert sent["messages"][1] == {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"id": "id1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}],
    }
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"


def test_tool_calls_and_length_are_told(server, model):
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"x": 2}'}}
    server.play(answer(None, "tool_calls", tool_calls=[call]), answer("cut", "length"))
    remote = model()
    completion = remote.chat(ASK)
    assert completion.message.tool_calls == (ToolCall("f", {"x": 2}, "1"),)
    assert (completion.stop_reason, completion.message.end_of_turn) == ("end_of_message", False)
    assert remote.chat(ASK).stop_reason == "length"


def collect(events: Iterator[Any]) -> tuple[str, list[ToolCall], Completion]:
    texts, calls, done = [], [], None
    for item in events:
        assert done is None
        if isinstance(item, TextDelta):
            texts.append(item.text)
        elif isinstance(item, ToolCallDelta):
            calls.append(item.call)
        elif isinstance(item, Done):
            done = item.completion
    assert done is not None
    return "|".join(texts), calls, done


def test_a_stream_comes_piece_by_piece_and_ends_with_the_whole(server, model):
    usage = event({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}})
    # A comment, a carriage return and a character cut in two: all of them occur on real wires.
    accent = piece("é").replace(b"\\u00e9", "é".encode())
    half = accent.index("é".encode()) + 1
    server.play((200, {}, [b": ping\n\n", piece("Hel"), accent[:half], accent[half:].replace(b"\n", b"\r\n"),
                           piece("", "length"), usage, event("[DONE]")]))  # fmt: skip
    text, calls, done = collect(model().stream(ASK))
    assert (text, calls) == ("Hel|é", [])
    assert (done.message.content, done.stop_reason, done.usage.completion_tokens) == ("Helé", "length", 2)
    assert server.requests[0]["stream"] is True


def test_an_end_of_line_that_only_unicode_knows_stays_in_its_text(server, model):
    raw = piece("a\u2028b", "stop").replace(b"\\u2028", "\u2028".encode())
    assert "\u2028".encode() in raw
    server.play((200, {}, [raw, event("[DONE]")]))
    assert collect(model().stream(ASK))[2].message.content == "a\u2028b"


def test_tool_calls_are_put_together_from_their_pieces(server, model):
    def part(index: int, **function: str) -> bytes:
        call = {"index": index, "function": function, **({"id": f"c{index}"} if "name" in function else {})}
        return piece(tool_calls=[call])

    calls = [part(0, name="f", arguments=""), part(1, name="g", arguments='{"b"')]
    calls += [part(0, arguments="{}"), part(1, arguments=": 1}")]
    server.play((200, {}, [*calls, piece("", "tool_calls"), event("[DONE]")]))
    _, calls, done = collect(model().stream(ASK))
    assert calls == [ToolCall("f", {}, "c0"), ToolCall("g", {"b": 1}, "c1")]
    assert done.message.tool_calls == tuple(calls)


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504, 529, 408])
def test_failures_that_pass_are_tried_again(server, model, waits, status: int):
    server.play(refused(status), refused(status), answer())
    assert model().chat(ASK).message.content == "hello"
    assert len(server.requests) == 3
    assert 0 <= waits[0] <= 0.5 and 0 <= waits[1] <= 1.0


def test_a_stream_is_tried_again_before_its_first_word(server, model):
    server.play(refused(503), (200, {}, [piece("a", "stop"), event("[DONE]")]))
    assert collect(model().stream(ASK))[0] == "a"


def test_the_server_says_how_long_to_wait(server, model, waits):
    server.play(
        refused(429, {"Retry-After": "7"}), refused(503, {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}), answer()
    )
    model().chat(ASK)
    assert 7 <= waits[0] <= 7.5
    assert 0 <= waits[1] <= 1.0


def test_a_server_that_asks_for_too_long_a_wait_is_given_up(server, model, waits):
    server.play(refused(429, {"Retry-After": "600"}))
    with pytest.raises(RemoteError, match="answered 429"):
        model().chat(ASK)
    assert (len(server.requests), waits) == (1, [])


def test_attempts_come_to_an_end_and_waits_have_a_bound(server, model, waits):
    server.play(refused(500))
    with pytest.raises(RemoteError, match="answered 500"):
        model(retries=9, max_wait=2.0).chat(ASK)
    assert len(server.requests) == 10
    assert len(waits) == 9 and max(waits) <= 2.0


@pytest.mark.parametrize(
    ("status", "hint"), [(400, "does not take"), (401, "OPENAI_API_KEY"), (404, "Check the url"), (301, "/v1")]
)
def test_refusals_are_final_and_say_the_way_out(server, model, status: int, hint: str):
    server.play(refused(status, said="a reason"))
    with pytest.raises(RemoteError, match=f"answered {status}: a reason") as raised:
        model().chat(ASK)
    assert hint in raised.value.hint
    assert len(server.requests) == 1


def test_no_key_stands_in_an_error(server, model, monkeypatch: pytest.MonkeyPatch):
    echo = f'{{"error": {{"message": "Incorrect API key provided: {KEY} or sk-other-123456789 (Bearer {KEY})"}}}}'
    errors: list[PunaError] = []
    for entry in (refused(401, said=echo), (200, {}, echo.encode()), (200, {}, f"<html>{KEY}</html>".encode())):
        server.play(entry)
        with pytest.raises(RemoteError) as raised:
            model().chat(ASK)
        errors.append(raised.value)
    server.play((200, {}, [event(echo)]))
    with pytest.raises(RemoteError) as raised:
        list(model().stream(ASK))
    errors.append(raised.value)
    monkeypatch.setenv("MY_KEY", f"{KEY} {KEY}")
    with pytest.raises(ConfigError) as wrong:
        RemoteModel(RemoteConfig(server.url, "m", api_key_env="MY_KEY"))
    errors.append(wrong.value)
    address = server.url.replace("http://", f"http://user:{KEY}@")
    with pytest.raises(RemoteError) as raised, RemoteModel(RemoteConfig(address, "m", retries=0)) as remote:
        server.play(refused(500))
        assert KEY not in remote.name
        remote.chat(ASK)
    errors.append(raised.value)
    assert len(errors) == 6
    for error in errors:
        assert "secret" not in f"{error} {error!r} {error.__cause__!r}"
        assert "sk-other" not in str(error)


def test_the_key_comes_from_the_named_variable_and_none_is_sent_without(server, monkeypatch: pytest.MonkeyPatch):
    server.play(answer())
    monkeypatch.setenv("MY_KEY", "abc\n")
    with RemoteModel(RemoteConfig(server.url, "m", api_key_env="MY_KEY")) as remote:
        remote.chat(ASK)
    monkeypatch.delenv("MY_KEY")
    with RemoteModel(RemoteConfig(server.url, "m", api_key_env="MY_KEY")) as remote:
        remote.chat(ASK)
    assert server.headers[0]["Authorization"] == "Bearer abc"
    assert "Authorization" not in server.headers[1]


@pytest.mark.parametrize(
    "body",
    [b"not json", b"[]", b"{}", b'{"choices": []}', b'{"choices": [3]}', b'{"error": {"message": "overloaded"}}',
     answer("x", "content_filter")[2], answer(None, "tool_calls", tool_calls=[{"function": {"arguments": "{"}}])[2]],
)  # fmt: skip
def test_nonsense_is_a_remote_error(server, model, body: bytes):
    server.play((200, {}, body))
    with pytest.raises(RemoteError, match=r"127\.0\.0\.1"):
        model().chat(ASK)


@pytest.mark.parametrize(
    ("headers", "pieces", "reason"),
    [
        ({"missing": 100}, [piece("a")], "broke off"),
        ({}, [piece("a")], "without saying that it is complete"),
        ({}, [piece("a"), event({"error": {"message": "overloaded"}})], "overloaded"),
        ({}, [piece("a"), event("{")], "no JSON object"),
    ],
)
def test_a_stream_that_breaks_is_not_taken_for_an_answer(server, model, headers, pieces, reason: str):
    server.play((200, headers, pieces))
    stream = model().stream(ASK)
    assert next(stream) == TextDelta("a")
    with pytest.raises(RemoteError, match=reason):
        list(stream)
    assert len(server.requests) == 1


def test_a_stream_without_a_done_mark_but_with_a_reason_is_complete(server, model):
    server.play((200, {}, [piece("a", "stop")]))
    assert collect(model().stream(ASK))[2].message.content == "a"


def test_a_server_that_is_not_there(waits):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = RemoteConfig(f"http://127.0.0.1:{port}/v1", "m", retries=2)
    with pytest.raises(RemoteError, match="cannot be reached"), RemoteModel(config, sleep=waits.append) as remote:
        remote.chat(ASK)
    assert len(waits) == 2


def test_a_silent_server_is_given_up(server, model):
    release = threading.Event()

    def silent(body: Any) -> Any:
        release.wait(5)
        return answer()

    server.play(silent)
    try:
        with pytest.raises(RemoteError, match=r"was silent for 0\.05 s"):
            model(timeout=0.05, retries=0).chat(ASK)
    finally:
        release.set()


def test_a_batch_comes_back_in_order(server, model):
    server.play(lambda body: answer(body["messages"][0]["content"].upper()))
    completions = model(concurrency=4).chat_batch([[Message("user", f"q{i}")] for i in range(20)])
    assert [c.message.content for c in completions] == [f"Q{i}" for i in range(20)]


def test_a_batch_fails_as_a_whole(server, model):
    server.play(answer(), refused(400))
    with pytest.raises(RemoteError, match="400"):
        model(concurrency=1).chat_batch([ASK] * 50)
    assert len(server.requests) < 50


def test_logprobs_are_refused(model):
    with pytest.raises(ConfigError, match="Log-probabilities"):
        model().chat(ASK, SamplingParams(logprobs=1))


def test_names_tell_models_apart(server, model):
    assert model().name == f"{server.url}#m"


@pytest.mark.parametrize(
    ("field", "value"),
    [("url", "localhost:8000"), ("url", "ftp://a/b"), ("url", "http://"), ("model", ""), ("timeout", 0),
     ("retries", -1), ("concurrency", 0), ("max_wait", -1)],
)  # fmt: skip
def test_a_config_out_of_range_is_refused(field: str, value: object):
    with pytest.raises(ConfigError, match=field):
        RemoteConfig(**{"url": "http://a/v1", "model": "m", field: value})
