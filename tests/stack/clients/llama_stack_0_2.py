"""What llama-stack-client 0.2 is used for, against the server whose address is the first argument.

Run by the client's own Python; prints OK at its end.
"""

from __future__ import annotations

import sys
import time

from llama_stack_client import Agent, AgentEventLogger, LlamaStackClient, NotFoundError
from llama_stack_client.lib.agents.client_tool import client_tool

client = LlamaStackClient(base_url=sys.argv[1])
MODEL = "scripted/tiny"
ROWS = [{"input_query": "a", "expected_answer": "a"}, {"input_query": "b", "expected_answer": "x"}]


def inspection() -> None:
    assert client.inspect.health().status == "OK"
    assert client.inspect.version().version
    assert any(provider.api == "inference" for provider in client.providers.list())
    assert client.providers.retrieve("scripted").provider_type == "inline::scripted"
    assert any(route.route == "/v1/shields" for route in client.routes.list())


def safety() -> None:
    params = {"patterns": {"bad": "forbidden"}}
    shield = client.shields.register(shield_id="words", provider_id="regex", params=params)
    assert shield.identifier == "words"
    assert [found.identifier for found in client.shields.list()] == ["words"]
    assert client.shields.retrieve("words").params == params
    for content, level in (("fine", None), ("forbidden", "error")):
        messages = [{"role": "user", "content": content}]
        violation = client.safety.run_shield(shield_id="words", messages=messages, params={}).violation
        assert (violation and violation.violation_level) == level


def scoring_and_evaluation() -> None:
    assert any(function.identifier == "basic::equality" for function in client.scoring_functions.list())
    client.scoring_functions.register(
        scoring_fn_id="digits",
        description="Digits.",
        return_type={"type": "number"},
        params={"type": "regex_parser", "parsing_regexes": [r"(\d+)"], "aggregation_functions": ["accuracy"]},
    )
    rows = [{"input_query": "q", "generated_answer": "it is 42", "expected_answer": "42"}]
    scored = client.scoring.score(input_rows=rows, scoring_functions={"digits": None, "basic::subset_of": None})
    assert scored.results["digits"].score_rows[0]["score"] == 1.0
    dataset = client.datasets.register(
        dataset_id="rows", purpose="eval/question-answer", source={"type": "rows", "rows": ROWS}
    )
    assert dataset.identifier == "rows"
    assert client.datasets.iterrows(dataset_id="rows", limit=1).data == ROWS[:1]
    client.benchmarks.register(benchmark_id="bench", dataset_id="rows", scoring_functions=["basic::equality"])
    candidate = {"type": "model", "model": MODEL, "sampling_params": {"strategy": {"type": "greedy"}}}
    config = {"eval_candidate": candidate, "scoring_params": {}}
    job = client.eval.run_eval(benchmark_id="bench", benchmark_config=config)
    while job.status in ("scheduled", "in_progress"):
        time.sleep(0.05)
        job = client.eval.jobs.status(benchmark_id="bench", job_id=job.job_id)
    assert job.status == "completed", job
    result = client.eval.jobs.retrieve(benchmark_id="bench", job_id=job.job_id)
    assert [row["generated_answer"] for row in result.generations] == ["a", "b"]
    assert result.scores["basic::equality"].aggregated_results["accuracy"]["accuracy"] == 0.5
    at_once = client.eval.evaluate_rows(
        benchmark_id="bench", input_rows=ROWS[:1], scoring_functions=["basic::equality"], benchmark_config=config
    )
    assert at_once.scores["basic::equality"].score_rows[0]["score"] == 1.0


def tools() -> None:
    assert any(group.identifier == "builtin::basics" for group in client.toolgroups.list())
    assert "calculator" in [tool.identifier for tool in client.tools.list(toolgroup_id="builtin::basics")]
    assert "calculator" in [tool.name for tool in client.tool_runtime.list_tools(tool_group_id="builtin::basics")]
    answer = client.tool_runtime.invoke_tool(tool_name="calculator", kwargs={"expression": "6 * 7"})
    assert answer.content == "42", answer


def synthetic_data() -> None:
    found = client.synthetic_data_generation.generate(
        dialogs=[{"role": "user", "content": "Say: hello there"}], filtering_function="none", model=MODEL
    )
    assert found.statistics["dialogs"] == 1, found


@client_tool
def double(number: int) -> int:
    """Doubles a number.

    :param number: what to double
    """
    return 2 * int(number)


def agents() -> None:
    agent = Agent(
        client,
        model=MODEL,
        instructions="Be good.",
        tools=["builtin::basics", double],
        input_shields=["words"],
        output_shields=["words"],
        max_infer_iters=5,
    )
    session = agent.create_session("talk")
    call = '{"name": "double", "parameters": {"number": 21}}'
    stream = agent.create_turn(messages=[{"role": "user", "content": call}], session_id=session, stream=True)
    chunks = list(stream)
    kinds = [chunk.event.payload.event_type for chunk in chunks]
    assert "turn_awaiting_input" in kinds, kinds
    assert kinds[-1] == "turn_complete"
    turn = chunks[-1].event.payload.turn
    assert [step.step_type for step in turn.steps][-2:] == ["inference", "shield_call"], turn.steps
    executions = [step for step in turn.steps if step.step_type == "tool_execution"]
    assert executions[0].tool_responses[0].content == "42"
    assert turn.output_message.content == "Well done.", turn.output_message
    printed = [str(line) for line in AgentEventLogger().log(iter(chunks))]
    assert any("shield_call" in line for line in printed), printed
    blocked = agent.create_turn(messages=[{"role": "user", "content": "forbidden"}], session_id=session, stream=False)
    assert blocked.steps[0].violation.violation_level == "error"
    kept = client.agents.session.retrieve(session_id=session, agent_id=agent.agent_id)
    assert [found.turn_id for found in kept.turns] == [turn.turn_id, blocked.turn_id]
    again = client.agents.turn.retrieve(turn_id=turn.turn_id, session_id=session, agent_id=agent.agent_id)
    assert again.output_message.content == "Well done."
    step = turn.steps[0]
    shown = client.agents.steps.retrieve(
        step_id=step.step_id, agent_id=agent.agent_id, session_id=session, turn_id=turn.turn_id
    )
    assert shown.step.step_type == step.step_type
    client.agents.delete(agent_id=agent.agent_id)
    try:
        client.agents.session.retrieve(session_id=session, agent_id=agent.agent_id)
    except NotFoundError as error:
        assert error.status_code == 404
    else:
        raise AssertionError("the agent was deleted, and its session is there")


def post_training() -> None:
    rows = [{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}] * 4
    client.datasets.register(
        dataset_id="talks", purpose="post-training/messages", source={"type": "rows", "rows": rows}
    )
    data = {"dataset_id": "talks", "batch_size": 1, "shuffle": True, "data_format": "dialog"}
    training = {
        "n_epochs": 1,
        "max_steps_per_epoch": 2,
        "gradient_accumulation_steps": 1,
        "max_validation_steps": 1,
        "data_config": data,
        "optimizer_config": {"optimizer_type": "adamw", "lr": 1e-4, "weight_decay": 0.0, "num_warmup_steps": 0},
    }
    job = client.post_training.supervised_fine_tune(
        job_uuid="tune",
        model=MODEL,
        hyperparam_search_config={},
        logger_config={},
        training_config=training,
        algorithm_config={
            "type": "LoRA",
            "rank": 2,
            "alpha": 4,
            "lora_attn_modules": ["q_proj", "v_proj"],
            "apply_lora_to_mlp": False,
            "apply_lora_to_output": False,
        },
    )
    assert job.job_uuid == "tune"
    assert [found.job_uuid for found in client.post_training.job.list()] == ["tune"]
    status = client.post_training.job.status(job_uuid="tune")
    while status.status in ("scheduled", "in_progress"):
        time.sleep(0.1)
        status = client.post_training.job.status(job_uuid="tune")
    assert status.status == "completed", status
    assert client.post_training.job.artifacts(job_uuid="tune").checkpoints


for part in (inspection, safety, scoring_and_evaluation, tools, synthetic_data, agents, post_training):
    part()
    print(part.__name__, flush=True)
print("OK")
