"""Answers as OpenAI writes them, whole and in chunks."""

from __future__ import annotations

import json
import math
import time
from typing import Any

import pytest
from pydantic import ValidationError

from puna.core.chat import Message, ToolCall
from puna.core.completion import Completion, TokenLogprob, Usage
from puna.stack.conversion import NamedLogprob
from puna.stack.providers.provider import ModelInfo
from puna.stack.testing import ScriptedProvider
from puna.stack.wire.chat import (
    ChatRequest,
    ChunkWriter,
    Frame,
    chat_completion,
    finish_of,
    frame_of,
    logprobs_json,
    usage_json,
)

FRAME = Frame("chatcmpl_1", 5, "p/m", "fp_1")
CALL = ToolCall("look", {"at": "ñ"}, "call_1")


def chunks(data: bytes) -> list[dict[str, Any]]:
    parts = data.decode().split("\n\n")
    assert parts.pop() == ""
    assert all(part.startswith("data: ") for part in parts)
    return [json.loads(part[6:]) for part in parts]


def test_a_body_keeps_what_is_known_and_reads_over_the_rest() -> None:
    body = ChatRequest.model_validate({"model": "m", "messages": [], "temperature": 1, "new_in_2030": {"x": 1}})
    assert body.sampling()["temperature"] == 1
    assert body.sampling()["seed"] is None
    for wrong in ({"temperature": 3}, {"n": 0}, {"top_logprobs": 21}, {"presence_penalty": -3}):
        with pytest.raises(ValidationError):
            ChatRequest.model_validate({"model": "m", "messages": [], **wrong})


def test_a_fingerprint_follows_the_model_and_its_precision() -> None:
    provider = ScriptedProvider("p")
    frames = [frame_of("x", 1.7, provider, ModelInfo("m", precision=name)) for name in ("bf16", "bf16", "int8")]
    assert frames[0] == frames[1]
    assert frames[0].fingerprint != frames[2].fingerprint
    assert (frames[0].model, frames[0].created) == ("p/m", 1)


def test_a_whole_answer() -> None:
    usage = Usage(10, 4, cached_tokens=8)
    other = Completion(Message("assistant", "", (CALL,)), Usage(10, 3), "end_of_message", cost=0.5)
    data = chat_completion(FRAME, Completion(Message("assistant", "hi"), usage, "length", cost=1.0, others=(other,)))
    first, second = data["choices"]
    assert first["message"]["content"] == "hi"
    assert (first["finish_reason"], first["logprobs"]) == ("length", None)
    assert "tool_calls" not in first["message"]
    assert (second["index"], second["message"]["content"], second["finish_reason"]) == (1, None, "tool_calls")
    assert json.loads(second["message"]["tool_calls"][0]["function"]["arguments"]) == {"at": "ñ"}
    assert data["usage"]["total_tokens"] == data["usage"]["prompt_tokens"] + data["usage"]["completion_tokens"] == 17
    assert data["usage"]["prompt_tokens_details"]["cached_tokens"] == 8
    assert data["usage"]["cost"] == 1.5
    assert "cost" not in usage_json(Completion(Message("assistant", ""), usage))


@pytest.mark.parametrize(
    ("reason", "calls", "word"),
    [
        ("end_of_turn", (), "stop"),
        ("stop", (), "stop"),
        ("end_of_message", (CALL,), "tool_calls"),
        ("end_of_turn", (CALL,), "tool_calls"),
        ("length", (CALL,), "length"),
    ],
)
def test_why_an_answer_ended(reason: Any, calls: tuple[ToolCall, ...], word: str) -> None:
    assert finish_of(Completion(Message("assistant", "", calls), stop_reason=reason)) == word


def test_probabilities_have_texts_and_bytes() -> None:
    named = NamedLogprob(1, -0.5, ((1, -0.5), (2, -math.inf)), "é".encode()[:1], ("é".encode()[:1], b"a"))
    data = logprobs_json([named, TokenLogprob(7, -1.0)])
    assert data is not None
    first, second = data["content"]
    assert (first["token"], first["bytes"]) == ("\ufffd", [0xC3])
    assert [one["token"] for one in first["top_logprobs"]] == ["\ufffd", "a"]
    assert first["top_logprobs"][1]["logprob"] == -9999.0
    assert second["token"] == "token_id:7"
    assert logprobs_json(()) is None


def test_chunks_join_to_the_answer() -> None:
    logprobs = (NamedLogprob(1, -0.5, (), b"hi"),)
    other = Completion(Message("assistant", "ho", (CALL,)), Usage(3, 2))
    end = Completion(
        Message("assistant", "hi\n", (CALL,)), Usage(3, 2), "end_of_message", logprobs=logprobs, others=(other,)
    )
    writer = ChunkWriter(FRAME, include_usage=True)
    data = writer.start() + writer.text("hi") + writer.text("\n") + writer.call(CALL) + writer.end(end)
    found = chunks(data)
    assert all(chunk["object"] == "chat.completion.chunk" and chunk["id"] == "chatcmpl_1" for chunk in found)
    *steps, last = found
    assert all(chunk["usage"] is None for chunk in steps)
    assert last["choices"] == []
    assert last["usage"] == usage_json(end)
    texts, ends = {0: "", 1: ""}, {}
    for chunk in steps:
        (choice,) = chunk["choices"]
        texts[choice["index"]] += choice["delta"].get("content") or ""
        if choice["finish_reason"]:
            ends[choice["index"]] = choice["finish_reason"]
    assert texts == {0: "hi\n", 1: "ho"}
    assert ends == {0: "tool_calls", 1: "tool_calls"}
    known = [chunk["choices"][0]["logprobs"] for chunk in steps if chunk["choices"][0]["logprobs"]]
    assert known == [logprobs_json(logprobs)]
    calls = [
        chunk["choices"][0]["delta"]["tool_calls"][0] for chunk in steps if "tool_calls" in chunk["choices"][0]["delta"]
    ]
    assert [call["index"] for call in calls] == [0, 0]


def test_no_counts_where_they_are_not_asked_for() -> None:
    writer = ChunkWriter(FRAME, include_usage=False)
    found = chunks(writer.text("a") + writer.end(Completion(Message("assistant", "a"))))
    assert all("usage" not in chunk for chunk in found)


def test_a_chunk_is_made_in_a_few_microseconds() -> None:
    writer = ChunkWriter(FRAME, include_usage=True)
    started = time.perf_counter()
    for _ in range(2000):
        writer.text(" word")
    assert (time.perf_counter() - started) / 2000 < 2e-4
