"""A model behind an OpenAI-compatible URL, as a `ChatModel`: vLLM, SGLang, llama.cpp, Ollama, or a paid service.

Requests that fail in passing (429, 5xx, a broken or silent connection) are sent again after a random wait that grows,
or after the time that the server asks for. A stream is not begun again once text has been handed out. The key is read
from the environment, travels in one header, and is blotted out of whatever a server says.

Left out: log-probabilities (the wire gives token texts, and `TokenLogprob` wants ids), pictures, and every provider's
own extensions but for the sampling settings of vLLM, which are sent where they differ from doing nothing.
"""

from __future__ import annotations

import json
import os
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import httpx

from puna.base.config import require
from puna.base.errors import ConfigError, InputError, RemoteError
from puna.base.events import ServerEvents
from puna.base.web import is_loopback, retry_after
from puna.core.chat import Message, ToolCall, ToolSpec
from puna.core.completion import (
    Completion,
    Done,
    SamplingParams,
    StopReason,
    StreamEvent,
    TextDelta,
    ToolCallDelta,
    Usage,
)
from puna.core.verdict import Price

_PASSING = frozenset((408, 425, 429, 500, 502, 503, 504, 529))  # statuses that another attempt may not meet
_FIRST_WAIT = 0.5  # seconds; the longest first wait, doubled with every attempt
_EXCERPT = 300  # characters of a server's words that an error repeats
_KEY_LIKE = re.compile(r"\b(?:sk|pk|key|token)-[\w-]{8,}|\bBearer\s+\S+", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class RemoteConfig:
    """Where the model is and how patient to be.

    Attributes:
        url: up to and with the version: "https://api.openai.com/v1", "http://127.0.0.1:8000/v1".
        model: the name that the server knows it by.
        api_key_env: the environment variable that holds the key; one that is not set sends no key.
        timeout: seconds without a byte from the server.
        retries: further attempts after a failure that may pass.
        max_wait: the longest wait between two attempts, in seconds; a server that asks for more is given up.
        concurrency: requests under way at a time in `chat_batch`.
        price: of a million tokens, for `Completion.cost`.
    """

    url: str
    model: str
    api_key_env: str = "OPENAI_API_KEY"
    timeout: float = 120.0
    retries: int = 5
    max_wait: float = 60.0
    concurrency: int = 8
    price: Price = field(default_factory=Price)

    def __post_init__(self) -> None:
        url = _parsed(self.url)
        require(url is not None, f"url is {self.url!r}.", "Write it with its scheme: http://127.0.0.1:8000/v1.")
        require(bool(self.model), "model is empty.", "Give the name under which the server offers the model.")
        require(self.timeout > 0, f"timeout is {self.timeout}, and must be above 0 seconds.")
        require(self.retries >= 0, f"retries is {self.retries}, and must be at least 0.")
        require(self.max_wait >= 0, f"max_wait is {self.max_wait}, and must be at least 0 seconds.")
        require(self.concurrency >= 1, f"concurrency is {self.concurrency}, and must be at least 1.")


class RemoteModel:
    """Talks to one model; safe to use from several threads.

    Args:
        config: where and how.
        api_key: in place of the environment's.
        sleep: waits between attempts; a test's waits are short.
    """

    def __init__(self, config: RemoteConfig, api_key: str = "", sleep: Callable[[float], object] = time.sleep) -> None:
        self.config = config
        self._key = (api_key or os.environ.get(config.api_key_env, "")).strip()
        self._sleep = sleep
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        if not self._key.isascii() or any(char.isspace() for char in self._key):
            raise ConfigError(
                "The API key holds blanks or characters that no key has.",
                hint=f"Set {config.api_key_env} again, without quotes and line breaks.",
            )
        url = httpx.URL(config.url)
        self._endpoint = config.url.rstrip("/") + "/chat/completions"
        self._place = str(url.copy_with(username=None, password=None, query=None))
        self._client = httpx.Client(
            headers=headers,
            timeout=httpx.Timeout(config.timeout, connect=min(config.timeout, 10.0)),
            limits=httpx.Limits(max_connections=None),
            trust_env=not is_loopback(url.host),  # a proxy does not reach this machine
        )

    @property
    def name(self) -> str:
        """What answers, for caches and reports."""
        return f"{self._place.rstrip('/')}#{self.config.model}"

    def close(self) -> None:
        self._client.close()

    def __enter__(self) -> RemoteModel:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def chat(
        self, messages: Sequence[Message], params: SamplingParams | None = None, tools: Sequence[ToolSpec] = ()
    ) -> Completion:
        """Answers a conversation.

        Raises:
            RemoteError: the server cannot be reached, refuses, or answers what is no completion.
        """
        started = time.monotonic()
        data = self._json(self._send(self._body(messages, params, tools), whole=True).text)
        choice = self._choice(data)
        message = self._message(choice.get("message") or {}, choice.get("finish_reason"))
        usage = _usage(data.get("usage"), time.monotonic() - started)
        return self._completion(message, usage, choice.get("finish_reason"))

    def chat_batch(
        self, conversations: Sequence[Sequence[Message]], params: SamplingParams | None = None
    ) -> list[Completion]:
        """Answers many conversations, `concurrency` at a time, in their order."""
        with ThreadPoolExecutor(self.config.concurrency) as pool:
            futures = [pool.submit(self.chat, messages, params) for messages in conversations]
            try:
                return [future.result() for future in futures]
            finally:
                for future in futures:
                    future.cancel()

    def stream(
        self, messages: Sequence[Message], params: SamplingParams | None = None, tools: Sequence[ToolSpec] = ()
    ) -> Iterator[StreamEvent]:
        """Answers a conversation piece by piece; the last event is `Done` with the whole answer.

        Raises:
            RemoteError: as `chat`, and where the stream breaks off.
        """
        started = time.monotonic()
        body = self._body(messages, params, tools) | {"stream": True, "stream_options": {"include_usage": True}}
        answer = _Streamed()
        with closing(self._send(body, whole=False)) as response:
            try:
                for data in _data(response.iter_bytes()):
                    if data == "[DONE]":
                        answer.finish = answer.finish or "stop"
                        break
                    if text := answer.add(self._json(data)):
                        yield TextDelta(text)
            except httpx.TransportError as error:
                raise RemoteError(f"{self._place} broke off its answer: {type(error).__name__}.") from error
        if not answer.finish:
            raise RemoteError(f"{self._place} ended its answer without saying that it is complete.")
        message = self._message({"content": answer.text, "tool_calls": answer.calls}, answer.finish)
        for call in message.tool_calls:
            yield ToolCallDelta(call)
        yield Done(self._completion(message, _usage(answer.usage, time.monotonic() - started), answer.finish))

    # Sending ---------------------------------------------------------------------------------------------------------

    def _body(
        self, messages: Sequence[Message], params: SamplingParams | None, tools: Sequence[ToolSpec]
    ) -> dict[str, Any]:
        params = params or SamplingParams()
        if params.logprobs is not None:
            raise ConfigError(
                "Log-probabilities are not to be had from a remote model.", hint="Leave logprobs out, or load it here."
            )
        body: dict[str, Any] = {
            "model": self.config.model,
            "messages": [_wire(message) for message in messages],
            "temperature": params.temperature,
            "top_p": params.top_p,
            "max_tokens": params.max_tokens,
        }
        idle = SamplingParams()
        for name in ("top_k", "min_p", "repetition_penalty", "seed", "stop"):
            if (value := getattr(params, name)) != getattr(idle, name):
                body[name] = value
        if tools:
            body["tools"] = [tool.to_json() for tool in tools]
        return body

    def _send(self, body: Mapping[str, Any], whole: bool) -> httpx.Response:
        """The response of the first attempt that the server takes: read to its end if `whole`, else open."""
        for attempt in range(self.config.retries + 1):
            asked, passing, cause = 0.0, True, None
            try:
                request = self._client.build_request("POST", self._endpoint, json=body)
                response = self._client.send(request, stream=not whole)
                if response.status_code == 200:
                    return response
                failure = self._refusal(response)
                asked = retry_after(response.headers.get("retry-after", ""))
                passing = response.status_code in _PASSING and asked <= self.config.max_wait
            except httpx.TransportError as error:
                failure, cause = self._unreachable(error), error
            if attempt == self.config.retries or not passing:
                raise failure from cause
            self._wait(attempt, asked)
        raise AssertionError("the last attempt returns or raises")

    def _wait(self, attempt: int, asked: float) -> None:
        """Full jitter: a wait drawn from 0 to a bound that doubles, so that many clients do not come back at once."""
        bound = min(_FIRST_WAIT * 2**attempt, self.config.max_wait)
        self._sleep(asked + random.uniform(0.0, bound))

    # Reading ---------------------------------------------------------------------------------------------------------

    def _refusal(self, response: httpx.Response) -> RemoteError:
        with closing(response):
            said = self._blotted(response.read().decode(errors="replace"))
        status = response.status_code
        hint = "The server is busy or broken: try later, or raise retries."
        if status in (401, 403):
            hint = f"Set the environment variable {self.config.api_key_env} to a key that may use this model."
        elif status in (301, 302, 307, 308, 404, 405):
            hint = "Check the url, which ends with the version (/v1), and the model's name."
        elif status < 500 and status not in _PASSING:
            hint = "The server does not take this request."
        return RemoteError(f"{self._place} answered {status}: {said or response.reason_phrase}", hint=hint)

    def _unreachable(self, error: httpx.TransportError) -> RemoteError:
        waited = isinstance(error, httpx.TimeoutException)
        what = f"was silent for {self.config.timeout:g} s" if waited else "cannot be reached"
        hint = "Raise timeout." if waited else "Check that the server runs and that the url is right."
        return RemoteError(f"{self._place} {what} ({type(error).__name__}).", hint=hint)

    def _blotted(self, said: str) -> str:
        if self._key:
            said = said.replace(self._key, "***")
        return " ".join(_KEY_LIKE.sub("***", said).split())[:_EXCERPT]

    def _json(self, text: str) -> Mapping[str, Any]:
        try:
            data = json.loads(text)
        except json.JSONDecodeError:
            data = None
        if not isinstance(data, dict):
            raise RemoteError(f"{self._place} answered what is no JSON object: {self._blotted(text)!r}.")
        if data.get("error"):
            raise RemoteError(f"{self._place} reports an error: {self._blotted(json.dumps(data['error']))}")
        return data

    def _choice(self, data: Mapping[str, Any]) -> Mapping[str, Any]:
        choices = data.get("choices")
        if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
            raise RemoteError(f"{self._place} answered without choices: {self._blotted(json.dumps(data))}")
        return choices[0]

    def _message(self, data: Mapping[str, Any], finish: str | None) -> Message:
        if finish == "content_filter":
            raise RemoteError(f"{self._place} withheld the answer (content_filter).")
        try:
            calls = tuple(ToolCall.from_json(call) for call in data.get("tool_calls") or ())
        except (KeyError, TypeError, AttributeError, ValueError, InputError) as error:
            raise RemoteError(f"{self._place} answered a tool call that cannot be read: {error}.") from error
        return Message("assistant", data.get("content") or "", calls, end_of_turn=not calls)

    def _completion(self, message: Message, usage: Usage, finish: str | None) -> Completion:
        reason: StopReason = (
            "length" if finish == "length" else "end_of_message" if message.tool_calls else "end_of_turn"
        )
        price = self.config.price
        cost = (usage.prompt_tokens * price.input + usage.completion_tokens * price.output) / 1e6
        return Completion(message, usage, reason, cost=cost)


class _Streamed:
    """What has come of a streamed answer."""

    def __init__(self) -> None:
        self.text = ""
        self.finish = ""
        self.usage: Mapping[str, Any] | None = None
        self._calls: dict[int, dict[str, Any]] = {}

    def add(self, data: Mapping[str, Any]) -> str:
        """Takes one event in; returns the text that it brings."""
        self.usage = data.get("usage") or self.usage
        choices = data.get("choices") or [{}]
        delta = choices[0].get("delta") or {}
        self.finish = choices[0].get("finish_reason") or self.finish
        for piece in delta.get("tool_calls") or ():
            call = self._calls.setdefault(piece.get("index", 0), {"id": "", "function": {"name": "", "arguments": ""}})
            call["id"] = piece.get("id") or call["id"]
            for name, value in (piece.get("function") or {}).items():
                call["function"][name] = call["function"].get(name, "") + (value or "")
        text = delta.get("content") or ""
        self.text += text
        return text

    @property
    def calls(self) -> list[dict[str, Any]]:
        return [call for _, call in sorted(self._calls.items())]


def _data(chunks: Iterator[bytes]) -> Iterator[str]:
    """The data of a stream's events."""
    events = ServerEvents()
    for chunk in chunks:
        yield from (event.data.decode(errors="replace") for event in events.feed(chunk) if event.data)
    if (last := events.end()) and last.data:
        yield last.data.decode(errors="replace")


def _wire(message: Message) -> dict[str, Any]:
    """OpenAI's form, without what only Llama's chat format knows."""
    data = message.to_json()
    data.pop("end_of_turn", None)
    return data


def _usage(data: Mapping[str, Any] | None, seconds: float) -> Usage:
    data = data or {}
    return Usage(int(data.get("prompt_tokens") or 0), int(data.get("completion_tokens") or 0), decode_seconds=seconds)


def _parsed(url: str) -> httpx.URL | None:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        return None
    return parsed if parsed.scheme in ("http", "https") and parsed.host else None
