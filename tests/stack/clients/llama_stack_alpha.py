"""What llama-stack-client 0.3 to 0.7 have of the Llama system's own APIs, against the server of the first argument.

Each of these versions lost some of them: what the client does not have is not tried, and its name is not printed.
"""

from __future__ import annotations

import sys
import time
from inspect import signature

from llama_stack_client import LlamaStackClient

client = LlamaStackClient(base_url=sys.argv[1])
MODEL = "scripted/tiny"
ROWS = [{"input_query": "a", "expected_answer": "a"}, {"input_query": "b", "expected_answer": "x"}]
ALPHA = getattr(client, "alpha", None)
DATASETS = getattr(client, "datasets", None) or getattr(getattr(client, "beta", None), "datasets", None)
BENCHMARKS = getattr(client, "benchmarks", None) or getattr(ALPHA, "benchmarks", None)


def inspection() -> None:
    assert client.inspect.health().status == "OK"
    assert client.inspect.version().version
    assert any(provider.api == "inference" for provider in client.providers.list())
    assert any(route.route == "/v1/shields" for route in client.routes.list())
    if hasattr(ALPHA, "admin"):
        assert ALPHA.admin.health().status == "OK"


def safety() -> None:
    client.shields.register(shield_id="words", provider_id="regex", params={"patterns": {"bad": "forbidden"}})
    assert [found.identifier for found in client.shields.list()] == ["words"]
    for content, level in (("fine", None), ("forbidden", "error")):
        messages = [{"role": "user", "content": content}]
        violation = client.safety.run_shield(shield_id="words", messages=messages, **PARAMS).violation
        assert (violation and violation.violation_level) == level
    moderated = client.moderations.create(input=["fine", "forbidden"], model="words")
    assert [result.flagged for result in moderated.results] == [False, True]
    assert moderated.results[1].categories == {"bad": True}


def prompts() -> None:
    made = client.prompts.create(prompt="Hi {{ name }}", variables=["name"])
    update = {"prompt": "Bye {{ name }}", "variables": ["name"], "version": 1, "set_as_default": False}
    assert client.prompts.update(made.prompt_id, **update).version == 2
    assert client.prompts.set_default_version(made.prompt_id, version=2).is_default
    assert [found.version for found in client.prompts.versions.list(made.prompt_id)] == [1, 2]
    client.prompts.delete(made.prompt_id)
    assert list(client.prompts.list()) == []


def scoring_and_evaluation() -> None:
    rows = [{"input_query": "q", "generated_answer": "it is 42", "expected_answer": "42"}]
    scored = client.scoring.score(input_rows=rows, scoring_functions={"basic::subset_of": None})
    assert scored.results["basic::subset_of"].score_rows[0]["score"] == 1.0
    assert any(function.identifier == "basic::equality" for function in client.scoring_functions.list())
    DATASETS.register(dataset_id="rows", purpose="eval/question-answer", source={"type": "rows", "rows": ROWS[:1]})
    twice = {"body_dataset_id": "rows"} if "body_dataset_id" in signature(DATASETS.appendrows).parameters else {}
    DATASETS.appendrows("rows", rows=ROWS[1:], **twice)
    BENCHMARKS.register(benchmark_id="bench", dataset_id="rows", scoring_functions=["basic::equality"])
    assert DATASETS.iterrows("rows").data == ROWS
    candidate = {"type": "model", "model": MODEL, "sampling_params": {"strategy": {"type": "greedy"}}}
    config = {"eval_candidate": candidate, "scoring_params": {}}
    job = ALPHA.eval.run_eval(benchmark_id="bench", benchmark_config=config)
    while job.status in ("scheduled", "in_progress"):
        time.sleep(0.05)
        job = ALPHA.eval.jobs.status(benchmark_id="bench", job_id=job.job_id)
    assert job.status == "completed", job
    result = ALPHA.eval.jobs.retrieve(benchmark_id="bench", job_id=job.job_id)
    assert result.scores["basic::equality"].aggregated_results["accuracy"]["accuracy"] == 0.5


def tools() -> None:
    assert "calculator" in [tool.name for tool in client.tools.list(toolgroup_id="builtin::basics")]


def tool_runtime() -> None:
    answer = client.tool_runtime.invoke_tool(tool_name="calculator", kwargs={"expression": "6 * 7"})
    assert answer.content == "42", answer
    assert any(group.identifier == "builtin::basics" for group in client.toolgroups.list())


def synthetic_data() -> None:
    found = client.synthetic_data_generation.generate(
        dialogs=[{"role": "user", "content": "Say: hello there"}], filtering_function="none", model=MODEL
    )
    assert found.statistics["dialogs"] == 1, found


def agents() -> None:
    schema = {"type": "object", "properties": {"number": {"type": "integer"}}, "required": ["number"]}
    config = {
        "model": MODEL,
        "instructions": "Be good.",
        "client_tools": [{"name": "double", "description": "Doubles.", "input_schema": schema}],
        "toolgroups": ["builtin::basics"],
        "input_shields": ["words"],
    }
    agent = ALPHA.agents.create(agent_config=config).agent_id
    session = ALPHA.agents.session.create(agent_id=agent, session_name="talk").session_id
    here = {"agent_id": agent, "session_id": session}
    call = '{"name": "double", "parameters": {"number": 21}}'
    messages = [{"role": "user", "content": call}]
    last = list(ALPHA.agents.turn.create(**here, messages=messages, stream=True))[-1].event.payload
    assert last.event_type == "turn_awaiting_input", last
    (asked,) = last.turn.output_message.tool_calls
    assert asked.arguments == '{"number": 21}'
    results = [{"call_id": asked.call_id, "tool_name": "double", "content": "42"}]
    turn = last.turn.turn_id
    chunks = list(ALPHA.agents.turn.resume(turn_id=turn, **here, tool_responses=results, stream=True))
    done = chunks[-1].event.payload
    assert done.event_type == "turn_complete"
    assert done.turn.output_message.content == "Well done."
    assert ALPHA.agents.turn.retrieve(turn_id=turn, **here).steps[0].step_type == "shield_call"
    assert [found.turn_id for found in ALPHA.agents.session.retrieve(**here).turns] == [turn]
    ALPHA.agents.delete(agent)


def post_training() -> None:
    rows = [{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}] * 4
    DATASETS.register(dataset_id="talks", purpose="post-training/messages", source={"type": "rows", "rows": rows})
    data = {"dataset_id": "talks", "batch_size": 1, "shuffle": True, "data_format": "dialog"}
    training = {"n_epochs": 1, "max_steps_per_epoch": 2, "gradient_accumulation_steps": 1, "data_config": data}
    started = ALPHA.post_training.supervised_fine_tune(
        job_uuid="tune", model=MODEL, hyperparam_search_config={}, logger_config={}, training_config=training
    )
    assert started.job_uuid == "tune"
    assert [found.job_uuid for found in ALPHA.post_training.job.list()] == ["tune"]
    job = ALPHA.post_training.job  # 0.5.4 forgot to take the job's name, but takes a query
    status = job.status(extra_query={"job_uuid": "tune"}, **NAMED)
    while status.status in ("scheduled", "in_progress"):
        time.sleep(0.1)
        status = job.status(extra_query={"job_uuid": "tune"}, **NAMED)
    assert status.status == "completed", status
    (checkpoint,) = job.artifacts(extra_query={"job_uuid": "tune"}, **NAMED).checkpoints
    assert checkpoint.path.endswith("checkpoint")
    job.cancel(extra_query={"job_uuid": "tune"}, **NAMED)


NAMED = {"job_uuid": "tune"} if client._version.startswith("0.3") else {}
PARAMS = {"params": {}} if client._version.startswith("0.3") else {}
PARTS = {
    inspection: True,
    safety: hasattr(client, "shields"),
    prompts: hasattr(client, "prompts"),
    scoring_and_evaluation: hasattr(client, "scoring") and hasattr(DATASETS, "register"),
    tools: hasattr(client, "tools"),
    tool_runtime: hasattr(client, "tool_runtime"),
    synthetic_data: hasattr(client, "synthetic_data_generation"),
    agents: hasattr(ALPHA, "agents"),
    post_training: hasattr(ALPHA, "post_training"),
}
for part, there in PARTS.items():
    if there:
        part()
        print(part.__name__, flush=True)
print("OK")
