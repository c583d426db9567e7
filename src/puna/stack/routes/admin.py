"""`/v1alpha/admin`: the same as `inspect`, where newer clients look for it, and connectors, of which there are none."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import JSONResponse

from puna.stack.errors import not_found
from puna.stack.routes import inspect
from puna.stack.wire.base import listed

router = APIRouter(prefix="/v1alpha/admin", tags=["admin"])
_routes = {
    "/health": inspect.get_health,
    "/version": inspect.get_version,
    "/providers": inspect.list_providers,
    "/providers/{provider_id}": inspect.get_provider,
    "/inspect/routes": inspect.list_routes,
}
for _path, _answer in _routes.items():
    router.add_api_route(_path, _answer, methods=["GET"], response_model=None)


@router.get("/connectors")
async def list_connectors() -> JSONResponse:
    """Servers of tools (MCP) that were configured; none can be, yet."""
    return JSONResponse(listed([]))


@router.get("/connectors/{connector_id:path}")
async def get_connector(connector_id: str) -> JSONResponse:
    raise not_found("connector", connector_id, "connector_id")
