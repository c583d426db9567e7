"""Tools that this server runs itself: harmless ones that are built in, and those of the entry points `puna.tools`.

A tool group is a name under which an agent gets several tools, with arguments that the model does not choose, such as
the stores that a search may look in. Tools of other servers (MCP) cannot be run yet, and registering one says so.
"""

from __future__ import annotations

import asyncio
import datetime
import zoneinfo
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from puna.base.errors import InputError, PunaError
from puna.base.registry import Registry
from puna.core.chat import ToolSpec
from puna.core.protocols import Tool
from puna.stack.agents.arithmetic import evaluate
from puna.stack.context import Stack
from puna.stack.errors import ApiError, invalid, not_found, not_implemented
from puna.stack.jobs.resources import Resources
from puna.stack.state.store import run

ToolFactory = Callable[[], Tool]

TOOLS: Registry[ToolFactory] = Registry("tool", "puna.tools")
SEARCH = "knowledge_search"
_SEARCHES = (SEARCH, "file_search")
_SECONDS = 30.0
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
    """A tool that an agent may call, and the arguments that its group fixes."""

    spec: ToolSpec
    group: str
    args: Mapping[str, Any] = field(default_factory=dict)


class Tools:
    """Args:
    stack: the server's parts; `parts["vector_stores"]` is what searches look in.
    seconds: that a tool may take.
    """

    def __init__(self, stack: Stack, seconds: float = _SECONDS) -> None:
        self._stack, self._seconds = stack, seconds
        self.groups = Resources(stack, "tool_group", {id: _group(id, id, None) for id in self._members()})

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
        if base not in self.groups.built_in:
            known = ", ".join(self.groups.built_in)
            raise invalid(f"A tool group is based on one of {known}, not on {base!r}.", "provider_id")
        return await self.groups.register(owner, id, _group(id, str(base), args))

    async def offers(self, owner: str, groups: Sequence[Any]) -> dict[str, Offer]:
        """The tools of groups ("group", "group/tool" or {"name", "args"}), by name."""
        found: dict[str, Offer] = {}
        for entry in groups:
            name, args = (entry, {}) if isinstance(entry, str) else (entry["name"], entry.get("args") or {})
            group, _, only = name.partition("/")
            data = await self.groups.get(owner, group, "toolgroups")
            fixed = {**(data["args"] or {}), **args}
            specs = {spec.name: spec for spec in self._members()[data["provider_resource_id"]]}
            if only and only not in specs:
                raise not_found("tool", name, "toolgroups")
            found |= {spec.name: Offer(spec, group, fixed) for spec in specs.values() if only in ("", spec.name)}
        return found

    async def all(self, owner: str, group: str | None = None) -> dict[str, Offer]:
        """The tools of one group, or of all."""
        groups = [group] if group else [data["identifier"] for data in await self.groups.list(owner)]
        return await self.offers(owner, groups)

    async def invoke(self, owner: str, name: str, arguments: Mapping[str, Any]) -> ToolResult:
        """Runs a tool; what it refuses is a result, for the model to read.

        Raises:
            ApiError: 404 for an unknown tool.
        """
        if name not in _SEARCHES and name not in TOOLS:
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


def _group(id: str, base: str, args: Mapping[str, Any] | None) -> dict[str, Any]:
    data = {"identifier": id, "provider_id": "puna", "provider_resource_id": base, "type": "tool_group"}
    return data | {"args": dict(args) if args else None, "mcp_endpoint": None}


def tools_of(stack: Stack) -> Tools:
    """The server's tools, made when they are first asked for."""
    return stack.part("tools", Tools)
