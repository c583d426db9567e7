"""What is said in the Model Context Protocol: versions, errors, tools and their results, as they stand on the wire.

Two ages of the protocol live side by side. Up to 2025-11-25 a session begins with a handshake ("initialize") and may
have an id; from 2026-07-28 every request says for itself which version it speaks, and there are no sessions. Left out:
prompts, resources, sampling, roots, elicitation and tasks. This client only runs tools and says so, and a server may
not ask for more (https://modelcontextprotocol.io/specification).
"""

from __future__ import annotations

import base64
import itertools
import json
import re
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from puna.base.card import version
from puna.base.errors import RemoteError

Message = Mapping[str, Any]
LATEST = "2025-11-25"
VERSIONS = (LATEST, "2025-06-18", "2025-03-26", "2024-11-05")
STATELESS = "2026-07-28"
CLIENT = {"name": "puna", "version": version()}
METHOD_NOT_FOUND, UNSUPPORTED_VERSION = -32601, -32022
_META = "io.modelcontextprotocol/"
SERVER_INFO = _META + "serverInfo"
_LONGEST = 2000  # characters of a server's error that are passed on
_SAFE = re.compile(r"[\x20-\x7e]*")
_UNNAMED = re.compile(r"[^a-zA-Z0-9_-]")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


class McpError(RemoteError):
    """A server of tools that refuses, is away, or cannot be understood.

    Args:
        message: what happened.
        code: of JSON-RPC, or an HTTP status; 0 for neither.
        http: whether the code is an HTTP status.
    """

    def __init__(self, message: str, code: int = 0, http: bool = False, data: Any = None) -> None:
        super().__init__(message[:_LONGEST])
        self.code, self.http, self.data = code, http, data


class SessionGoneError(McpError):
    """The server does not know the session any more: it wants a new handshake."""


@dataclass(frozen=True, slots=True)
class RemoteTool:
    """A tool of a server.

    Attributes:
        name: on that server.
        description: for the model.
        schema: of the arguments.
        annotations: what the server says of its nature, such as {"readOnlyHint": true}; hints, not promises.
    """

    name: str
    description: str = ""
    schema: Mapping[str, Any] = field(default_factory=lambda: {"type": "object", "properties": {}})
    annotations: Mapping[str, Any] | None = None

    @property
    def read_only(self) -> bool:
        return bool((self.annotations or {}).get("readOnlyHint"))


@dataclass(frozen=True, slots=True)
class CallResult:
    """What a call gave.

    Attributes:
        content: its blocks, as they came.
        text: for a model.
        structured: its value where the tool has a schema for it.
        failed: whether the tool says that it could not do it.
    """

    content: Sequence[Mapping[str, Any]]
    text: str
    structured: Any = None
    failed: bool = False


def request(id: int, method: str, params: Mapping[str, Any], era: str) -> dict[str, Any]:
    """A request; one of the stateless age carries its version."""
    if era == STATELESS:
        meta = {"protocolVersion": era, "clientInfo": CLIENT, "clientCapabilities": {}}
        params = {**params, "_meta": {_META + name: value for name, value in meta.items()}}
    return {"jsonrpc": "2.0", "id": id, "method": method, **({"params": params} if params else {})}


def notification(method: str, params: Mapping[str, Any] | None = None) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "method": method, **({"params": params} if params else {})}


def headers_of(method: str, params: Mapping[str, Any], era: str, tool: RemoteTool | None) -> dict[str, str]:
    """HTTP's copy of a request, by which what lies between may route; the stateless age demands more of it."""
    headers = {"MCP-Protocol-Version": era} if era else {}
    if era == STATELESS:
        headers["Mcp-Method"] = method
        if method == "tools/call":
            headers["Mcp-Name"] = _header(params["name"])
            for path, name in _annotated(tool.schema if tool else {}):
                value = _at(params.get("arguments"), path)
                if isinstance(value, (str, int, float)):
                    text = str(value).lower() if isinstance(value, bool) else str(value)
                    headers[f"Mcp-Param-{name}"] = _header(text)
    return headers


def _header(text: str) -> str:
    """A text as the value of a header: what would not survive there goes as base64."""
    if _SAFE.fullmatch(text) and text == text.strip() and not text.startswith("=?base64?"):
        return text
    return f"=?base64?{base64.b64encode(text.encode()).decode()}?="


def _annotated(schema: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """The arguments that a tool wants in headers too ("x-mcp-header"), and the names there."""
    for name, row in mapping(mapping(schema).get("properties")).items():
        wanted = mapping(row).get("x-mcp-header")
        if isinstance(wanted, str) and _TOKEN.fullmatch(wanted):
            yield (*path, name), wanted
        yield from _annotated(row, (*path, name))


def _at(value: Any, path: Sequence[str]) -> Any:
    for key in path:
        value = mapping(value).get(key)
    return value


def mapping(value: Any) -> Mapping[str, Any]:
    """A value as an object; an empty one where it is none."""
    return value if isinstance(value, Mapping) else {}


def is_answer(message: Any) -> bool:
    return isinstance(message, Mapping) and "id" in message and ("result" in message or "error" in message)


def reply(message: Message) -> dict[str, Any] | None:
    """What a server is told that asks something itself; None where it wants no answer."""
    if "method" not in message or message.get("id") is None:
        return None
    if message["method"] == "ping":
        return {"jsonrpc": "2.0", "id": message["id"], "result": {}}
    error = {"code": METHOD_NOT_FOUND, "message": "This client runs tools, and does nothing else."}
    return {"jsonrpc": "2.0", "id": message["id"], "error": error}


def result_of(message: Message) -> Mapping[str, Any]:
    """What a request gave.

    Raises:
        McpError: the server refused it, or wants to know more first.
    """
    error = message.get("error")
    if isinstance(error, Mapping):
        code = error.get("code")
        told = str(error.get("message") or "the server gives no reason")
        raise McpError(told, code if isinstance(code, int) else 0, data=error.get("data"))
    result = message.get("result")
    if not isinstance(result, Mapping):
        raise McpError("The server's answer is no object.")
    if result.get("resultType") == "input_required":
        raise McpError("The server asks its user for more, which cannot be asked here.")
    return result


def tool_of(data: Any) -> RemoteTool | None:
    """A tool as a server lists it; None for one that cannot be called."""
    name = data.get("name") if isinstance(data, Mapping) else None
    if not isinstance(name, str) or not name:
        return None
    description, notes = data.get("description"), data.get("annotations")
    return RemoteTool(
        name,
        description if isinstance(description, str) else "",
        {"type": "object", "properties": {}, **mapping(data.get("inputSchema"))},
        dict(notes) if isinstance(notes, Mapping) else None,
    )


def offered_name(name: str, server: str, taken: Container[str]) -> str:
    """What a model calls a tool: its own name, as far as a function can have it, and the server's before it where
    another tool has that name.
    """
    plain = _UNNAMED.sub("_", name)[:64]
    if plain not in taken:
        return plain
    both = _UNNAMED.sub("_", f"{server}_{name}")[:60]
    return next(found for i in itertools.count(1) if (found := both if i == 1 else f"{both}_{i}") not in taken)


def call_result(result: Mapping[str, Any]) -> CallResult:
    """The result of a call; one without a text that has a structured value is that value."""
    blocks = result.get("content")
    content = [dict(block) for block in blocks if isinstance(block, Mapping)] if isinstance(blocks, list) else []
    structured = result.get("structuredContent")
    text = "\n".join(filter(None, map(_text, content)))
    if not text and structured is not None:
        text = json.dumps(structured, ensure_ascii=False)
    return CallResult(content, text, structured, result.get("isError") is True)


def _text(block: Mapping[str, Any]) -> str:
    type = block.get("type")
    if type == "text":
        return str(block.get("text") or "")
    if type == "resource":
        inner = mapping(block.get("resource"))
        return inner["text"] if isinstance(inner.get("text"), str) else f"[The file {inner.get('uri')} was not read.]"
    if type == "resource_link":
        return f"[A link: {block.get('name') or ''} {block.get('uri') or ''}]"
    return f"[Something of the type {type} ({block.get('mimeType') or 'unknown'}) stands here. Only text is read.]"
