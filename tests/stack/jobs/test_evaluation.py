"""Evaluations."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from puna.base.errors import RemoteError
from puna.stack.context import Stack
from puna.stack.errors import ApiError
from puna.stack.jobs.evaluation import KIND, datasets_of, evaluate
from puna.stack.jobs.service import jobs_of
from puna.stack.testing import ScriptedProvider, make_stack

CONFIG = {"eval_candidate": {"model": "tiny", "sampling_params": {"strategy": {"type": "greedy"}}}}
ROWS = [{"question": f"Say {word}", "answer": word} for word in ("one", "two", "three")]


async def started(folder: Path, *answers: Any) -> tuple[Stack, ScriptedProvider]:
    provider = ScriptedProvider(answers=answers)
    stack = make_stack(folder, provider)
    await stack.start()
    return stack, provider


def test_rows_are_answered_and_scored(tmp_path: Path) -> None:
    async def go() -> None:
        stack, provider = await started(tmp_path, "one", "no")
        config = CONFIG | {"num_examples": 2}
        config["eval_candidate"] = config["eval_candidate"] | {"system_message": {"content": "Be short."}}
        found = await evaluate(stack, "", ROWS, ["basic::equality"], config)
        assert found["generations"] == [{"generated_answer": "one"}, {"generated_answer": "no"}]
        assert found["scores"]["basic::equality"]["aggregated_results"]["accuracy"]["accuracy"] == 0.5
        assert [message.content for message in provider.asked[0].messages] == ["Be short.", "Say one"]
        assert provider.asked[0].params.temperature == 0.0

    asyncio.run(go())


@pytest.mark.parametrize(
    "row",
    [
        {"chat_completion_input": '[{"role": "user", "content": "Q"}]', "expected_answer": "Q"},
        {"messages": [{"role": "user", "content": "Q"}], "answer": "Q"},
        {"input_query": "Q", "expected_answer": "Q"},
    ],
)
def test_all_forms_of_rows_ask_the_same(tmp_path: Path, row: dict) -> None:
    async def go() -> None:
        stack, provider = await started(tmp_path)
        found = await evaluate(stack, "", [row], ["basic::equality"], CONFIG)
        assert [message.content for message in provider.asked[0].messages] == ["Q"]
        assert found["scores"]["basic::equality"]["score_rows"] == [{"score": 1.0}]
        with pytest.raises(ApiError, match="asks nothing"):
            await evaluate(stack, "", [{"x": 1}], ["basic::equality"], CONFIG)

    asyncio.run(go())


def test_a_job_that_was_cut_off_asks_only_what_is_missing(tmp_path: Path) -> None:
    async def go() -> None:
        stack, provider = await started(tmp_path, "one", RemoteError("gone"))
        await datasets_of(stack).register("me", "d", "eval/question-answer", {"rows": ROWS}, {})
        benchmark = {"identifier": "b", "dataset_id": "d", "scoring_functions": ["basic::subset_of"]}
        jobs = jobs_of(stack)
        await jobs.submit(KIND, "me", "first", {"benchmark": benchmark, "config": CONFIG})
        assert (await jobs.wait(KIND, "me", "first"))["status"] == "failed"
        # As if the process had died in place of failing.
        record = stack.store.get(KIND, "me\x1ffirst", "me")
        assert record is not None
        stack.store.put(KIND, "me\x1ffirst", {**record.data, "status": "in_progress", "process": ""}, owner="me")
        stack.store.insert("job_under_way", "x", {"kind": KIND, "owner": "me", "id": "first"})
        assert await jobs.resume() == 1
        job = await jobs.wait(KIND, "me", "first")
        assert job["status"] == "completed"
        generated = [row["generated_answer"] for row in job["result"]["generations"]]
        assert generated == ["one", "Say two", "Say three"]
        assert [ask.messages[0].content for ask in provider.asked] == ["Say one", "Say two", "Say two", "Say three"]
        assert job["result"]["scores"]["basic::subset_of"]["aggregated_results"]["accuracy"]["accuracy"] == 1.0

    asyncio.run(go())
