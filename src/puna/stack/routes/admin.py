"""`/v1alpha/admin`: the same as `inspect`, where newer clients look for it. Its connectors are in `connectors`."""

from __future__ import annotations

from fastapi import APIRouter

from puna.stack.routes import inspect

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
