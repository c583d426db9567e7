"""Bodies of tool groups and of the tool runtime."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from puna.stack.wire.base import Wire


class ToolGroupBody(Wire):
    """Registers a tool group."""

    toolgroup_id: str
    provider_id: str | None = None
    mcp_endpoint: dict[str, Any] | None = None
    args: dict[str, Any] | None = None


class RagQueryBody(Wire):
    """Looks for passages, as old clients ask for them."""

    content: str | dict[str, Any] | list[Any]
    vector_db_ids: list[str] = Field(min_length=1)
    query_config: dict[str, Any] | None = None


class InvokeBody(Wire):
    """Runs a tool."""

    tool_name: str
    kwargs: dict[str, Any]
