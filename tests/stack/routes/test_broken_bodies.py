"""Every value of every body of the Llama system's routes, replaced by what nobody would send: never a 5xx but 501."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest

ROW = {"input_query": "q", "generated_answer": "a", "expected_answer": "b"}
MESSAGES = [
    {"role": "user", "content": "hi", "context": None},
    {
        "role": "assistant",
        "content": [{"type": "text", "text": "x"}],
        "tool_calls": [{"call_id": "c", "tool_name": "t", "arguments": {"a": 1}}],
    },
    {"role": "user", "content": "yo"},
]
SAMPLING = {"strategy": {"type": "top_p", "temperature": 0.5, "top_p": 0.9}, "max_tokens": 5, "stop": ["x"]}
CONFIG = {
    "eval_candidate": {"type": "model", "model": "tiny", "sampling_params": SAMPLING, "system_message": MESSAGES[0]},
    "scoring_params": {"basic::equality": {"type": "basic", "aggregation_functions": ["accuracy"]}},
    "num_examples": 1,
}
PARAMETER = {"name": "x", "parameter_type": "int", "description": "d", "required": True, "default": None}
RAG = {"name": "builtin::rag", "args": {"vector_store_ids": ["v"]}}
AGENT = {
    "model": "tiny",
    "instructions": "x",
    "toolgroups": ["builtin::basics", RAG],
    "client_tools": [{"name": "local", "description": "d", "parameters": [PARAMETER]}],
    "tool_config": {"tool_choice": "auto"},
    "input_shields": ["words"],
    "max_infer_iters": 2,
    "sampling_params": SAMPLING,
    "response_format": {"type": "json_schema", "json_schema": {"type": "object"}},
}
TRAINING = {
    "n_epochs": 1,
    "data_config": {"dataset_id": "d", "batch_size": 1, "shuffle": True, "data_format": "dialog"},
    "optimizer_config": {"optimizer_type": "adamw", "lr": 1e-3},
    "efficiency_config": {},
    "dtype": "bf16",
}
LORA = {"type": "LoRA", "rank": 4, "alpha": 8, "lora_attn_modules": ["q_proj"], "apply_lora_to_mlp": False}
DOCUMENTS = [{"content": "x", "mime_type": "text/plain"}, {"content": {"uri": "data:,x"}, "mime_type": "text/plain"}]
TURN = {
    "messages": MESSAGES[-1:],
    "stream": False,
    "documents": DOCUMENTS,
    "toolgroups": ["builtin::basics", {"name": "builtin::memory", "args": {"vector_store_ids": ["v"]}}],
    "tool_config": {"tool_choice": "auto"},
}
JUDGE = {"judge_model": "tiny", "prompt_template": "x {input_query}", "judge_score_regexes": ["a"]}
FUNCTIONS = {"basic::bfcl": None, "basic::subset_of": {"type": "basic"}, "llm-as-judge::base": JUDGE}
BODIES: dict[str, dict[str, Any]] = {
    "/v1/shields": {"shield_id": "s", "provider_id": "regex", "params": {"patterns": {"a": ["b"]}, "message": "m"}},
    "/v1/safety/run-shield": {"shield_id": "words", "messages": MESSAGES, "params": {}},
    "/v1/moderations": {"input": ["a", {"type": "text", "text": "x"}], "model": "words"},
    "/v1/scoring-functions": {
        "scoring_fn_id": "f",
        "return_type": {"type": "number"},
        "params": {"type": "regex_parser", "parsing_regexes": ["a"], "aggregation_functions": ["accuracy"]},
    },
    "/v1/scoring/score": {"input_rows": [ROW], "scoring_functions": FUNCTIONS},
    "/v1beta/datasets": {
        "dataset_id": "e",
        "purpose": "eval/question-answer",
        "source": {"rows": [ROW]},
        "metadata": {},
    },
    "/v1/datasets": {"dataset_id": "e", "purpose": "eval/question-answer", "source": {"uri": "data:,x"}},
    "/v1beta/datasetio/append-rows/d": {"rows": [ROW]},
    "/v1alpha/eval/benchmarks": {"benchmark_id": "b", "dataset_id": "d", "scoring_functions": ["basic::equality"]},
    "/v1alpha/eval/benchmarks/b/evaluations": {
        "input_rows": [{"messages": MESSAGES, "answer": "x"}],
        "scoring_functions": ["basic::equality"],
        "benchmark_config": CONFIG,
    },
    "/v1alpha/post-training/supervised-fine-tune": {
        "job_uuid": "j",
        "model": "tiny",
        "training_config": TRAINING,
        "algorithm_config": LORA,
    },
    "/v1alpha/post-training/job/cancel": {"job_uuid": "x"},
    "/v1/synthetic-data-generation/generate": {
        "dialogs": [MESSAGES, {"messages": MESSAGES}],
        "filtering_function": "top_k",
        "model": "tiny",
        "top_k": 1,
        "seed": 1,
    },
    "/v1/toolgroups": {"toolgroup_id": "g", "provider_id": "builtin::rag", "args": {"vector_store_ids": ["v"]}},
    "/v1/tool-runtime/invoke": {"tool_name": "calculator", "kwargs": {"expression": "1+1"}},
    "/v1/tool-runtime/rag-tool/query": {"content": "x", "vector_db_ids": ["v"], "query_config": {"max_chunks": 3}},
    "/v1/prompts": {"prompt": "{{a}}", "variables": ["a"]},
    "/v1/agents": {"agent_config": AGENT},
    "/v1/agents/AGENT/session": {"session_name": "x"},
    "/v1/agents/AGENT/session/SESSION/turn": TURN,
}
ODD = ["\ud800", None, -1, True, [], {"a": 1}, [None], float("nan")]


def places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value within a value, its own included."""
    yield place
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*place, key))


def replaced(value: Any, place: tuple[Any, ...], new: Any) -> Any:
    if not place:
        return new
    value = copy.deepcopy(value)
    inner = value
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = new
    return value


async def prepare(client: Any) -> tuple[str, str]:
    """Makes what the bodies name; returns an agent and a session."""
    await client.post("/v1/shields", json={"shield_id": "words", "params": {"patterns": {"a": "zzz"}}})
    rows = {"dataset_id": "d", "purpose": "eval/question-answer", "source": {"rows": [ROW]}}
    await client.post("/v1beta/datasets", json=rows)
    await client.post("/v1alpha/eval/benchmarks", json=BODIES["/v1alpha/eval/benchmarks"])
    agent = (await client.post("/v1/agents", json={"agent_config": {"model": "tiny"}})).json()["agent_id"]
    return agent, (await client.post(f"/v1/agents/{agent}/session", json={})).json()["session_id"]


@pytest.mark.slow
@pytest.mark.parametrize("path", BODIES)
def test_no_body_is_a_servers_error(serve: Any, path: str) -> None:
    async def scenario(client: Any, stack: Any) -> None:
        agent, session = await prepare(client)
        real = path.replace("AGENT", agent).replace("SESSION", session)
        for place in places(BODIES[path]):
            for odd in ODD:
                body = json.dumps(replaced(BODIES[path], place, odd))
                answer = await client.post(real, content=body, headers={"content-type": "application/json"})
                assert answer.status_code < 500 or answer.status_code == 501, (place, odd, answer.text)
                if answer.status_code >= 400:
                    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
        answer = await client.post(real, json=BODIES[path])
        assert answer.status_code < 500, answer.text

    serve(scenario)
