"""Evaluations: a model answers the rows of a dataset, and scoring functions judge the answers.

As a job it keeps every answer when it has it, so that a server that was stopped asks only what is missing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from puna.core.chat import Message
from puna.stack.agents.llama import message_from, objects, params_from
from puna.stack.context import Stack
from puna.stack.errors import invalid
from puna.stack.jobs.asking import complete
from puna.stack.jobs.datasets import Datasets
from puna.stack.jobs.jobs import Running
from puna.stack.jobs.resources import key
from puna.stack.scoring.service import scoring_of
from puna.stack.state.store import every, run

KIND = "eval_job"
_ANSWER = "eval_answer"


def datasets_of(stack: Stack) -> Datasets:
    return stack.part("datasets", lambda stack: Datasets(stack, stack.parts.get("dataset_folder")))


async def evaluate(
    stack: Stack,
    owner: str,
    rows: Sequence[Mapping[str, Any]],
    functions: Sequence[str],
    config: Mapping[str, Any],
    keys: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Answers and scores rows while the client waits."""
    limit = config.get("num_examples")
    chosen = rows[: limit if limit is not None else len(rows)]
    answers = [await _answer(stack, owner, row, config, keys) for row in chosen]
    return await _scored(stack, owner, chosen, answers, functions, config, keys)


async def work(job: Running) -> dict[str, Any]:
    """The job: request = {"benchmark": {...}, "config": {...}}."""
    benchmark, config = job.request["benchmark"], job.request["config"]
    datasets = datasets_of(job.stack)
    rows = await datasets.rows(job.owner, benchmark["dataset_id"], config.get("num_examples"))
    store, parent = job.stack.store, key(job.owner, job.id)
    kept = await run(lambda: {record.data["row"]: record.data for record in every(store, _ANSWER, job.owner, parent)})
    for number, row in enumerate(rows):
        if number not in kept:
            kept[number] = {"row": number, **await _answer(job.stack, job.owner, row, config)}
            id = f"{parent}\x1f{number}"
            await run(store.put, _ANSWER, id, kept[number], owner=job.owner, parent=parent)
    answers = [kept[number] for number in range(len(rows))]
    result = await _scored(job.stack, job.owner, rows, answers, benchmark["scoring_functions"], config)
    await run(store.delete_children, _ANSWER, parent, job.owner)
    return result


def _scoring_params(functions: Sequence[str], config: Mapping[str, Any]) -> dict[str, Any]:
    given = config.get("scoring_params") or {}
    return {id: given.get(id) for id in functions}


async def _answer(
    stack: Stack,
    owner: str,
    row: Mapping[str, Any],
    config: Mapping[str, Any],
    keys: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    candidate = config["eval_candidate"]
    messages = list(_messages(row))
    if candidate.get("system_message"):
        messages.insert(0, message_from({"role": "system", **candidate["system_message"]}))
    params = params_from(candidate.get("sampling_params"))
    completion = await complete(stack, candidate["model"], messages, params, owner=owner, keys=keys)
    calls = [{"name": call.name, "arguments": dict(call.arguments)} for call in completion.message.tool_calls]
    text = completion.message.content or (json.dumps(calls, ensure_ascii=False) if calls else "")
    return {"generated_answer": text, "stop_reason": completion.stop_reason}


async def _scored(
    stack: Stack,
    owner: str,
    rows: Sequence[Mapping[str, Any]],
    answers: Sequence[Mapping[str, Any]],
    functions: Sequence[str],
    config: Mapping[str, Any],
    keys: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    judged = [
        {
            **row,
            "input_query": row.get("input_query") or _messages(row)[-1].content,
            "expected_answer": row.get("expected_answer", row.get("answer", row.get("ideal"))),
            "generated_answer": answer["generated_answer"],
        }
        for row, answer in zip(rows, answers, strict=True)
    ]
    scores = await scoring_of(stack).score(owner, judged, _scoring_params(functions, config), keys)
    return {"generations": [{"generated_answer": answer["generated_answer"]} for answer in answers], "scores": scores}


def _messages(row: Mapping[str, Any]) -> Sequence[Message]:
    """What a row asks: messages, or a question."""
    value = row.get("chat_completion_input", row.get("messages"))
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except json.JSONDecodeError as error:
            raise invalid(f"A row's messages are not JSON: {error}.", "input_rows") from error
    if value:
        return [message_from(message) for message in objects(value, "input_rows")]
    question = row.get("input_query", row.get("question", row.get("completion_input")))
    if not isinstance(question, str):
        raise invalid(
            "A row asks nothing: it needs messages, chat_completion_input, input_query or question.", "input_rows"
        )
    return [Message("user", question)]
