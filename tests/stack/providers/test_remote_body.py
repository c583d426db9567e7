"""What is sent to whom."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from puna.base.errors import ConfigError
from puna.core.chat import Message, ToolCall, ToolSpec
from puna.core.completion import Constraint, SamplingParams
from puna.stack.conversion import OPEN_END
from puna.stack.errors import ApiError
from puna.stack.providers.provider import Ask
from puna.stack.providers.remote_body import chat_body, profile, raw_body

NAMES = ("openai", "puna", "vllm", "sglang", "llama.cpp", "ollama", "trtllm", "openrouter")
MESSAGES = (Message("user", "hi"),)
PLAIN = SamplingParams(max_tokens=OPEN_END)
SCHEMA = Constraint("json_schema", {"type": "object"})


def body(name: str = "vllm", tools: tuple[ToolSpec, ...] = (), **params: Any) -> dict[str, Any]:
    return chat_body(Ask("m", MESSAGES, replace(PLAIN, **params), tools), profile(name))


def refused(*arguments: Any, **params: Any) -> str | None:
    with pytest.raises(ApiError) as caught:
        body(*arguments, **params)
    assert caught.value.code == "unsupported_parameter"
    return caught.value.param


@pytest.mark.parametrize("name", NAMES)
def test_what_everybody_takes(name: str) -> None:
    sent = body(name, stop=("a",))
    assert sent["messages"] == [{"role": "user", "content": "hi"}]
    assert (sent["model"], sent["temperature"], sent["top_p"], sent["stop"]) == ("m", 0.6, 0.9, ["a"])
    assert not {"max_tokens", "max_completion_tokens", "top_k", "seed", "n", "logprobs", "tools"} & sent.keys()
    assert body(name, constraint=SCHEMA)["response_format"]["type"] in ("json_schema", "json")
    assert "tools" in profile(name).features
    assert body(name, max_tokens=7)[profile(name).limit] == 7


def test_settings_are_sent_by_the_names_that_the_server_has_for_them() -> None:
    settings: dict[str, Any] = {
        "top_k": 5,
        "min_p": 0.1,
        "repetition_penalty": 1.1,
        "seed": 3,
        "n": 2,
        "logit_bias": {4: 1.0},
    }
    sent = body("llama.cpp", **settings)
    assert (sent["repeat_penalty"], sent["top_k"], sent["logit_bias"]) == (1.1, 5, {"4": 1.0})
    assert body("vllm", **settings)["repetition_penalty"] == 1.1
    assert body("openai", max_tokens=7)["max_completion_tokens"] == 7
    assert (body(logprobs=3)["logprobs"], body(logprobs=3)["top_logprobs"]) == (True, 3)


def test_what_a_server_does_not_take_is_refused_and_not_dropped() -> None:
    assert refused("openai", top_k=5) == "top_k"
    assert refused("ollama", n=2) == "n"
    assert refused("openrouter", n=2) == "n"
    assert refused("vllm", prompt_logprobs=True) == "logprobs"
    assert refused("openai", constraint=Constraint("regex", "a")) == "response_format"
    assert refused("ollama", (ToolSpec("look"),), tool_choice="required") == "tool_choice"


def test_forms_go_where_each_server_wants_them() -> None:
    regex = Constraint("regex", "a+")
    assert body("vllm", constraint=regex)["structured_outputs"] == {"regex": "a+"}
    assert body("sglang", constraint=regex)["regex"] == "a+"
    assert body("trtllm", constraint=regex)["response_format"] == {"type": "regex", "regex": "a+"}
    assert body("trtllm", constraint=SCHEMA)["response_format"] == {"type": "json", "schema": {"type": "object"}}
    strict = body("openai", constraint=SCHEMA)["response_format"]["json_schema"]
    assert (strict["schema"], strict["strict"]) == ({"type": "object"}, True)


def test_tools_and_what_is_to_be_called() -> None:
    tools = (ToolSpec("look"),)
    assert "tool_choice" not in body("vllm", tools)
    assert body("vllm", tools, tool_choice="required")["tool_choice"] == "required"
    named = body("vllm", tools, tool_choice="look")["tool_choice"]
    assert named == {"type": "function", "function": {"name": "look"}}
    assert "tools" not in body("vllm", tools, tool_choice="none")


def test_messages_lose_what_llama_alone_knows() -> None:
    call = ToolCall("look", {}, "c1")
    messages = (
        Message("assistant", "", (call,), end_of_turn=False),
        Message("tool", "x", tool_call_id="c1", name="look"),
    )
    first, second = chat_body(Ask("m", messages, PLAIN), profile("openai"))["messages"]
    assert first == {"role": "assistant", "content": None, "tool_calls": [call.to_json()]}
    assert second == {"role": "tool", "content": "x", "tool_call_id": "c1"}


def test_raw_prompts() -> None:
    params = replace(PLAIN, max_tokens=7, logprobs=2)
    sent = raw_body(Ask("m", params=params, prompt=[1, 2]), profile("vllm"))
    assert (sent["prompt"], sent["max_tokens"], sent["logprobs"]) == ([1, 2], 7, 2)
    assert raw_body(Ask("m", params=PLAIN, prompt="a"), profile("vllm"))["prompt"] == "a"
    with pytest.raises(ApiError, match="continues no raw text"):
        raw_body(Ask("m", params=PLAIN, prompt="a"), profile("openai"))


def test_an_unknown_profile_is_refused_with_the_near_one() -> None:
    with pytest.raises(ConfigError, match="'vlm'") as caught:
        profile("vlm")
    assert "vllm" in caught.value.hint
