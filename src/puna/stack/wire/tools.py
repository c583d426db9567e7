"""Bodies of tool groups and of the tool runtime."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from puna.stack.wire.base import Wire


class McpEndpoint(Wire):
    """Where a server of tools is."""

    uri: str


class ToolGroupBody(Wire):
    """Registers a tool group: another group's tools with arguments of its own, or a server of tools."""

    toolgroup_id: str
    provider_id: str | None = None
    mcp_endpoint: McpEndpoint | None = None
    args: dict[str, Any] | None = None


class RagQueryBody(Wire):
    """Looks for passages, as old clients ask for them."""

    content: str | dict[str, Any] | list[Any]
    vector_db_ids: list[str] = Field(min_length=1)
    query_config: dict[str, Any] | None = None


class InvokeBody(Wire):
    """Runs a tool.

    Attributes:
        tool_name: as `/v1/tools` names it.
        kwargs: its arguments.
        toolgroup_id: of the tool, where several have one of that name.
        authorization: for the server of tools that has it; for this request alone.
    """

    tool_name: str
    kwargs: dict[str, Any]
    toolgroup_id: str | None = None
    authorization: str | None = None
