"""Tool groups, tools, and tools run here: `/v1/toolgroups`, `/v1/tools` and `/v1/tool-runtime`."""

from __future__ import annotations

import json

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from puna.core.chat import ToolSpec
from puna.stack.agents.llama import text_of, tool_to
from puna.stack.agents.tools import SEARCH, tools_of
from puna.stack.context import caller_of, stack_of
from puna.stack.errors import invalid, not_implemented
from puna.stack.mcp.protocol import McpError
from puna.stack.mcp.service import Target, headers_of, mcp_of, refusal_of
from puna.stack.wire.base import listed
from puna.stack.wire.tools import InvokeBody, RagQueryBody, ToolGroupBody

router = APIRouter(prefix="/v1", tags=["tools"])


@router.get("/toolgroups")
async def list_groups(request: Request) -> JSONResponse:
    return JSONResponse(listed(await tools_of(stack_of(request)).groups.list(caller_of(request).owner)))


@router.post("/toolgroups")
async def register_group(body: ToolGroupBody, request: Request) -> JSONResponse:
    tools, owner = tools_of(stack_of(request)), caller_of(request).owner
    if body.mcp_endpoint:
        return JSONResponse(await tools.register_server(owner, body.toolgroup_id, body.mcp_endpoint.uri, body.args))
    if body.provider_id in ("model-context-protocol", "mcp"):
        raise invalid('A server of tools needs mcp_endpoint: {"uri": "https://..."}.', "mcp_endpoint", "missing")
    return JSONResponse(await tools.register(owner, body.toolgroup_id, body.provider_id, body.args))


@router.get("/toolgroups/{toolgroup_id:path}")
async def get_group(toolgroup_id: str, request: Request) -> JSONResponse:
    return JSONResponse(await tools_of(stack_of(request)).groups.get(caller_of(request).owner, toolgroup_id))


@router.delete("/toolgroups/{toolgroup_id:path}", status_code=204)
async def delete_group(toolgroup_id: str, request: Request) -> Response:
    await tools_of(stack_of(request)).groups.delete(caller_of(request).owner, toolgroup_id)
    return Response(status_code=204)


@router.get("/tools")
async def list_tools(
    request: Request, toolgroup_id: str | None = None, authorization: str | None = None
) -> JSONResponse:
    """The tools of a group, or of all. An authorization is for the group's server, and for this request alone."""
    offers = await tools_of(stack_of(request)).all(caller_of(request).owner, toolgroup_id, authorization or "")
    return JSONResponse(listed([tool_to(offer.spec, offer.group, offer.provider) for offer in offers.values()]))


@router.get("/tools/{tool_name:path}")
async def get_tool(tool_name: str, request: Request) -> JSONResponse:
    offer = await tools_of(stack_of(request)).find(caller_of(request).owner, tool_name)
    return JSONResponse(tool_to(offer.spec, offer.group, offer.provider))


@router.get("/tool-runtime/list-tools")
async def list_runtime_tools(
    request: Request,
    tool_group_id: str | None = None,
    mcp_endpoint: str | None = None,
    authorization: str | None = None,
) -> JSONResponse:
    """The tools of a group, or of a server of tools that is no group."""
    if not mcp_endpoint:
        return await list_tools(request, tool_group_id, authorization)
    mcp, owner = mcp_of(stack_of(request)), caller_of(request).owner
    target = Target(_uri(mcp_endpoint), headers=headers_of(None, authorization, "query"))
    await mcp.check(owner, target, "mcp_endpoint")
    async with mcp.session(owner, target) as session:
        try:
            tools = await session.list_tools()
        except McpError as error:
            raise refusal_of(error, "The server of tools") from error
    specs = [ToolSpec(tool.name, tool.description, tool.schema) for tool in tools]
    return JSONResponse(listed([tool_to(spec, tool_group_id or "", "model-context-protocol") for spec in specs]))


def _uri(endpoint: str) -> str:
    """An address, or an object with one: older clients send {"uri": "..."} in the query."""
    try:
        data = json.loads(endpoint)
    except ValueError:
        return endpoint
    return str(data.get("uri", "")) if isinstance(data, dict) else endpoint


@router.post("/tool-runtime/invoke")
async def invoke_tool(body: InvokeBody, request: Request) -> JSONResponse:
    """Runs a tool; what the tool itself refuses is an answer with an error message."""
    tools, owner, token = tools_of(stack_of(request)), caller_of(request).owner, body.authorization or ""
    if tools.is_local(body.tool_name) and not body.toolgroup_id:
        result = await tools.invoke(owner, body.tool_name, body.kwargs)
    else:
        offer = await tools.find(owner, body.tool_name, body.toolgroup_id, token)
        result = await tools.invoke(owner, body.tool_name, {**body.kwargs, **offer.args}, offer)
    answer = {
        "content": result.content,
        "error_message": result.error or None,
        "error_code": 1 if result.error else None,
    }
    return JSONResponse(answer | {"metadata": dict(result.metadata)})


@router.post("/tool-runtime/rag-tool/query")
async def query_rag_tool(body: RagQueryBody, request: Request) -> JSONResponse:
    """The passages that fit best, as one content for a model."""
    limit = (body.query_config or {}).get("max_chunks")
    wanted = {"query": text_of(body.content, "content"), "vector_store_ids": body.vector_db_ids}
    given = wanted | ({"max_num_results": limit} if limit else {})
    result = await tools_of(stack_of(request)).invoke(caller_of(request).owner, SEARCH, given)
    if result.error:
        raise invalid(result.error, "vector_db_ids")
    content = [{"type": "text", "text": result.content}]
    return JSONResponse({"content": content, "metadata": dict(result.metadata)})


@router.post("/tool-runtime/rag-tool/insert")
async def insert_rag_tool(request: Request) -> JSONResponse:
    del request
    raise not_implemented(
        "Upload the document (/v1/files) and attach it to a vector store, or use /v1/vector-io/insert."
    )
