"""What the server is: `/v1/health`, `/v1/version`, `/v1/providers`, `/v1/inspect/routes`."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse

from puna.base.card import version
from puna.stack.context import stack_of
from puna.stack.errors import not_found
from puna.stack.jobs import health
from puna.stack.wire.admin import HealthInfo, ProviderInfo, ProviderList, RouteList, VersionInfo

router = APIRouter(prefix="/v1", tags=["inspect"])


@router.get("/health", response_model=None, responses={200: {"model": HealthInfo}, 503: {"model": HealthInfo}})
async def get_health(request: Request) -> JSONResponse:
    """Whether the server works; 503 where it cannot answer anything."""
    found = await health.health(stack_of(request))
    return JSONResponse(found, 200 if found["status"] == "OK" else 503)


@router.get("/version", response_model=None, responses={200: {"model": VersionInfo}})
async def get_version() -> JSONResponse:
    return JSONResponse({"version": version()})


@router.get("/providers", response_model=None, responses={200: {"model": ProviderList}})
async def list_providers(request: Request) -> JSONResponse:
    return JSONResponse({"data": await health.providers(stack_of(request))})


@router.get("/providers/{provider_id}", response_model=None, responses={200: {"model": ProviderInfo}})
async def get_provider(provider_id: str, request: Request) -> JSONResponse:
    for row in await health.providers(stack_of(request)):
        if row["provider_id"] == provider_id:
            return JSONResponse(row)
    raise not_found("provider", provider_id, "provider_id")


@router.get("/inspect/routes", response_model=None, responses={200: {"model": RouteList}})
async def list_routes(request: Request) -> JSONResponse:
    return JSONResponse({"data": health.routes(request.app.openapi(), stack_of(request))})
