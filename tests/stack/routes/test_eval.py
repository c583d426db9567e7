"""Benchmarks and evaluations over HTTP."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from puna.stack.testing import ScriptedProvider

ROWS = [{"input_query": "a", "expected_answer": "a"}, {"input_query": "b", "expected_answer": "x"}]
CONFIG = {
    "eval_candidate": {"type": "model", "model": "scripted/tiny", "sampling_params": {"strategy": {"type": "greedy"}}}
}


async def prepare(client: Any, prefix: str) -> str:
    dataset = {"dataset_id": "d", "purpose": "eval/question-answer", "source": {"type": "rows", "rows": ROWS}}
    await client.post("/v1beta/datasets", json=dataset)
    body = {"benchmark_id": "b", "dataset_id": "d", "scoring_functions": ["basic::equality"]}
    made = await client.post(f"{prefix}/eval/benchmarks", json=body)
    assert made.json()["identifier"] == "b"
    return f"{prefix}/eval/benchmarks/b"


@pytest.mark.parametrize("prefix", ["/v1alpha", "/v1"])
def test_a_benchmark_runs_as_a_job(serve: Any, prefix: str) -> None:
    async def scenario(client: Any, stack: Any) -> None:
        path = await prepare(client, prefix)
        job = (await client.post(f"{path}/jobs", json={"benchmark_config": CONFIG})).json()
        one = f"{path}/jobs/{job['job_id']}"
        while (job := (await client.get(one)).json())["status"] in ("scheduled", "in_progress"):
            await asyncio.sleep(0.02)
        assert job["status"] == "completed"
        result = (await client.get(f"{one}/result")).json()
        assert [row["generated_answer"] for row in result["generations"]] == ["a", "b"]
        assert result["scores"]["basic::equality"]["aggregated_results"]["accuracy"]["accuracy"] == 0.5
        assert [row["job_id"] for row in (await client.get(f"{path}/jobs")).json()["data"]] == [job["job_id"]]
        assert (await client.get(f"{prefix}/eval/benchmarks/other/jobs/{job['job_id']}")).status_code == 404

    serve(scenario)


def test_rows_are_evaluated_at_once(serve: Any) -> None:
    async def scenario(client: Any, stack: Any) -> None:
        path = await prepare(client, "/v1alpha")
        body = {"input_rows": ROWS[:1], "scoring_functions": ["basic::subset_of"], "benchmark_config": CONFIG}
        found = (await client.post(f"{path}/evaluations", json=body)).json()
        assert found["scores"]["basic::subset_of"]["score_rows"] == [{"score": 1.0}]

    serve(scenario)


def test_a_job_under_way_has_no_result_and_can_be_cancelled(serve: Any) -> None:
    async def scenario(client: Any, stack: Any) -> None:
        path = await prepare(client, "/v1alpha")
        job = (await client.post(f"{path}/jobs", json={"benchmark_config": CONFIG})).json()
        one = f"{path}/jobs/{job['job_id']}"
        assert (await client.get(f"{one}/result")).status_code == 409
        assert (await client.delete(one)).status_code == 204
        assert (await client.get(one)).json()["status"] == "cancelled"

    serve(scenario, ScriptedProvider(pause=5.0))


def test_a_benchmark_of_nothing_is_refused(serve: Any) -> None:
    async def scenario(client: Any, stack: Any) -> None:
        path = await prepare(client, "/v1alpha")
        body = {"benchmark_id": "c", "dataset_id": "none", "scoring_functions": ["basic::equality"]}
        assert (await client.post("/v1alpha/eval/benchmarks", json=body)).status_code == 404
        body |= {"dataset_id": "d", "scoring_functions": ["none"]}
        assert (await client.post("/v1alpha/eval/benchmarks", json=body)).status_code == 404
        unknown = {"eval_candidate": {"model": "none"}}
        assert (await client.post(f"{path}/jobs", json={"benchmark_config": unknown})).status_code == 404
        assert (await client.delete(path)).status_code == 204
        assert (await client.get("/v1alpha/eval/benchmarks")).json()["data"] == []

    serve(scenario)
