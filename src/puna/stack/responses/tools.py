"""The tools of a response: what the client named, what the model is told, and which calls are let through.

Tools that this server lacks are refused with 501, so that nobody waits for a search that never happens.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from puna.core.chat import ToolSpec
from puna.stack.conversion import choice_of, tools_of
from puna.stack.errors import ApiError, invalid, not_implemented
from puna.stack.mcp.protocol import RemoteTool, offered_name
from puna.stack.responses.mcp_tools import McpServer, read_server, shown_server
from puna.stack.responses.messages import FILE_SEARCH

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_ABSENT = ("web_search", "code_interpreter", "image_generation", "computer", "local_shell", "shell", "custom")
_KINDS = "function, file_search or mcp"
_SEARCH_SPEC = ToolSpec(
    FILE_SEARCH,
    "Searches the user's documents and gives passages of them.",
    {
        "type": "object",
        "properties": {"query": {"type": "string", "description": "What to look for, in full words."}},
        "required": ["query"],
    },
)


@dataclass(frozen=True, slots=True)
class FileSearch:
    """Where and how `file_search` looks.

    Attributes:
        stores: ids of vector stores.
        limit: the most passages of one search.
        filters: on the files' attributes.
        threshold: the lowest score that counts.
    """

    stores: tuple[str, ...]
    limit: int = 10
    filters: Mapping[str, Any] | None = None
    threshold: float = 0.0


@dataclass(frozen=True, slots=True)
class Offered:
    """Attributes:
    server: that runs it.
    tool: as it lists it.
    """

    server: McpServer
    tool: RemoteTool


@dataclass(frozen=True, slots=True)
class Tools:
    """Attributes:
    shown: as the response gives them back.
    shown_choice: `tool_choice`, likewise.
    specs: those that may be called.
    choice: for the model's first turn, as `SamplingParams.tool_choice` says it.
    parallel: whether one turn may hold several calls.
    search: of the tool `file_search`, if it is among them.
    servers: of tools; what they have is not known yet.
    offered: their tools by the names that the model knows, once they are known.
    first: the tools of which the first turn must call one, where the choice is "required"; empty for any.
    """

    shown: list[dict[str, Any]] = field(default_factory=list)
    shown_choice: Any = "auto"
    specs: tuple[ToolSpec, ...] = ()
    choice: str = "auto"
    parallel: bool = True
    search: FileSearch | None = None
    servers: tuple[McpServer, ...] = ()
    offered: Mapping[str, Offered] = field(default_factory=dict)
    first: frozenset[str] = frozenset()

    def with_servers(self, found: Sequence[Offered]) -> Tools:
        """These tools with those of the servers, and the choice among them all.

        Raises:
            ApiError: 400 for a choice that names none of them.
        """
        specs, offered = list(self.specs), dict[str, Offered]()
        for one in found:
            name = offered_name(one.tool.name, one.server.label, {spec.name for spec in specs})
            specs.append(ToolSpec(name, one.tool.description, one.tool.schema))
            offered[name] = one
        choice, first = _among(self.shown_choice, offered)
        word, allowed = choice_of(_plain(choice), specs)
        return replace(self, specs=allowed, choice=word, offered=offered, first=first)

    def offer(self, first: bool) -> tuple[tuple[ToolSpec, ...], str]:
        """What one turn of the model is offered: a choice that forces a call holds for the first turn alone."""
        if self.choice == "none":
            return (), "none"
        if not first or self.choice == "auto":
            return self.specs, "auto"
        if self.choice == "required":
            return tuple(spec for spec in self.specs if not self.first or spec.name in self.first), "required"
        return tuple(spec for spec in self.specs if spec.name == self.choice), self.choice


def read_tools(given: Sequence[Mapping[str, Any]] | None, choice: Any, parallel: bool) -> Tools:
    """The tools of a request.

    Raises:
        ApiError: 400 for a tool or a choice that cannot be read, 501 for tools that this server lacks.
    """
    specs: list[ToolSpec] = []
    shown: list[dict[str, Any]] = []
    search: FileSearch | None = None
    servers: list[McpServer] = []
    for i, tool in enumerate(given or ()):
        place, type = f"tools.{i}", tool.get("type")
        if type == "mcp":
            servers.append(_server(tool, place, servers))
            shown.append(shown_server(tool))
            continue
        if type == "function":
            spec = _function(tool, place)
            shown.append(_shown_function(tool))
        elif type == FILE_SEARCH:
            search, spec = _file_search(tool, place), _SEARCH_SPEC
            shown.append(_shown_search(tool))
        else:
            raise _no_tool(type, place)
        if any(spec.name == other.name for other in specs):
            raise invalid(f"Two tools are named {spec.name!r}.", place)
        specs.append(spec)
    if servers:
        _check_labels(choice, servers)
        # The choice is made when the tools are known.
        word = "none" if choice == "none" else "auto"
        return Tools(shown, _shown_choice(choice), tuple(specs), word, parallel, search, tuple(servers))
    word, allowed = choice_of(_plain(choice), specs)
    return Tools(shown, _shown_choice(choice), allowed, word, parallel, search)


def _no_tool(type: Any, place: str) -> ApiError:
    if isinstance(type, str) and type.startswith(_ABSENT):
        error = not_implemented(f"This server has no tool of type {type!r} yet; it has {_KINDS}.")
        error.param = f"{place}.type"
        return error
    return invalid(f"A tool has the type {json.dumps(type)}; it must be {_KINDS}.", f"{place}.type")


def _function(tool: Mapping[str, Any], place: str) -> ToolSpec:
    name = tool.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise invalid(
            f"A function's name is {json.dumps(name)}; it must be 1 to 64 letters, digits, '_' or '-'.", f"{place}.name"
        )
    for key, kind in (("description", str), ("strict", bool)):
        if tool.get(key) is not None and not isinstance(tool[key], kind):
            raise invalid(f"{key} of {name!r} is {tool[key]!r}.", f"{place}.{key}")
    parameters = tool.get("parameters")
    if parameters is not None and not isinstance(parameters, Mapping):
        raise invalid(f"The parameters of {name!r} must be a JSON schema.", f"{place}.parameters")
    return tools_of([tool], place)[0]


def _shown_function(tool: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "function", **{name: tool.get(name) for name in ("name", "description", "parameters", "strict")}}


def _file_search(tool: Mapping[str, Any], place: str) -> FileSearch:
    stores, limit = tool.get("vector_store_ids"), tool.get("max_num_results")
    if not isinstance(stores, Sequence) or isinstance(stores, str) or not stores:
        raise invalid("file_search needs a list of vector stores.", f"{place}.vector_store_ids")
    if limit is not None and (not isinstance(limit, int) or not 1 <= limit <= 50):
        raise invalid(f"max_num_results is {limit!r}; it must be 1 to 50.", f"{place}.max_num_results")
    ranking = tool.get("ranking_options")
    threshold = ranking.get("score_threshold") if isinstance(ranking, Mapping) else None
    if threshold is not None and not isinstance(threshold, (int, float)):
        raise invalid(
            f"score_threshold is {threshold!r}; it must be a number.", f"{place}.ranking_options.score_threshold"
        )
    filters = tool.get("filters")
    if filters is not None and not isinstance(filters, Mapping):
        raise invalid(f"filters is {filters!r}; it must be an object.", f"{place}.filters")
    return FileSearch(tuple(str(store) for store in stores), limit or 10, filters, threshold or 0.0)


def _shown_search(tool: Mapping[str, Any]) -> dict[str, Any]:
    names = ("vector_store_ids", "max_num_results", "filters", "ranking_options")
    return {"type": FILE_SEARCH, **{name: tool[name] for name in names if tool.get(name) is not None}}


def _server(tool: Mapping[str, Any], place: str, servers: Sequence[McpServer]) -> McpServer:
    server = read_server(tool, place)
    if any(server.label == other.label for other in servers):
        raise invalid(f"Two servers are labelled {server.label!r}.", f"{place}.server_label")
    return server


def _check_labels(choice: Any, servers: Sequence[McpServer]) -> None:
    """Refuses a choice of a server that is not there, before any is asked."""
    if isinstance(choice, Mapping):
        named = choice.get("tools") if choice.get("type") == "allowed_tools" else [choice]
        for entry in named if isinstance(named, list) else ():
            label = entry.get("server_label") if isinstance(entry, Mapping) and entry.get("type") == "mcp" else None
            if label is not None and all(server.label != label for server in servers):
                raise invalid(f"tool_choice names the server {label!r}, which is not among the tools.", "tool_choice")
    elif choice not in (None, "none", "auto", "required"):
        choice_of(choice, ())


def _among(choice: Any, offered: Mapping[str, Offered]) -> tuple[Any, frozenset[str]]:
    """A choice in which servers' tools are functions like any other, and those of the first turn.

    Raises:
        ApiError: 400 for a server that has no such tool.
    """
    if not isinstance(choice, Mapping):
        return choice, frozenset()
    if choice.get("type") == "mcp":
        names = _named(choice, offered)
        return ({"type": "function", "name": names[0]}, frozenset()) if choice.get("name") else (
            "required", frozenset(names)
        )  # fmt: skip
    if choice.get("type") == "allowed_tools":
        tools: list[Any] = []
        for entry in choice.get("tools") or ():
            is_mcp = isinstance(entry, Mapping) and entry.get("type") == "mcp"
            tools += [{"type": "function", "name": name} for name in _named(entry, offered)] if is_mcp else [entry]
        return {**choice, "tools": tools}, frozenset()
    return choice, frozenset()


def _named(entry: Mapping[str, Any], offered: Mapping[str, Offered]) -> list[str]:
    """What the model calls the tools of a server, or the one that is named."""
    label, name = entry.get("server_label"), entry.get("name")
    found = [key for key, one in offered.items() if one.server.label == label and name in (None, one.tool.name)]
    if not found:
        raise invalid(f"tool_choice names {name or 'tools'!r} of the server {label!r}; it has none.", "tool_choice")
    return found


def _plain(choice: Any) -> Any:
    """A choice in which `file_search` is a function like any other."""
    if not isinstance(choice, Mapping):
        return choice
    if choice.get("type") == FILE_SEARCH:
        return {"type": "function", "name": FILE_SEARCH}
    if isinstance(named := choice.get("tools"), Sequence) and not isinstance(named, str):
        return {**choice, "tools": [_plain(tool) for tool in named]}
    return choice


def _shown_choice(choice: Any) -> Any:
    if not isinstance(choice, Mapping):
        return choice or "auto"
    if choice.get("type") == "allowed_tools":
        return {"type": "allowed_tools", "mode": choice.get("mode") or "auto", "tools": list(choice.get("tools") or ())}
    return dict(choice)
