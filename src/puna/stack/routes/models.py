"""Which models there are; and, for models on this machine, to give back their memory and to take them in again.

A model's id here is its provider's and its own with a slash between, and may hold more slashes. The paths that begin
with /v1/openai are those of Llama Stack's clients up to 0.2.
"""

from __future__ import annotations

from typing import Any, cast

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse

from puna.stack.context import Stack, stack_of
from puna.stack.errors import ApiError, invalid, not_implemented
from puna.stack.providers.provider import ModelInfo, Provider
from puna.stack.wire.base import listed
from puna.stack.wire.models import Model, ModelList, anthropic_json, model_json

router = APIRouter(tags=["models"])


async def find(stack: Stack, id: str, type: str = "llm") -> tuple[Provider, ModelInfo]:
    """`Stack.model`, after asking the providers once more where it is not known, or was still loading."""
    try:
        found = stack.model(id, type)
        if found[1].meta.get("status") != "loading":
            return found
    except ApiError as error:
        if error.status != 404:
            raise invalid(error.message, "model", "wrong_model_type") from None
    await stack.refresh_models()
    return stack.model(id, type)


@router.get("/v1/openai/v1/models", response_model=None, include_in_schema=False)
@router.get("/v1/models", response_model=None, responses={200: {"model": ModelList}})
async def list_models(request: Request) -> JSONResponse:
    stack = stack_of(request)
    models = await stack.refresh_models()
    return JSONResponse(listed([_shown(request, id, *pair) for id, pair in sorted(models.items())]))


def _shown(request: Request, id: str, provider: Provider, info: ModelInfo) -> dict[str, Any]:
    started = stack_of(request).started
    if "anthropic-version" in request.headers:
        return anthropic_json(id, info, started)
    return model_json(id, provider, info, started)


@router.get("/v1/models/{id:path}", response_model=None, responses={200: {"model": Model}})
async def get_model(request: Request, id: str) -> JSONResponse:
    stack = stack_of(request)
    try:
        provider, info = stack.model(id)
    except ApiError as error:
        if error.status == 404:
            await stack.refresh_models()
        provider, info = _of_any_type(stack, id)
    return JSONResponse(_shown(request, f"{provider.id}/{info.id}", provider, info))


def _of_any_type(stack: Stack, id: str) -> tuple[Provider, ModelInfo]:
    if id in stack.models:
        return stack.models[id]
    same = [pair for pair in stack.models.values() if pair[1].id == id]
    return same[0] if len(same) == 1 else stack.model(id)


@router.post("/v1alpha/admin/models/{id:path}/unload", response_model=None)
async def unload_model(request: Request, id: str) -> JSONResponse:
    """Lets a local model's requests finish, and gives its memory back; it stays known."""
    return await _switch(request, id, "unload")


@router.post("/v1alpha/admin/models/{id:path}/load", response_model=None)
async def load_model(request: Request, id: str) -> JSONResponse:
    """Takes a local model into memory again, in the background."""
    return await _switch(request, id, "load")


async def _switch(request: Request, id: str, verb: str) -> JSONResponse:
    stack = stack_of(request)
    provider, info = await find(stack, id)
    work = getattr(provider, verb, None)
    if work is None:
        raise not_implemented(f"The provider {provider.id!r} ({provider.type}) cannot {verb} its models.")
    await cast(Any, work)(info.id)
    await stack.refresh_models()
    provider, info = await find(stack, id)
    return JSONResponse(model_json(f"{provider.id}/{info.id}", provider, info, stack.started))
