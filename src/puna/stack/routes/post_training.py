"""Fine-tuning jobs: `/v1alpha/post-training`, and under `/v1` as older clients have it."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse

from puna.stack.context import caller_of, stack_of
from puna.stack.errors import invalid, not_found, not_implemented
from puna.stack.jobs.finetune import KIND, prepare, read_log
from puna.stack.jobs.service import jobs_of
from puna.stack.state.store import run
from puna.stack.wire.base import listed
from puna.stack.wire.post_training import CancelBody, FinetuneBody

_routes = APIRouter(prefix="/post-training", tags=["post-training"])


@_routes.post("/supervised-fine-tune")
async def supervised_fine_tune(body: FinetuneBody, request: Request) -> JSONResponse:
    """Starts a job that trains a local model on a dataset of conversations."""
    stack, owner = stack_of(request), caller_of(request).owner
    if body.checkpoint_dir not in (None, "", "null"):
        raise invalid("This server chooses where checkpoints lie; leave checkpoint_dir out.", "checkpoint_dir")
    if not body.job_uuid.strip() or len(body.job_uuid) > 200:
        raise invalid("A job needs a name of at most 200 characters.", "job_uuid")
    wanted = await prepare(stack, owner, body.model_dump())
    await jobs_of(stack).submit(KIND, owner, body.job_uuid, wanted)
    return JSONResponse({"job_uuid": body.job_uuid})


@_routes.post("/preference-optimize")
async def preference_optimize(request: Request) -> JSONResponse:
    del request
    raise not_implemented("Preference optimisation is not built yet; supervised fine-tuning is.")


@_routes.get("/jobs")
async def list_jobs(request: Request) -> JSONResponse:
    jobs = await jobs_of(stack_of(request)).list(KIND, caller_of(request).owner)
    return JSONResponse(listed([{"job_uuid": job["id"], "status": job["status"]} for job in jobs]))


@_routes.get("/job/status")
async def job_status(request: Request, job_uuid: str | None = None) -> JSONResponse:
    job = await _job(request, job_uuid)
    times = {name: job[name] for name in ("scheduled_at", "started_at", "completed_at")}
    answer = {"job_uuid": job["id"], "status": job["status"], "checkpoints": _checkpoints(job), **times}
    return JSONResponse(answer | {"resources_allocated": {"device": job["request"]["device"]}, "error": job["error"]})


@_routes.get("/job/artifacts")
async def job_artifacts(request: Request, job_uuid: str | None = None) -> JSONResponse:
    job = await _job(request, job_uuid)
    return JSONResponse({"job_uuid": job["id"], "checkpoints": _checkpoints(job)})


@_routes.get("/job/logs")
async def job_logs(request: Request, job_uuid: str | None = None) -> JSONResponse:
    """The last lines that the trainer wrote."""
    job = await _job(request, job_uuid)
    folder = jobs_of(stack_of(request)).folder_of(KIND, caller_of(request).owner, job["id"])
    return JSONResponse({"job_uuid": job["id"], "log_lines": (await run(read_log, folder)).splitlines()})


@_routes.post("/job/cancel")
async def cancel_job(request: Request, job_uuid: str | None = None, body: CancelBody | None = None) -> JSONResponse:
    id = job_uuid or (body.job_uuid if body else None)
    if id is None:
        raise invalid("Name the job to end: job_uuid.", "job_uuid")
    job = await jobs_of(stack_of(request)).cancel(KIND, caller_of(request).owner, id)
    return JSONResponse({"job_uuid": id, "status": job["status"]})


async def _job(request: Request, id: str | None) -> dict[str, Any]:
    """A job by its name; the newest where none is given, as one client forgot to send it."""
    jobs, owner = jobs_of(stack_of(request)), caller_of(request).owner
    if id is not None:
        return await jobs.get(KIND, owner, id)
    if not (every := await jobs.list(KIND, owner)):
        raise not_found("job", "", "job_uuid")
    return every[-1]


def _checkpoints(job: dict[str, Any]) -> list[dict[str, Any]]:
    """The one checkpoint of a finished job."""
    if job["status"] != "completed":
        return []
    result = job["result"]
    return [
        {
            "identifier": f"{job['id']}-sft",
            "created_at": job["completed_at"],
            "epoch": job["request"]["epochs"],
            "post_training_job_id": job["id"],
            "path": result["checkpoint"],
            "training_metrics": None,
            "metrics": result["metrics"],
        }
    ]


router = APIRouter()
for _prefix in ("/v1alpha", "/v1"):
    router.include_router(_routes, prefix=_prefix)
