from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from puna.stack.context import Caller
from puna.stack.errors import ApiError
from puna.stack.providers.provider import ModelInfo
from puna.stack.responses.plan import Plan, make_plan
from puna.stack.testing import ScriptedProvider, make_stack
from puna.stack.wire.responses import CreateResponse

# What the Open Responses schema demands of every response.
REQUIRED = [
    "id",
    "object",
    "created_at",
    "completed_at",
    "status",
    "incomplete_details",
    "model",
    "previous_response_id",
    "instructions",
    "output",
    "error",
    "tools",
    "tool_choice",
    "truncation",
    "parallel_tool_calls",
    "text",
    "top_p",
    "presence_penalty",
    "frequency_penalty",
    "top_logprobs",
    "temperature",
    "reasoning",
    "usage",
    "max_output_tokens",
    "max_tool_calls",
    "store",
    "background",
    "service_tier",
    "metadata",
    "safety_identifier",
    "prompt_cache_key",
]


def plan(folder: Path, provider: ScriptedProvider | None = None, **body: Any) -> Plan:
    async def make() -> Plan:
        stack = make_stack(folder, provider or ScriptedProvider())
        await stack.start()
        try:
            return await make_plan(stack, Caller("ann", provider_keys={"scripted": "key"}), CreateResponse(**body))
        finally:
            await stack.stop()

    return asyncio.run(make())


def refusal(folder: Path, provider: ScriptedProvider | None = None, **body: Any) -> ApiError:
    with pytest.raises(ApiError) as caught:
        plan(folder, provider, **body)
    return caught.value


def test_every_field_is_there_from_the_start(tmp_path: Path) -> None:
    made = plan(tmp_path, input="hello")
    assert set(REQUIRED) <= made.response.keys()
    assert made.response["model"] == "scripted/tiny"
    assert made.response["status"] == "in_progress"
    assert (made.owner, made.key) == ("ann", "key")


def test_what_was_asked_for_is_given_back(tmp_path: Path) -> None:
    asked = {
        "model": "tiny",
        "instructions": "Be brief.",
        "max_output_tokens": 20,
        "max_tool_calls": 3,
        "temperature": 0.0,
        "top_p": 0.5,
        "top_logprobs": 2,
        "truncation": "auto",
        "metadata": {"a": "b"},
        "store": False,
        "parallel_tool_calls": False,
        "safety_identifier": "s",
        "prompt_cache_key": "k",
    }
    made = plan(tmp_path, input="hello", reasoning={"effort": "low"}, **asked)
    assert {name: made.response[name] for name in asked} == asked
    assert made.response["reasoning"] == {"effort": "low", "summary": None}
    assert made.params.logprobs == 2
    assert made.params.max_tokens == 20


def test_instructions_stand_first(tmp_path: Path) -> None:
    made = plan(tmp_path, input="hello", instructions="Be brief.")
    assert [(message.role, message.content) for message in made.messages()] == [
        ("system", "Be brief."),
        ("user", "hello"),
    ]


@pytest.mark.parametrize(
    ("form", "shown"),
    [
        (None, {"type": "text"}),
        ({"type": "json_object"}, {"type": "json_object"}),
        (
            {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True},
            {"type": "json_schema", "name": "n", "description": None, "schema": {"type": "object"}, "strict": True},
        ),
        (
            {"schema": {"type": "object"}},
            {
                "type": "json_schema",
                "name": "response",
                "description": None,
                "schema": {"type": "object"},
                "strict": False,
            },
        ),
    ],
)
def test_the_form_of_the_answer(tmp_path: Path, form: Any, shown: Any) -> None:
    made = plan(tmp_path, input="hello", text={"format": form})
    assert made.response["text"] == {"format": shown}
    assert (made.params.constraint is None) == (shown["type"] == "text")


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"model": "nobody", "input": "x"}, 404, "model"),
        ({"model": "letters", "input": "x"}, 400, "model"),
        ({"input": None}, 400, "input"),
        ({"input": "x", "text": {"format": {"type": "poem"}}}, 400, "text.format.type"),
        ({"input": "x", "previous_response_id": "resp_0"}, 404, "previous_response_id"),
        ({"input": "x", "conversation": "conv_0"}, 404, "conversation"),
        ({"input": "x", "conversation": 5}, 400, "conversation"),
        ({"input": "x", "conversation": {"id": "conv_a"}, "previous_response_id": "b"}, 400, "previous_response_id"),
        ({"input": "x", "prompt": {"id": "p"}}, 404, "prompt.id"),
        ({"input": "x", "guardrails": True}, 501, "guardrails"),
        ({"input": "x", "shields": {"input": ["s"]}}, 404, "shields.input"),
        ({"input": "x", "guardrails": [5]}, 400, "guardrails"),
        ({"input": "x", "background": True, "store": False}, 400, "store"),
        ({"input": "x", "tools": [{"type": "file_search", "vector_store_ids": ["vs"]}]}, 400, "tools"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, body: dict[str, Any], status: int, param: str) -> None:
    error = refusal(tmp_path, **body)
    assert (error.status, error.param) == (status, param)


def test_a_choice_of_models_must_be_made(tmp_path: Path) -> None:
    two = ScriptedProvider(models=(ModelInfo("a"), ModelInfo("b")))
    assert refusal(tmp_path, two, input="x").param == "model"


def test_the_context_is_a_limit(tmp_path: Path) -> None:
    narrow = ScriptedProvider(models=(ModelInfo("tiny", context_length=8),))
    long = [{"role": "user", "content": "one two three four five"}, {"role": "user", "content": "six seven"}]
    assert plan(tmp_path, narrow, input=long).dropped == 0
    long.append({"role": "user", "content": "eight"})
    assert refusal(tmp_path, narrow, input=long).code == "context_length_exceeded"
    made = plan(tmp_path, narrow, input=long, instructions="Count!", truncation="auto")
    assert [message.content for message in made.messages()] == ["Count!", "six seven", "eight"]
