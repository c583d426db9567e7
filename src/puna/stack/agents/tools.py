"""Tools that this server runs itself: harmless ones that are built in, and those of the entry points `puna.tools`.

A tool group is a name under which an agent gets several tools, with arguments that the model does not choose, such as
the stores that a search may look in. A group may be a server of tools (MCP): one that a client registers with its
address, or a connector of the settings, "mcp::NAME". What such a server lists is remembered for some minutes. Its
address is kept, and an authorization never is: it comes with the request.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
import time
import zoneinfo
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from puna.base.errors import InputError, PunaError
from puna.base.registry import Registry
from puna.core.chat import ToolSpec
from puna.core.protocols import Tool
from puna.stack.agents.arithmetic import evaluate
from puna.stack.context import Stack
from puna.stack.errors import ApiError, invalid, not_found, not_implemented
from puna.stack.jobs.resources import Resources
from puna.stack.mcp.protocol import McpError, RemoteTool, mapping, offered_name
from puna.stack.mcp.service import Target, headers_of, mcp_of, refusal_of
from puna.stack.state.store import run

_log = logging.getLogger(__name__)
ToolFactory = Callable[[], Tool]

TOOLS: Registry[ToolFactory] = Registry("tool", "puna.tools")
SEARCH = "knowledge_search"
_SEARCHES = (SEARCH, "file_search")
_SECONDS = 30.0
_MCP = "model-context-protocol"
_CONNECTOR = "connector:"
_LIST_SECONDS = 300.0
_RESULTS = 5


class Calculator:
    """Arithmetic."""

    spec = ToolSpec(
        "calculator",
        "Computes an arithmetic expression, such as (2 + 3) * sqrt(16).",
        {"type": "object", "properties": {"expression": {"type": "string"}}, "required": ["expression"]},
    )

    def __call__(self, arguments: Mapping[str, Any]) -> str:
        return evaluate(str(arguments["expression"]))


class CurrentTime:
    """The time now."""

    spec = ToolSpec(
        "current_time",
        "Gives the current date and time.",
        {
            "type": "object",
            "properties": {"timezone": {"type": "string", "description": "such as Europe/Berlin; UTC if left out"}},
            "required": [],
        },
    )

    def __call__(self, arguments: Mapping[str, Any]) -> str:
        name = str(arguments.get("timezone") or "UTC")
        try:
            zone = zoneinfo.ZoneInfo(name)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise InputError(f"There is no time zone {name!r}.") from error
        return datetime.datetime.now(zone).strftime("%A, %Y-%m-%d %H:%M:%S %Z")


TOOLS.add("calculator", Calculator)
TOOLS.add("current_time", CurrentTime)
_BUILT_IN = ("calculator", "current_time")

_SEARCH_SCHEMA = {
    "type": "object",
    "properties": {
        "query": {"type": "string", "description": "what to look for"},
        "vector_store_ids": {"type": "array", "items": {"type": "string"}, "description": "the stores to look in"},
    },
    "required": ["query"],
}


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a tool gave.

    Attributes:
        content: the text for the model.
        error: why there is none; "" for none.
        metadata: JSON values more.
    """

    content: str
    error: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Offer:
    """A tool that an agent may call.

    Attributes:
        spec: for the model.
        group: that it is of.
        args: that the group fixes.
        tool, target: as its server lists it, and where that is; None for one that runs here.
    """

    spec: ToolSpec
    group: str
    args: Mapping[str, Any] = field(default_factory=dict)
    tool: RemoteTool | None = None
    target: Target | None = None

    @property
    def provider(self) -> str:
        return _MCP if self.target else "puna"


class Tools:
    """Args:
    stack: the server's parts; `parts["vector_stores"]` is what searches look in.
    seconds: that a tool may take.
    """

    def __init__(self, stack: Stack, seconds: float = _SECONDS) -> None:
        self._stack, self._seconds = stack, seconds
        built_in = {id: _group(id, id, None) for id in self._members()}
        for name in mcp_of(stack).configured:
            built_in[f"mcp::{name}"] = _group(f"mcp::{name}", name, None, {"uri": f"{_CONNECTOR}{name}"})
        self.groups = Resources(stack, "tool_group", built_in)
        self._lists: dict[tuple[str, str], tuple[float, Sequence[RemoteTool]]] = {}

    @staticmethod
    def _members() -> dict[str, list[ToolSpec]]:
        """The tools of each built-in group."""
        about = "Searches the documents, and gives the passages that fit best with their sources."
        found = {
            "builtin::basics": [TOOLS.get(name)().spec for name in _BUILT_IN],
            "builtin::rag": [ToolSpec(SEARCH, about, _SEARCH_SCHEMA)],
            "builtin::file_search": [ToolSpec("file_search", about, _SEARCH_SCHEMA)],
        }
        if others := [name for name in TOOLS.names() if name not in _BUILT_IN]:
            found["builtin::plugins"] = [TOOLS.get(name)().spec for name in others]
        return found

    async def register(self, owner: str, id: str, base: str | None, args: Mapping[str, Any] | None) -> dict[str, Any]:
        """Keeps a group: another group's tools with arguments of its own."""
        if base not in self.groups.built_in or str(base).startswith("mcp::"):
            known = ", ".join(self.groups.built_in)
            raise invalid(f"A tool group is based on one of {known}, not on {base!r}.", "provider_id")
        return await self.groups.register(owner, id, _group(id, str(base), args))

    async def register_server(self, owner: str, id: str, uri: str, args: Mapping[str, Any] | None) -> dict[str, Any]:
        """Keeps a group that is a server of tools.

        Raises:
            ApiError: 400 for an address that cannot be, or may not be asked.
        """
        await mcp_of(self._stack).check(owner, Target(uri), "mcp_endpoint.uri")
        self._lists.pop((owner, id), None)
        return await self.groups.register(owner, id, _group(id, id, args, {"uri": uri}))

    async def offers(
        self, owner: str, groups: Sequence[Any], authorizations: Mapping[str, str] | None = None
    ) -> dict[str, Offer]:
        """The tools of groups ("group", "group/tool" or {"name", "args"}), by name.

        Args:
            owner: whose groups they are.
            groups: named.
            authorizations: for servers of tools, by their group.

        Raises:
            ApiError: 404 for an unknown group or tool, 502 for a server that gives no tools.
        """
        found: dict[str, Offer] = {}
        for entry in groups:
            found |= await self._of_group(owner, entry, authorizations or {}, found)
        return found

    async def check(self, owner: str, groups: Sequence[Any]) -> None:
        """Refuses groups and tools that are not there. Servers are not asked: they may need an authorization.

        Raises:
            ApiError: 404.
        """
        for entry in groups:
            name = entry if isinstance(entry, str) else entry["name"]
            data = await self.groups.get(owner, name.partition("/")[0], "toolgroups")
            if not data["mcp_endpoint"]:
                await self._of_group(owner, entry, {}, {})

    async def _of_group(
        self, owner: str, entry: Any, authorizations: Mapping[str, str], taken: Mapping[str, Offer]
    ) -> dict[str, Offer]:
        name, args = (entry, {}) if isinstance(entry, str) else (entry["name"], entry.get("args") or {})
        group, _, only = name.partition("/")
        data = await self.groups.get(owner, group, "toolgroups")
        fixed = {**(data["args"] or {}), **args}
        if data["mcp_endpoint"]:
            every = await self._remote(owner, data, fixed, authorizations.get(group, ""), taken)
            chosen = {key: offer for key, offer in every.items() if offer.tool and only in ("", offer.tool.name)}
        else:
            specs = self._members()[data["provider_resource_id"]]
            chosen = {spec.name: Offer(spec, group, fixed) for spec in specs if only in ("", spec.name)}
        if only and not chosen:
            raise not_found("tool", name, "toolgroups")
        return chosen

    async def _remote(
        self, owner: str, data: Mapping[str, Any], args: Mapping[str, Any], token: str, taken: Mapping[str, Offer]
    ) -> dict[str, Offer]:
        """The tools of a group that is a server, by the names that the model knows."""
        uri, group = data["mcp_endpoint"]["uri"], data["identifier"]
        headers = headers_of(None, token or None, "tool")
        connector = uri.removeprefix(_CONNECTOR) if uri.startswith(_CONNECTOR) else ""
        target = Target("" if connector else uri, connector, headers)
        offers: dict[str, Offer] = {}
        for tool in await self._listed(owner, group, target):
            name = offered_name(tool.name, group.removeprefix("mcp::"), {*offers, *taken})
            # What the group fixes is for those of its tools that have such an argument.
            fixed = {key: value for key, value in args.items() if key in mapping(tool.schema.get("properties"))}
            offers[name] = Offer(ToolSpec(name, tool.description, tool.schema), group, fixed, tool, target)
        return offers

    async def _listed(self, owner: str, group: str, target: Target) -> Sequence[RemoteTool]:
        """What a server lists: a list that was had without a secret is good for all of its group's owner."""
        key, now = (owner, group), time.monotonic()
        kept = self._lists.get(key)
        if kept and kept[0] > now and not target.headers:
            return kept[1]
        async with mcp_of(self._stack).session(owner, target) as session:
            try:
                tools = await session.list_tools()
            except McpError as error:
                raise refusal_of(error, f"The tool group {group!r}") from error
        if not target.headers:
            self._lists[key] = now + _LIST_SECONDS, tools
        return tools

    async def all(self, owner: str, group: str | None = None, authorization: str = "") -> dict[str, Offer]:
        """The tools of one group, or of all; of all those, a server that is away has none."""
        if group:
            return await self.offers(owner, [group], {group: authorization})
        found: dict[str, Offer] = {}
        for data in await self.groups.list(owner):
            try:
                found |= await self._of_group(owner, data["identifier"], {}, found)
            except ApiError as error:
                _log.warning("%s is left out: %s", data["identifier"], error.message)
        return found

    @staticmethod
    def is_local(name: str) -> bool:
        """Whether a tool runs here."""
        return name in _SEARCHES or name in TOOLS

    async def find(self, owner: str, name: str, group: str | None = None, authorization: str = "") -> Offer:
        """A tool by its name: in a group, or in any of the owner's.

        Raises:
            ApiError: 404 for an unknown tool.
        """
        found = (await self.all(owner, group, authorization)).get(name)
        if found is None:
            raise not_found("tool", name, "tool_name")
        if found.target and authorization:
            headers = headers_of(None, authorization, "authorization")
            return replace(found, target=replace(found.target, headers=headers))
        return found

    async def invoke(
        self, owner: str, name: str, arguments: Mapping[str, Any], offer: Offer | None = None
    ) -> ToolResult:
        """Runs a tool; what it refuses is a result, for the model to read.

        Args:
            owner: who asks.
            name: of the tool.
            arguments: for it.
            offer: that the name stands for; without one it is a tool that runs here.

        Raises:
            ApiError: 404 for an unknown tool.
        """
        if offer is not None and offer.tool is not None and offer.target is not None:
            return await self._invoke_remote(owner, offer.target, offer.tool, arguments)
        if not self.is_local(name):
            raise not_found("tool", name, "tool_name")
        try:
            if name in _SEARCHES:
                return await asyncio.wait_for(self._search(owner, arguments), self._seconds)
            tool = TOOLS.get(name)()
            _check(tool.spec, arguments)
            return ToolResult(await asyncio.wait_for(run(tool, arguments), self._seconds))
        except TimeoutError:
            return ToolResult("", f"The tool {name!r} did not answer within {self._seconds:g} s.")
        except (PunaError, ApiError) as error:
            return ToolResult("", error.message)
        except Exception as error:
            return ToolResult("", f"The tool {name!r} failed: {type(error).__name__}.")

    async def _invoke_remote(
        self, owner: str, target: Target, tool: RemoteTool, arguments: Mapping[str, Any]
    ) -> ToolResult:
        async with mcp_of(self._stack).session(owner, target) as session:
            try:
                result = await session.call(tool.name, arguments, tool)
            except McpError as error:
                return ToolResult("", error.message)
        if result.failed:
            return ToolResult("", result.text or f"The tool {tool.name!r} failed.")
        return ToolResult(result.text, metadata={"structured_content": result.structured} if result.structured else {})

    async def _search(self, owner: str, arguments: Mapping[str, Any]) -> ToolResult:
        stores = self._stack.parts.get("vector_stores")
        if stores is None:
            raise not_implemented("This server has no vector stores.")
        query = arguments.get("query")
        ids = arguments.get("vector_store_ids") or arguments.get("vector_db_ids") or []
        if not isinstance(query, str) or not query.strip():
            raise InputError("A search needs a query.")
        if not isinstance(ids, list) or not ids or not all(isinstance(id, str) for id in ids):
            raise InputError("A search needs the ids of the vector stores to look in: vector_store_ids.")
        limit = arguments.get("max_num_results") or _RESULTS
        if not isinstance(limit, int) or limit < 1:
            raise InputError(f"max_num_results is {limit!r}; it must be a whole number.")
        hits = await stores.search(owner, ids, [query], limit, arguments.get("filters"))
        passages = [f"[{number}] {hit['filename']}\n{hit['text']}" for number, hit in enumerate(hits, 1)]
        found = [{name: hit.get(name) for name in ("file_id", "filename", "score")} for hit in hits]
        return ToolResult("\n\n".join(passages) or "Nothing was found.", metadata={"results": found})


def _check(spec: ToolSpec, arguments: Mapping[str, Any]) -> None:
    properties = spec.parameters.get("properties", {})
    for name in spec.parameters.get("required", ()):
        if name not in arguments:
            raise InputError(f"The tool {spec.name!r} needs the argument {name!r}.")
    if unknown := [name for name in arguments if name not in properties]:
        raise InputError(f"The tool {spec.name!r} has no argument {unknown[0]!r}.")


def _group(
    id: str, base: str, args: Mapping[str, Any] | None, endpoint: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    provider = _MCP if endpoint else "puna"
    data = {"identifier": id, "provider_id": provider, "provider_resource_id": base, "type": "tool_group"}
    return data | {"args": dict(args) if args else None, "mcp_endpoint": endpoint and dict(endpoint)}


def tools_of(stack: Stack) -> Tools:
    """The server's tools, made when they are first asked for."""
    return stack.part("tools", Tools)
