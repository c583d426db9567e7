"""Tool groups, tools, and tools run here: `/v1/toolgroups`, `/v1/tools` and `/v1/tool-runtime`."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from puna.stack.agents.llama import text_of, tool_to
from puna.stack.agents.tools import SEARCH, tools_of
from puna.stack.context import caller_of, stack_of
from puna.stack.errors import invalid, not_found, not_implemented
from puna.stack.wire.base import listed
from puna.stack.wire.tools import InvokeBody, RagQueryBody, ToolGroupBody

router = APIRouter(prefix="/v1", tags=["tools"])


@router.get("/toolgroups")
async def list_groups(request: Request) -> JSONResponse:
    return JSONResponse(listed(await tools_of(stack_of(request)).groups.list(caller_of(request).owner)))


@router.post("/toolgroups")
async def register_group(body: ToolGroupBody, request: Request) -> JSONResponse:
    if body.mcp_endpoint or body.provider_id in ("model-context-protocol", "mcp"):
        raise not_implemented("Tools of MCP servers cannot be run yet.")
    tools, owner = tools_of(stack_of(request)), caller_of(request).owner
    return JSONResponse(await tools.register(owner, body.toolgroup_id, body.provider_id, body.args))


@router.get("/toolgroups/{toolgroup_id:path}")
async def get_group(toolgroup_id: str, request: Request) -> JSONResponse:
    return JSONResponse(await tools_of(stack_of(request)).groups.get(caller_of(request).owner, toolgroup_id))


@router.delete("/toolgroups/{toolgroup_id:path}", status_code=204)
async def delete_group(toolgroup_id: str, request: Request) -> Response:
    await tools_of(stack_of(request)).groups.delete(caller_of(request).owner, toolgroup_id)
    return Response(status_code=204)


@router.get("/tools")
async def list_tools(request: Request, toolgroup_id: str | None = None) -> JSONResponse:
    offers = await tools_of(stack_of(request)).all(caller_of(request).owner, toolgroup_id)
    return JSONResponse(listed([tool_to(offer.spec, offer.group) for offer in offers.values()]))


@router.get("/tools/{tool_name:path}")
async def get_tool(tool_name: str, request: Request) -> JSONResponse:
    offers = await tools_of(stack_of(request)).all(caller_of(request).owner)
    if tool_name not in offers:
        raise not_found("tool", tool_name, "tool_name")
    return JSONResponse(tool_to(offers[tool_name].spec, offers[tool_name].group))


@router.get("/tool-runtime/list-tools")
async def list_runtime_tools(
    request: Request, tool_group_id: str | None = None, mcp_endpoint: str | None = None
) -> JSONResponse:
    if mcp_endpoint:
        raise not_implemented("Tools of MCP servers cannot be listed yet.")
    return await list_tools(request, tool_group_id)


@router.post("/tool-runtime/invoke")
async def invoke_tool(body: InvokeBody, request: Request) -> JSONResponse:
    """Runs a tool; what the tool itself refuses is an answer with an error message."""
    result = await tools_of(stack_of(request)).invoke(caller_of(request).owner, body.tool_name, body.kwargs)
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
