"""Raw completions in the form that OpenAI had before chat."""

from __future__ import annotations

import json

from puna.core.chat import Message
from puna.core.completion import Completion, TokenLogprob
from puna.stack.conversion import NamedLogprob
from puna.stack.wire.chat import Frame
from puna.stack.wire.completions import (
    CompletionRequest,
    Echo,
    TextChunkWriter,
    choice_json,
    finish_of,
    logprobs_json,
    text_completion,
)

FRAME = Frame("cmpl_1", 5, "p/m", "fp_1")


def test_a_limit_that_is_not_said_is_openais() -> None:
    assert CompletionRequest(model="m").limit == 16
    assert CompletionRequest(model="m", max_tokens=0).limit == 0
    assert CompletionRequest.model_validate({"model": "m", "prompt": [[1, 2], [3]]}).prompt == [[1, 2], [3]]


def test_the_four_lists_say_where_each_token_begins() -> None:
    e = "é".encode()
    echo = Echo("aé", (b"a", e[:1], e[1:]), (None, -1.0, -2.0))
    named = NamedLogprob(1, -0.5, ((2, -0.7),), b"b", (b"c",))
    data = logprobs_json(echo, [named, TokenLogprob(9, float("-inf"))])
    assert data["tokens"] == ["a", "\ufffd", "\ufffd", "b", "token_id:9"]
    assert data["token_logprobs"] == [None, -1.0, -2.0, -0.5, -9999.0]
    assert data["top_logprobs"] == [None, None, None, {"c": -0.7, "b": -0.5}, {"token_id:9": -9999.0}]
    assert data["text_offset"] == [0, 1, 1, 2, 3]


def test_chunks_and_whole_answers_have_one_form() -> None:
    writer = TextChunkWriter(FRAME, include_usage=True)
    chunk = json.loads(writer.choice(1, "ñ", None, "stop")[6:])
    assert chunk == {**text_completion(FRAME, [choice_json(1, "ñ", None, "stop")], None), "usage": None}
    last = json.loads(writer.usage({"total_tokens": 3})[6:])
    assert (last["choices"], last["usage"]) == ([], {"total_tokens": 3})
    assert "usage" not in json.loads(TextChunkWriter(FRAME, False).choice(0, "a")[6:])


def test_why_a_text_ended() -> None:
    assert finish_of(Completion(Message("assistant"), stop_reason="length")) == "length"
    assert finish_of(Completion(Message("assistant"), stop_reason="stop")) == "stop"
