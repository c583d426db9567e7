"""The tool `mcp` of a request: which server, which of its tools, and which calls wait for the user's approval.

Where a request says nothing of approvals, every call waits for one, as at OpenAI. What is shown again of such a tool
has no headers and no authorization, and of an address its host alone, for the rest may hold a key.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from puna.stack.errors import invalid
from puna.stack.mcp.protocol import RemoteTool
from puna.stack.mcp.service import Target, headers_of, shown_url
from puna.stack.mcp.settings import check_url
from puna.stack.responses.items import Item

_LABEL = re.compile(r"[a-zA-Z0-9_.-]{1,64}")


@dataclass(frozen=True, slots=True)
class ToolFilter:
    """Some of a server's tools.

    Attributes:
        names: those; None for any.
        read_only: whether they must say that they change nothing, or must not; None for either.
    """

    names: frozenset[str] | None = None
    read_only: bool | None = None

    def matches(self, tool: RemoteTool) -> bool:
        return (self.names is None or tool.name in self.names) and self.read_only in (None, tool.read_only)


@dataclass(frozen=True, slots=True)
class McpServer:
    """A server of tools that a request names.

    Attributes:
        label: its name in this conversation.
        target: where it is.
        allowed: the tools that may be called; None for all.
        always: whose calls need an approval.
        never: whose do not.
        asks: whether those of neither need one.
    """

    label: str
    target: Target
    allowed: ToolFilter | None = None
    always: ToolFilter | None = None
    never: ToolFilter | None = None
    asks: bool = True

    def allows(self, tool: RemoteTool) -> bool:
        return self.allowed is None or self.allowed.matches(tool)

    def needs_approval(self, tool: RemoteTool) -> bool:
        if self.always is not None and self.always.matches(tool):
            return True
        if self.never is not None and self.never.matches(tool):
            return False
        return self.asks

    @property
    def fingerprint(self) -> str:
        """The same for the same server, without saying where it is."""
        place = f"{self.target.url}\n{self.target.connector}"
        return hashlib.sha256(place.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Approval:
    """A call that the user has approved.

    Attributes:
        request: the item that asked.
        server: to be asked.
    """

    request: Item
    server: McpServer


def read_server(tool: Mapping[str, Any], place: str) -> McpServer:
    """Reads a tool of the type `mcp`.

    Raises:
        ApiError: 400, with the place.
    """
    label, url, connector = (tool.get(name) for name in ("server_label", "server_url", "connector_id"))
    if not isinstance(label, str) or not _LABEL.fullmatch(label):
        raise invalid("server_label must be 1 to 64 letters, digits, '_', '-' or '.'.", f"{place}.server_label")
    if bool(url) == bool(connector):
        raise invalid(f"The server {label!r} needs either a server_url or a connector_id.", f"{place}.server_url")
    for name, value in (("server_url", url), ("connector_id", connector)):
        if value is not None and not isinstance(value, str):
            raise invalid(f"{name} must be a text.", f"{place}.{name}")
    if url:
        try:
            check_url(url, ValueError)
        except ValueError as error:
            raise invalid(str(error), f"{place}.server_url") from error
    target = Target(url or "", connector or "", headers_of(tool.get("headers"), tool.get("authorization"), place))
    allowed = tool.get("allowed_tools")
    always, never, asks = _approvals(tool.get("require_approval"), f"{place}.require_approval")
    return McpServer(
        label, target, None if allowed is None else _filter(allowed, f"{place}.allowed_tools"), always, never, asks
    )


def _approvals(given: Any, place: str) -> tuple[ToolFilter | None, ToolFilter | None, bool]:
    if given in (None, "always", "never"):
        return None, None, given != "never"
    if not isinstance(given, Mapping) or not set(given) <= {"always", "never"}:
        raise invalid("require_approval must be always, never, or an object of both with filters.", place)
    filters = (
        None if given.get(name) is None else _filter(given[name], f"{place}.{name}") for name in ("always", "never")
    )
    return (*filters, True)  # type: ignore[return-value]


def _filter(given: Any, place: str) -> ToolFilter:
    """A list of names, or an object with `tool_names` and `read_only`."""
    data = given if isinstance(given, Mapping) else {"tool_names": given}
    names, read_only = data.get("tool_names"), data.get("read_only")
    is_list = isinstance(names, Sequence) and not isinstance(names, str)
    if names is not None and not (is_list and all(isinstance(name, str) for name in names)):
        raise invalid("It must be a list of names of tools, or an object with tool_names or read_only.", place)
    if read_only is not None and not isinstance(read_only, bool):
        raise invalid("read_only must be true or false.", f"{place}.read_only")
    return ToolFilter(None if names is None else frozenset(names), read_only)


def shown_server(tool: Mapping[str, Any]) -> dict[str, Any]:
    """The tool as the response gives it back."""
    names = ("server_label", "server_description", "connector_id", "allowed_tools")
    shown = {"type": "mcp", **{name: tool[name] for name in names if tool.get(name) is not None}}
    if tool.get("server_url"):
        shown["server_url"] = shown_url(tool["server_url"])
    return {**shown, "require_approval": tool.get("require_approval") or "always", "headers": None}


def read_approvals(before: Sequence[Item], own: Sequence[Item], servers: Sequence[McpServer]) -> tuple[Approval, ...]:
    """The calls that a request approves, in the order of its words.

    Raises:
        ApiError: 400 for an answer to what was not asked, or was answered already, or whose server is not named again.
    """
    asked = {item["id"]: item for item in (*before, *own) if item["type"] == "mcp_approval_request"}
    done = {item["approval_request_id"] for item in before if item["type"] == "mcp_approval_response"}
    made = {item.get("approval_request_id") for item in own if item["type"] == "mcp_call"}
    by_label = {server.label: server for server in servers}
    found: list[Approval] = []
    for i, item in enumerate(own):
        if item["type"] != "mcp_approval_response":
            continue
        id, place = item["approval_request_id"], f"input.{i}.approval_request_id"
        if id not in asked:
            raise invalid(f"No approval {id!r} was asked for.", place, "unknown_approval_request")
        if id in done:
            raise invalid(f"The approval {id!r} was answered already.", place, "approval_answered")
        done.add(id)
        if not item["approve"] or id in made:
            continue
        label = asked[id]["server_label"]
        if label not in by_label:
            raise invalid(f"The approved call is of the server {label!r}, which is not among the tools.", "tools")
        found.append(Approval(asked[id], by_label[label]))
    return tuple(found)
