"""Connectors, at `/v1alpha/admin/connectors` for newer clients and `/v1beta/connectors` for older ones.

An `authorization` is for the one request that it comes with.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from starlette.responses import JSONResponse, Response

from puna.stack.context import caller_of, stack_of
from puna.stack.errors import not_found
from puna.stack.mcp.protocol import McpError, RemoteTool
from puna.stack.mcp.service import Target, headers_of, mcp_of, refusal_of
from puna.stack.wire.base import listed
from puna.stack.wire.connectors import Connector, ConnectorBody, ConnectorTool


@asynccontextmanager
async def _running(app: FastAPI) -> AsyncIterator[None]:
    yield
    await mcp_of(app.state.stack).stop()


router = APIRouter(tags=["connectors"], lifespan=_running)


async def list_connectors(request: Request) -> JSONResponse:
    """The connectors of the settings, and the caller's own."""
    rows = await mcp_of(stack_of(request)).connectors.list(caller_of(request).owner)
    return JSONResponse(listed(rows))


async def register_connector(body: ConnectorBody, request: Request) -> JSONResponse:
    """Registers a connector; one that the caller has under this id is replaced."""
    row = await mcp_of(stack_of(request)).register(
        caller_of(request).owner, body.connector_id, body.url, body.server_label or "", body.server_description or ""
    )
    return JSONResponse(row)


async def get_connector(connector_id: str, request: Request, authorization: str | None = None) -> JSONResponse:
    """A connector with what its server says of itself, where that answers."""
    mcp, owner = mcp_of(stack_of(request)), caller_of(request).owner
    row = await mcp.connectors.get(owner, connector_id, "connector_id")
    target = Target(connector=connector_id, headers=headers_of(None, authorization, "query"))
    async with mcp.session(owner, target) as session:
        try:
            await session.start()
            row = row | {f"server_{name}": session.server.get(name) for name in ("name", "version")}
        except McpError:
            return JSONResponse(row)
    return JSONResponse(row)


async def delete_connector(connector_id: str, request: Request) -> Response:
    await mcp_of(stack_of(request)).connectors.delete(caller_of(request).owner, connector_id)
    return Response(status_code=204)


async def _tools(request: Request, connector_id: str, authorization: str | None) -> list[dict[str, Any]]:
    mcp, owner = mcp_of(stack_of(request)), caller_of(request).owner
    target = Target(connector=connector_id, headers=headers_of(None, authorization, "query"))
    async with mcp.session(owner, target) as session:
        try:
            return [_shown(connector_id, tool) for tool in await session.list_tools()]
        except McpError as error:
            raise refusal_of(error, f"The connector {connector_id!r}") from error


async def list_connector_tools(connector_id: str, request: Request, authorization: str | None = None) -> JSONResponse:
    return JSONResponse(listed(await _tools(request, connector_id, authorization)))


async def get_connector_tool(
    connector_id: str, tool_name: str, request: Request, authorization: str | None = None
) -> JSONResponse:
    found = [tool for tool in await _tools(request, connector_id, authorization) if tool["name"] == tool_name]
    if not found:
        raise not_found("tool", tool_name, "tool_name")
    return JSONResponse(found[0])


def _shown(connector: str, tool: RemoteTool) -> dict[str, Any]:
    return {
        "toolgroup_id": f"mcp::{connector}",
        "name": tool.name,
        "description": tool.description,
        "input_schema": dict(tool.schema),
        "metadata": dict(tool.annotations or {}),
    }


_ROUTES = (
    ("GET", "", list_connectors, None),
    ("POST", "", register_connector, Connector),
    ("GET", "/{connector_id}", get_connector, Connector),
    ("DELETE", "/{connector_id}", delete_connector, None),
    ("GET", "/{connector_id}/tools", list_connector_tools, None),
    ("GET", "/{connector_id}/tools/{tool_name:path}", get_connector_tool, ConnectorTool),
)
for _prefix in ("/v1alpha/admin/connectors", "/v1beta/connectors"):
    for _method, _path, _answer, _model in _ROUTES:
        router.add_api_route(
            f"{_prefix}{_path}",
            _answer,
            methods=[_method],
            response_model=None,
            status_code=204 if _method == "DELETE" else 200,
            responses={200: {"model": _model}} if _model else None,
        )
