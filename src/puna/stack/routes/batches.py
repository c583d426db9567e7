"""/v1/batches: many requests in one file, answered in the background."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import APIRouter, FastAPI, Query, Request
from starlette.responses import JSONResponse

from puna.stack.batches.lines import REQUIRED
from puna.stack.batches.records import BATCH, batch_object
from puna.stack.batches.service import Batches
from puna.stack.context import Stack, caller_of, stack_of
from puna.stack.errors import ApiError, invalid
from puna.stack.operation import keys
from puna.stack.state.store import run
from puna.stack.wire import batches as wire
from puna.stack.wire.base import listed


def batches_of(stack: Stack) -> Batches:
    return stack.parts["batches"]


@asynccontextmanager
async def _running(app: FastAPI) -> AsyncIterator[None]:
    stack: Stack = app.state.stack
    service = stack.parts["batches"] = Batches(stack, app)
    service.start()
    yield


router = APIRouter(prefix="/v1/batches", tags=["batches"], lifespan=_running)


@router.post("", response_model=None, responses={200: {"model": wire.Batch}})
async def create_batch(request: Request, body: wire.CreateBatch) -> JSONResponse:
    caller = caller_of(request)
    if body.endpoint not in REQUIRED:
        raise invalid(f"Invalid endpoint {body.endpoint!r}. Supported values: {', '.join(REQUIRED)}.", "endpoint")
    if not keys.allows(caller, body.endpoint):
        raise ApiError(403, f"The key is not for {keys.scope_of(body.endpoint)!r}.", code="insufficient_scope")
    settings = body.model_dump(include={"input_file_id", "endpoint", "completion_window", "metadata"})
    settings["output_seconds"] = body.output_expires_after.seconds if body.output_expires_after else None
    service = batches_of(stack_of(request))
    record = await run(service.records.create, caller, settings, body.idempotency_key or "")
    service.wake()
    return JSONResponse(batch_object(record))


@router.get("", response_model=None, responses={200: {"model": wire.BatchList}})
async def list_batches(
    request: Request, limit: Annotated[int, Query(ge=1, le=100)] = 20, after: str | None = None
) -> JSONResponse:
    page = await run(stack_of(request).store.list, BATCH, caller_of(request).owner, after=after, limit=limit)
    return JSONResponse(listed([batch_object(record) for record in page.records], page.has_more))


@router.get("/{batch_id}", response_model=None, responses={200: {"model": wire.Batch}})
async def get_batch(request: Request, batch_id: str) -> JSONResponse:
    service = batches_of(stack_of(request))
    return JSONResponse(batch_object(await run(service.records.get, caller_of(request).owner, batch_id)))


@router.post("/{batch_id}/cancel", response_model=None, responses={200: {"model": wire.Batch}})
async def cancel_batch(request: Request, batch_id: str) -> JSONResponse:
    service = batches_of(stack_of(request))
    return JSONResponse(batch_object(await run(service.records.cancel, caller_of(request).owner, batch_id)))
