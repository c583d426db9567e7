"""A real server of tools, made with the reference implementation; as a program it speaks on its standard streams."""

from __future__ import annotations

import asyncio
import json
import os
from typing import Annotated, Any

from mcp.server.mcpserver import MCPServer
from mcp_types import CallToolResult, ImageContent, TextContent, ToolAnnotations
from pydantic import Field
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from puna.stack.responses.forms import replayed


class Watched:
    """An application, and what its requests brought.

    Attributes:
        app: with the server at "/mcp".
        url: once it listens.
        asked: (method of JSON-RPC, headers) of each request.
        ran: the names of the tools that ran, in order.
        cancelled: whether `wait` was given up.
    """

    def __init__(self, handshakes: bool = True, **options: Any) -> None:
        """Options are the reference implementation's; without `handshakes` it speaks the stateless way alone."""
        self.handshakes = handshakes
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.ran: list[str] = []
        self.cancelled = False
        self.url = ""
        self.app: ASGIApp = self._watch(make_server(self).streamable_http_app(**options))

    def methods(self) -> list[str]:
        return [method for method, _ in self.asked]

    def _watch(self, app: ASGIApp) -> ASGIApp:
        async def watched(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http":
                await app(scope, receive, send)
                return
            body, more = b"", True
            while more:
                message = await receive()
                body, more = body + message.get("body", b""), message.get("more_body", False)
            headers = {name.decode(): value.decode() for name, value in scope["headers"]}
            self.asked.append((json.loads(body)["method"] if body else scope["method"], headers))
            if self.asked[-1][0] == "initialize" and not self.handshakes:
                data = {"supported": ["2026-07-28"], "requested": "2025-11-25"}
                error = {"code": -32022, "message": "No handshakes here.", "data": data}
                refusal = {"jsonrpc": "2.0", "id": json.loads(body)["id"], "error": error}
                await JSONResponse(refusal, 400)(scope, receive, send)
                return
            await app(scope, replayed(body, receive), send)

        return watched


def make_server(watched: Watched | None = None) -> MCPServer:
    server = MCPServer("Llama farm", version="1.2")

    def note(name: str) -> None:
        if watched is not None:
            watched.ran.append(name)

    @server.tool(annotations=ToolAnnotations(read_only_hint=True))
    def count(herd: str) -> int:
        """Counts the llamas of a herd."""
        note("count")
        return len(herd)

    @server.tool()
    def shear(name: str) -> str:
        """Shears a llama."""
        note("shear")
        return f"{name} is shorn."

    @server.tool()
    def fail() -> CallToolResult:
        """Fails."""
        note("fail")
        return CallToolResult(content=[TextContent(type="text", text="The llama spat.")], is_error=True)

    @server.tool()
    def look() -> CallToolResult:
        """Shows a llama."""
        picture = ImageContent(type="image", data="AAAA", mime_type="image/png")
        return CallToolResult(content=[TextContent(type="text", text="A llama:"), picture])

    @server.tool()
    async def wait() -> str:
        """Waits."""
        note("wait")
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            if watched is not None:
                watched.cancelled = True
            raise
        return "late"

    @server.tool()
    def graze(meadow: Annotated[str, Field(json_schema_extra={"x-mcp-header": "Meadow"})]) -> str:
        """Sends the herd to a meadow."""
        return f"Grazing on {meadow}."

    @server.tool()
    def fill(length: int) -> str:
        """Says much."""
        return "x" * length

    @server.tool()
    def environment() -> list[str]:
        """The names of the variables."""
        return sorted(os.environ)

    return server


if __name__ == "__main__":
    make_server().run("stdio")
