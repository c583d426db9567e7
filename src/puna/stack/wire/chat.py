"""Chat on the wire: the body of a request, and answers as OpenAI writes them, whole and in chunks.

Chunks are put together from their fixed parts and one JSON string, for they are made once for every token. The
probabilities of a streamed answer come in one chunk before its end: they are known for certain only then.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import Field

from puna.base.card import version
from puna.base.files import hash_json
from puna.core.chat import ToolCall
from puna.core.completion import Completion, TokenLogprob
from puna.stack.conversion import NamedLogprob
from puna.stack.providers.provider import ModelInfo, Provider
from puna.stack.wire.base import Wire

SAMPLING = (
    *("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty"),
    *("seed", "n", "max_tokens", "max_completion_tokens", "stop", "logit_bias", "logprobs", "top_logprobs"),
)


class StreamOptions(Wire):
    include_usage: bool | None = Field(None, description="Send the token counts in a last chunk.")


class ChatRequest(Wire):
    """The body of POST /v1/chat/completions; `top_k` to `structured_outputs` are vLLM's additions."""

    model: str
    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    response_format: dict[str, Any] | None = None
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    logit_bias: dict[str, float] | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    n: int | None = Field(None, ge=1, le=128)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    store: bool | None = Field(None, description="Keep the answer, to be fetched again by its id.")
    metadata: dict[str, str] | None = None
    top_k: int | None = Field(None, ge=0)
    min_p: float | None = Field(None, ge=0, lt=1)
    repetition_penalty: float | None = Field(None, gt=0)
    structured_outputs: dict[str, Any] | None = None
    provider: dict[str, Any] | None = Field(None, description="Wishes for a router, in OpenRouter's form.")
    functions: list[dict[str, Any]] | None = Field(None, description="Refused: say it with `tools`.")

    def sampling(self) -> dict[str, Any]:
        """The fields that `params_of` reads."""
        return {name: getattr(self, name) for name in SAMPLING}


class MetadataUpdate(Wire):
    """The body of POST /v1/chat/completions/{id}."""

    metadata: dict[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Frame:
    """What stands in every answer to a request.

    Attributes:
        id: of the answer.
        created: seconds since 1970.
        model: the server's name for it.
        fingerprint: changes when the model, its precision or this program does.
    """

    id: str
    created: int
    model: str
    fingerprint: str


def frame_of(id: str, created: float, provider: Provider, info: ModelInfo) -> Frame:
    digest = hash_json([provider.id, provider.type, info.id, info.precision, version()])[:12]
    return Frame(id, int(created), f"{provider.id}/{info.id}", f"fp_{digest}")


def usage_json(completion: Completion) -> dict[str, Any]:
    """The tokens of all answers to a request; with OpenRouter's `cost`, in dollars, where it costs something."""
    usage, answers = completion.usage, (completion, *completion.others)
    written = sum(answer.usage.completion_tokens for answer in answers)
    data: dict[str, Any] = {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": written,
        "total_tokens": usage.prompt_tokens + written,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }
    if cost := sum(answer.cost for answer in answers):
        data["cost"] = cost
    return data


def finish_of(completion: Completion) -> str:
    """OpenAI's word for why an answer ended."""
    if completion.stop_reason == "length":
        return "length"
    return "tool_calls" if completion.message.tool_calls else "stop"


def logprobs_json(logprobs: Sequence[TokenLogprob]) -> dict[str, Any] | None:
    """The probabilities of an answer's tokens; None where none were asked for."""
    return {"content": [_logprob(item) for item in logprobs], "refusal": None} if logprobs else None


def _logprob(item: TokenLogprob) -> dict[str, Any]:
    names = item.names if isinstance(item, NamedLogprob) else [name_of(id) for id, _ in item.top]
    token = item.token if isinstance(item, NamedLogprob) else name_of(item.id)
    top = [_named(name, logprob) for name, (_, logprob) in zip(names, item.top, strict=True)]
    return {**_named(token, item.logprob), "top_logprobs": top}


def name_of(id: int) -> bytes:
    """A token that its provider does not name."""
    return f"token_id:{id}".encode()


def _named(token: bytes, logprob: float) -> dict[str, Any]:
    # JSON has no infinity; -9999 is what OpenAI writes for a token that cannot be.
    return {"token": token.decode(errors="replace"), "logprob": max(logprob, -9999.0), "bytes": list(token)}


def chat_completion(frame: Frame, completion: Completion) -> dict[str, Any]:
    """A whole answer."""
    return {
        "id": frame.id,
        "object": "chat.completion",
        "created": frame.created,
        "model": frame.model,
        "choices": [_choice(i, answer) for i, answer in enumerate((completion, *completion.others))],
        "usage": usage_json(completion),
        "system_fingerprint": frame.fingerprint,
        "service_tier": "default",
        **routed(completion),
    }


def routed(completion: Completion) -> dict[str, Any]:
    """Who answered and why, where a router chose."""
    route = getattr(completion, "route", None)
    return {"routing": dict(route)} if route else {}


def _choice(index: int, answer: Completion) -> dict[str, Any]:
    calls = answer.message.tool_calls
    message: dict[str, Any] = {
        "role": "assistant",
        "content": answer.message.content or (None if calls else ""),
        "refusal": None,
        "annotations": [],
    }
    if calls:
        message["tool_calls"] = [call.to_json() for call in calls]
    logprobs = logprobs_json(answer.logprobs)
    return {"index": index, "message": message, "logprobs": logprobs, "finish_reason": finish_of(answer)}


class ChunkWriter:
    """The chunks of one streamed answer, as events.

    Args:
        frame: of the answer.
        include_usage: whether a last chunk gives the token counts.
    """

    def __init__(self, frame: Frame, include_usage: bool) -> None:
        self.include_usage = include_usage
        head = {
            "id": frame.id,
            "object": "chat.completion.chunk",
            "created": frame.created,
            "model": frame.model,
            "system_fingerprint": frame.fingerprint,
            "service_tier": "default",
        }
        self._head = f"data: {_dump(head)[:-1]}," + ('"usage":null,' if include_usage else "")
        self._before = self._head + '"choices":[{"index":0,"delta":{"content":'
        self._calls = 0

    def start(self, index: int = 0) -> bytes:
        return self._choice(index, {"role": "assistant", "content": "", "refusal": None})

    def text(self, text: str) -> bytes:
        """More of the first answer's text."""
        return f'{self._before}{_dump(text)}}},"logprobs":null,"finish_reason":null}}]}}\n\n'.encode(errors="replace")

    def call(self, call: ToolCall) -> bytes:
        """The first answer's next tool call."""
        self._calls += 1
        return self._choice(0, _calls([call], self._calls - 1))

    def end(self, completion: Completion) -> bytes:
        """Everything after the last piece of the first answer: its end, the other answers, and the counts."""
        chunks = [self._end(0, completion)]
        for index, other in enumerate(completion.others, 1):
            chunks.append(self.start(index))
            if other.message.content:
                chunks.append(self._choice(index, {"content": other.message.content}))
            if other.message.tool_calls:
                chunks.append(self._choice(index, _calls(other.message.tool_calls)))
            chunks.append(self._end(index, other))
        if self.include_usage:
            head = self._head.removesuffix('"usage":null,')
            more = "".join(f',"{name}":{_dump(value)}' for name, value in routed(completion).items())
            chunks.append(f'{head}"choices":[],"usage":{_dump(usage_json(completion))}{more}}}\n\n'.encode())
        return b"".join(chunks)

    def _end(self, index: int, answer: Completion) -> bytes:
        logprobs = logprobs_json(answer.logprobs)
        known = self._choice(index, {}, logprobs) if logprobs else b""
        return known + self._choice(index, {}, None, finish_of(answer))

    def _choice(
        self, index: int, delta: dict[str, Any], logprobs: dict[str, Any] | None = None, finish: str | None = None
    ) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
        return f'{self._head}"choices":[{_dump(choice)}]}}\n\n'.encode(errors="replace")


def _calls(calls: Sequence[ToolCall], first: int = 0) -> dict[str, Any]:
    return {"tool_calls": [{"index": i, **call.to_json()} for i, call in enumerate(calls, first)]}


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
