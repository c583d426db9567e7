"""Datasets and their rows: `/v1beta/datasets` and `/v1beta/datasetio`, and under `/v1` as older clients have them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import JSONResponse, Response

from puna.stack.context import caller_of, new_id, stack_of
from puna.stack.jobs.evaluation import datasets_of
from puna.stack.wire.base import listed
from puna.stack.wire.datasets import AppendBody, DatasetBody

_MOST_ROWS = 10_000
_routes = APIRouter(tags=["datasets"])


@_routes.get("/datasets")
async def list_datasets(request: Request) -> JSONResponse:
    return JSONResponse(listed(await datasets_of(stack_of(request)).list(caller_of(request).owner)))


@_routes.post("/datasets")
async def register_dataset(body: DatasetBody, request: Request) -> JSONResponse:
    datasets, owner = datasets_of(stack_of(request)), caller_of(request).owner
    source = body.source.model_dump(exclude_none=True)
    id = body.dataset_id or new_id("dataset")
    return JSONResponse(await datasets.register(owner, id, body.purpose, source, body.metadata or {}))


@_routes.get("/datasets/{dataset_id:path}")
async def get_dataset(dataset_id: str, request: Request) -> JSONResponse:
    return JSONResponse(await datasets_of(stack_of(request)).get(caller_of(request).owner, dataset_id))


@_routes.delete("/datasets/{dataset_id:path}", status_code=204)
async def delete_dataset(dataset_id: str, request: Request) -> Response:
    await datasets_of(stack_of(request)).delete(caller_of(request).owner, dataset_id)
    return Response(status_code=204)


@_routes.get("/datasetio/iterrows/{dataset_id:path}")
async def iterate_rows(
    dataset_id: str,
    request: Request,
    start_index: Annotated[int, Query(ge=0)] = 0,
    limit: Annotated[int, Query(ge=-1, le=_MOST_ROWS)] = 100,
) -> JSONResponse:
    """Rows from a number on; a limit of -1 gives as many as there may be in one answer."""
    datasets, owner = datasets_of(stack_of(request)), caller_of(request).owner
    rows, more = await datasets.page(owner, dataset_id, start_index, limit if limit > 0 else _MOST_ROWS)
    return JSONResponse({"data": rows, "has_more": more, "url": None})


@_routes.post("/datasetio/append-rows/{dataset_id:path}", status_code=204)
async def append_rows(dataset_id: str, body: AppendBody, request: Request) -> Response:
    await datasets_of(stack_of(request)).append(caller_of(request).owner, dataset_id, body.rows)
    return Response(status_code=204)


router = APIRouter()
for _prefix in ("/v1beta", "/v1"):
    router.include_router(_routes, prefix=_prefix)
