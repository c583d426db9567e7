"""`Servers`: the servers of tools within one response, their lists, the calls, and the questions for approval.

A server is asked for its tools once in a conversation: a list that stands among the items already is used again, unless
it is of another server or lacks a tool that is wanted. A server that is away is no failure of the response: its list
has an error, and the model goes on without its tools.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from puna.core.chat import ToolCall
from puna.stack.context import Stack
from puna.stack.errors import ApiError
from puna.stack.mcp.protocol import McpError, RemoteTool, mapping, tool_of
from puna.stack.mcp.service import mcp_of
from puna.stack.mcp.session import Session
from puna.stack.responses.events import Event, Script
from puna.stack.responses.items import Item, item_id
from puna.stack.responses.mcp_tools import Approval, McpServer
from puna.stack.responses.messages import arguments_of
from puna.stack.responses.plan import Plan
from puna.stack.responses.tools import Offered


class Servers:
    """Args:
    stack: whose servers they are.
    plan: of the response; its tools grow by those of the servers.
    script: of the response.
    """

    def __init__(self, stack: Stack, plan: Plan, script: Script) -> None:
        self._mcp, self.plan, self.script = mcp_of(stack), plan, script
        self._sessions: dict[str, Session] = {}
        self._failed: list[str] = []

    async def prepare(self) -> AsyncGenerator[Event, None]:
        """Lists the tools, and runs the calls that were approved.

        Raises:
            ApiError: 424 where a tool must be called and its server gave none; 400 for a choice that names none.
        """
        offered: list[Offered] = []
        for server in self.plan.tools.servers if self.plan.tools.choice != "none" else ():
            item = self._known(server)
            if item is None:
                async for event in self._list(server):
                    yield event
                item = self.script.output[-1]
            tools = [tool for row in item["tools"] if (tool := _tool(row)) and server.allows(tool)]
            offered += [Offered(server, tool) for tool in tools]
        try:
            self.plan.tools = self.plan.tools.with_servers(offered)
        except ApiError as error:
            if not self._failed:
                raise
            away = f"{error.message} The servers {', '.join(self._failed)} gave no tools."
            raise ApiError(424, away, param=error.param, code="failed_dependency") from error
        for approval in self.plan.approved:
            async for event in self._approved(approval):
                yield event

    def _known(self, server: McpServer) -> Item | None:
        """The list of a server's tools that the conversation has."""
        names = server.allowed.names if server.allowed else None
        for item in reversed(self.plan.context):
            if item["type"] != "mcp_list_tools" or item["server_label"] != server.label:
                continue
            listed = {row.get("name") for row in item["tools"]}
            same = item.get("_server", server.fingerprint) == server.fingerprint
            # What was listed for a narrower filter may lack what is allowed now.
            whole = names <= listed if names is not None else not item.get("_filtered")
            return item if same and whole and not item.get("error") else None
        return None

    async def _list(self, server: McpServer) -> AsyncGenerator[Event, None]:
        item: Item = {"type": "mcp_list_tools", "id": item_id("mcp_list_tools"), "server_label": server.label}
        for event in self.script.begins({**item, "tools": [], "error": None}, "response.mcp_list_tools.in_progress"):
            yield event
        tools: list[RemoteTool] = []
        error = None
        try:
            tools = [tool for tool in await (await self._session(server)).list_tools() if server.allows(tool)]
        except (McpError, ApiError) as refusal:
            error = refusal.message
            self._failed.append(server.label)
        filtered = server.allowed is not None
        kept = {"tools": [_row(tool) for tool in tools], "error": error}
        whole = {**item, **kept, "_server": server.fingerprint, "_filtered": filtered}
        for event in self.script.ends(whole, f"response.mcp_list_tools.{'failed' if error else 'completed'}"):
            yield event

    async def _session(self, server: McpServer) -> Session:
        if server.label not in self._sessions:
            self._sessions[server.label] = await self._mcp.open(self.plan.owner, server.target)
        return self._sessions[server.label]

    # Calls ------------------------------------------------------------------------------------------------------------

    def has(self, name: str) -> bool:
        """Whether a call is of a server's tool."""
        return name in self.plan.tools.offered

    def asks(self, call: ToolCall) -> list[Event]:
        """The question whether a call may be made; nothing for one that needs no approval."""
        offered = self.plan.tools.offered[call.name]
        if not offered.server.needs_approval(offered.tool):
            return []
        item = self._item("mcp_approval_request", offered.server, offered.tool.name, call.arguments)
        return [*self.script.begins(item), *self.script.ends(item)]

    async def call(self, call: ToolCall) -> AsyncGenerator[Event, None]:
        """Makes a call of the model's."""
        offered = self.plan.tools.offered[call.name]
        item = self._item("mcp_call", offered.server, offered.tool.name, call.arguments)
        async for event in self._run(offered.server, offered.tool, {**item, "approval_request_id": None}):
            yield event

    async def _approved(self, approval: Approval) -> AsyncGenerator[Event, None]:
        request, server = approval.request, approval.server
        listed = [offered.tool for offered in self.plan.tools.offered.values() if offered.server is server]
        tool = next((tool for tool in listed if tool.name == request["name"]), RemoteTool(request["name"]))
        item = self._item("mcp_call", server, request["name"], arguments_of(request["arguments"]))
        async for event in self._run(server, tool, {**item, "approval_request_id": request["id"]}):
            yield event

    def _item(self, type: str, server: McpServer, name: str, arguments: Mapping[str, Any]) -> Item:
        said = json.dumps(arguments, ensure_ascii=False)
        return {"type": type, "id": item_id(type), "server_label": server.label, "name": name, "arguments": said}

    async def _run(self, server: McpServer, tool: RemoteTool, item: Item) -> AsyncGenerator[Event, None]:
        begun = {**item, "status": "in_progress", "output": None, "error": None}
        for event in self.script.begins({**begun, "arguments": ""}, "response.mcp_call.in_progress"):
            yield event
        arguments = item["arguments"]
        yield self.script.about(item, "response.mcp_call_arguments.delta", delta=arguments)
        yield self.script.about(item, "response.mcp_call_arguments.done", arguments=arguments)
        try:
            output, error = await self._answer(server, tool, arguments_of(arguments))
        except asyncio.CancelledError:
            # It may have been made all the same: who reads the response must see that.
            self.script.ends({**begun, "status": "incomplete"})
            raise
        status = "completed" if error is None else "failed"
        whole = {**begun, "status": status, "output": output, "error": error}
        for event in self.script.ends(whole, f"response.mcp_call.{status}"):
            yield event

    async def _answer(
        self, server: McpServer, tool: RemoteTool, arguments: Mapping[str, Any]
    ) -> tuple[str | None, dict[str, Any] | None]:
        """What a call gave, or an error in one of OpenAI's forms."""
        if not server.allows(tool):
            told = f"The tool {tool.name!r} is not among the allowed ones of {server.label!r}."
            return None, {"type": "mcp_protocol_error", "code": 0, "message": told}
        try:
            result = await (await self._session(server)).call(tool.name, arguments, tool)
        except McpError as error:
            type = "http_error" if error.http else "mcp_protocol_error"
            return None, {"type": type, "code": error.code, "message": error.message}
        if result.failed:
            content = [{"type": "text", "text": result.text or "The tool gives no reason."}]
            return None, {"type": "mcp_tool_execution_error", "content": content}
        return result.text, None

    async def close(self) -> None:
        """Takes leave of all servers."""
        sessions, self._sessions = self._sessions, {}
        for session in sessions.values():
            await self._mcp.leave(session)


def _row(tool: RemoteTool) -> dict[str, Any]:
    notes = None if tool.annotations is None else dict(tool.annotations)
    row = {"name": tool.name, "description": tool.description, "input_schema": dict(tool.schema)}
    return {**row, "annotations": notes}


def _tool(row: Any) -> RemoteTool | None:
    return tool_of({**mapping(row), "inputSchema": mapping(row).get("input_schema")})
