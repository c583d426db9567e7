"""`/v1/synthetic-data-generation/generate`: dialogs answered by a model, judged and filtered."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse

from puna.stack.context import caller_of, stack_of
from puna.stack.jobs.synthesis import generate
from puna.stack.wire.post_training import GenerateBody

_routes = APIRouter(prefix="/synthetic-data-generation", tags=["synthetic data"])


@_routes.post("/generate")
async def generate_data(body: GenerateBody, request: Request) -> JSONResponse:
    caller = caller_of(request)
    return JSONResponse(await generate(stack_of(request), caller.owner, body.model_dump(), caller.provider_keys))


router = APIRouter()
for _prefix in ("/v1", "/v1alpha"):
    router.include_router(_routes, prefix=_prefix)
