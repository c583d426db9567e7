"""Benchmarks and evaluations: `/v1alpha/eval/benchmarks` and their jobs, and under `/v1` as older clients have them."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from puna.stack.context import Stack, caller_of, new_id, stack_of
from puna.stack.errors import ApiError, not_found
from puna.stack.jobs.evaluation import KIND, datasets_of, evaluate
from puna.stack.jobs.resources import Resources
from puna.stack.jobs.service import jobs_of, resumed
from puna.stack.scoring.service import scoring_of
from puna.stack.wire.base import listed
from puna.stack.wire.eval import BenchmarkBody, EvaluateRowsBody, RunEvalBody

_routes = APIRouter(prefix="/eval/benchmarks", tags=["eval"])


def _benchmarks(stack: Stack) -> Resources:
    return stack.part("benchmarks", lambda stack: Resources(stack, "benchmark"))


@_routes.get("")
async def list_benchmarks(request: Request) -> JSONResponse:
    return JSONResponse(listed(await _benchmarks(stack_of(request)).list(caller_of(request).owner)))


@_routes.post("")
async def register_benchmark(body: BenchmarkBody, request: Request) -> JSONResponse:
    stack, owner = stack_of(request), caller_of(request).owner
    await datasets_of(stack).get(owner, body.dataset_id)
    for id in body.scoring_functions:
        await scoring_of(stack).functions.get(owner, id, "scoring_functions")
    data = {
        "identifier": body.benchmark_id,
        "provider_id": "puna",
        "provider_resource_id": body.provider_benchmark_id or body.benchmark_id,
        "type": "benchmark",
        "dataset_id": body.dataset_id,
        "scoring_functions": body.scoring_functions,
        "metadata": body.metadata or {},
    }
    return JSONResponse(await _benchmarks(stack).register(owner, body.benchmark_id, data))


@_routes.get("/{benchmark_id}")
async def get_benchmark(benchmark_id: str, request: Request) -> JSONResponse:
    return JSONResponse(await _benchmarks(stack_of(request)).get(caller_of(request).owner, benchmark_id))


@_routes.delete("/{benchmark_id}", status_code=204)
async def delete_benchmark(benchmark_id: str, request: Request) -> Response:
    await _benchmarks(stack_of(request)).delete(caller_of(request).owner, benchmark_id)
    return Response(status_code=204)


@_routes.post("/{benchmark_id}/evaluations")
async def evaluate_rows(benchmark_id: str, body: EvaluateRowsBody, request: Request) -> JSONResponse:
    """Answers and scores rows, which need not be the benchmark's."""
    stack, owner = stack_of(request), caller_of(request).owner
    await _benchmarks(stack).get(owner, benchmark_id)
    stack.model(body.benchmark_config.eval_candidate.model)
    config = body.benchmark_config.model_dump()
    keys = caller_of(request).provider_keys
    return JSONResponse(await evaluate(stack, owner, body.input_rows, body.scoring_functions, config, keys))


@_routes.post("/{benchmark_id}/jobs")
async def run_benchmark(benchmark_id: str, body: RunEvalBody, request: Request) -> JSONResponse:
    stack, owner = stack_of(request), caller_of(request).owner
    benchmark = await _benchmarks(stack).get(owner, benchmark_id)
    stack.model(body.benchmark_config.eval_candidate.model)
    wanted = {"benchmark": benchmark, "config": body.benchmark_config.model_dump()}
    return JSONResponse(_shown(await jobs_of(stack).submit(KIND, owner, new_id("job"), wanted, benchmark_id)))


@_routes.get("/{benchmark_id}/jobs")
async def list_jobs(benchmark_id: str, request: Request) -> JSONResponse:
    jobs = await jobs_of(stack_of(request)).list(KIND, caller_of(request).owner, benchmark_id)
    return JSONResponse(listed([_shown(job) for job in jobs]))


@_routes.get("/{benchmark_id}/jobs/{job_id}")
async def get_job(benchmark_id: str, job_id: str, request: Request) -> JSONResponse:
    return JSONResponse(_shown(await _job(request, benchmark_id, job_id)))


@_routes.delete("/{benchmark_id}/jobs/{job_id}", status_code=204)
async def cancel_job(benchmark_id: str, job_id: str, request: Request) -> Response:
    await _job(request, benchmark_id, job_id)
    await jobs_of(stack_of(request)).cancel(KIND, caller_of(request).owner, job_id)
    return Response(status_code=204)


@_routes.get("/{benchmark_id}/jobs/{job_id}/result")
async def get_result(benchmark_id: str, job_id: str, request: Request) -> JSONResponse:
    job = await _job(request, benchmark_id, job_id)
    if job["status"] != "completed":
        why = f": {job['error']['message']}" if job["error"] else "."
        raise ApiError(409, f"The job {job_id!r} has no result; it is {job['status']}{why}", code="not_completed")
    return JSONResponse(job["result"])


async def _job(request: Request, benchmark: str, id: str) -> dict[str, Any]:
    job = await jobs_of(stack_of(request)).get(KIND, caller_of(request).owner, id)
    if job["request"]["benchmark"]["identifier"] != benchmark:
        raise not_found("job", id)
    return job


def _shown(job: dict[str, Any]) -> dict[str, Any]:
    times = {name: job[name] for name in ("scheduled_at", "started_at", "completed_at")}
    return {"id": job["id"], "job_id": job["id"], "status": job["status"], "error": job["error"], **times}


router = APIRouter(lifespan=resumed)
for _prefix in ("/v1alpha", "/v1"):
    router.include_router(_routes, prefix=_prefix)
