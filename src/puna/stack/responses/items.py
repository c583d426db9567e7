"""Items: the pieces of a conversation on the wire, and how a client's are read.

An item that is kept has an id, a type, and all the fields that its schema demands. A key that begins with "_" is the
server's own knowledge of it (the passages that a search found, the text of an attached file); `public` leaves it out.

Left out: items of tools that this server does not have (computers, shells, pictures); they are refused by their type.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from puna.stack.context import new_id
from puna.stack.errors import invalid

Item = dict[str, Any]
ROLES = ("user", "assistant", "system", "developer")
SEARCH_RESULTS = "file_search_call.results"  # the word in `include` that shows what a search found
_PREFIXES = {
    "message": "msg",
    "function_call": "fc",
    "function_call_output": "fco",
    "reasoning": "rs",
    "compaction": "cmp",
    "file_search_call": "fs",
    "web_search_call": "ws",
    "mcp_list_tools": "mcpl",
    "mcp_call": "mcp",
    "mcp_approval_request": "mcpr",
    "mcp_approval_response": "mcpa",
}
_MCP_CALL = ("name", "arguments", "server_label")
_STATUSES = ("in_progress", "completed", "incomplete")


def item_id(type: str) -> str:
    return new_id(_PREFIXES.get(type, "item"))


def public(item: Item, include: Collection[str] = ()) -> Item:
    """An item as clients see it."""
    seen = {key: _seen(value) for key, value in item.items() if not key.startswith("_")}
    if item["type"] == "file_search_call":
        seen["results"] = item.get("_results") if SEARCH_RESULTS in include else None
    return seen


def _seen(value: Any) -> Any:
    """A list of parts without what only the server knows of them."""
    if not isinstance(value, list):
        return value
    return [
        {key: part[key] for key in part if not key.startswith("_")} if isinstance(part, dict) else part
        for part in value
    ]


def read_items(given: Any, param: str = "input") -> list[Item]:
    """A client's items with ids; a text is a user's message. References stay as they are.

    Raises:
        ApiError: 400, for what cannot be read, with its place.
    """
    if given is None:
        return []
    if isinstance(given, str):
        return [message("user", given)]
    if not isinstance(given, Sequence):
        raise invalid(f"{param} is {_shown(given)}; it must be a text or a list of items.", param)
    return [read_item(item, f"{param}.{i}") for i, item in enumerate(given)]


def message(role: str, text: str) -> Item:
    """A whole message."""
    part = output_text(text) if role == "assistant" else {"type": "input_text", "text": text}
    return {"type": "message", "id": item_id("message"), "status": "completed", "role": role, "content": [part]}


def output_text(
    text: str, annotations: Sequence[Mapping[str, Any]] = (), logprobs: Sequence[Mapping[str, Any]] = ()
) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": list(annotations), "logprobs": list(logprobs)}


def read_item(given: Any, place: str) -> Item:
    if not isinstance(given, Mapping):
        raise invalid(f"An item is {_shown(given)}; it must be an object.", place)
    type = given.get("type")
    if type is None:
        # The short forms: a message with a role, and a reference with nothing but an id.
        type = "message" if "role" in given else "item_reference" if set(given) == {"id"} else None
    reader = _READERS.get(type) if isinstance(type, str) else None
    if reader is None or type is None:
        raise invalid(f"An item has the type {_shown(type)}; known are {', '.join(sorted(_READERS))}.", f"{place}.type")
    id = given.get("id")
    if id is not None and (not isinstance(id, str) or not id or len(id) > 128 or "/" in id):
        raise invalid(f"{_shown(id)} is no item's id.", f"{place}.id")
    status = given.get("status")
    fields = {"type": type, "id": id or item_id(type), "status": status if status in _STATUSES else "completed"}
    return {**fields, **reader(given, place)}


# Readers: the fields of one type beside type, id and status. ---------------------------------------------------------


def _message(given: Mapping[str, Any], place: str) -> Item:
    role = given.get("role")
    if role not in ROLES:
        raise invalid(f"A message has the role {_shown(role)}; the roles are {', '.join(ROLES)}.", f"{place}.role")
    content = given.get("content")
    if isinstance(content, str):
        content = [{"type": "output_text" if role == "assistant" else "input_text", "text": content}]
    return {"role": role, "content": _parts(content, f"{place}.content")}


def _parts(content: Any, place: str) -> list[dict[str, Any]]:
    if not isinstance(content, Sequence) or isinstance(content, str):
        raise invalid(f"A content is {_shown(content)}; it must be a text or a list of parts.", place)
    return [_part(part, f"{place}.{i}") for i, part in enumerate(content)]


def _part(part: Any, place: str) -> dict[str, Any]:
    type = part.get("type") if isinstance(part, Mapping) else None
    if type in ("input_text", "text", "summary_text", "reasoning_text"):
        return {"type": type, "text": _text(part, "text", place)}
    if type == "output_text":
        annotations = [dict(note) for note in part.get("annotations") or () if isinstance(note, Mapping)]
        return output_text(_text(part, "text", place), annotations)
    if type == "refusal":
        return {"type": type, "refusal": _text(part, "refusal", place)}
    if type == "input_image":
        seen = {"type": type, "image_url": part.get("image_url"), "detail": part.get("detail") or "auto"}
        return {**seen, **_present(part, "file_id")}
    if type == "input_file":
        return {"type": type, **_present(part, "filename", "file_url", "file_data", "file_id")}
    if type == "input_video":
        return {"type": type, "video_url": _text(part, "video_url", place)}
    raise invalid(f"A part has the type {_shown(type)}; it must be input_text or the like.", f"{place}.type")


def _present(given: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: given[name] for name in names if isinstance(given.get(name), str)}


def _text(given: Mapping[str, Any], name: str, place: str) -> str:
    value = given.get(name)
    if not isinstance(value, str):
        raise invalid(f"{name} is {_shown(value)}; it must be a text.", f"{place}.{name}")
    return value


def _function_call(given: Mapping[str, Any], place: str) -> Item:
    return {name: _text(given, name, place) for name in ("call_id", "name", "arguments")}


def _function_call_output(given: Mapping[str, Any], place: str) -> Item:
    output = given.get("output")
    if not isinstance(output, str):
        output = _parts(output, f"{place}.output")
    return {"call_id": _text(given, "call_id", place), "output": output}


def _reasoning(given: Mapping[str, Any], place: str) -> Item:
    item: Item = {"summary": _parts(given.get("summary") or [], f"{place}.summary")}
    if given.get("content") is not None:
        item["content"] = _parts(given["content"], f"{place}.content")
    return {**item, **_present(given, "encrypted_content")}


def _compaction(given: Mapping[str, Any], place: str) -> Item:
    return {"encrypted_content": _text(given, "encrypted_content", place)}


def _file_search_call(given: Mapping[str, Any], place: str) -> Item:
    queries, results = given.get("queries"), given.get("results")
    if not isinstance(queries, list) or not all(isinstance(query, str) for query in queries):
        raise invalid(f"The queries are {_shown(queries)}; they must be a list of texts.", f"{place}.queries")
    item: Item = {"queries": list(queries)}
    if isinstance(results, Sequence) and not isinstance(results, str):
        item["_results"] = [dict(result) for result in results if isinstance(result, Mapping)]
    return item


def _mcp_call(given: Mapping[str, Any], place: str) -> Item:
    fields = {name: _text(given, name, place) for name in _MCP_CALL}
    output, error = given.get("output"), given.get("error")
    if output is not None and not isinstance(output, str):
        raise invalid(f"The output is {_shown(output)}; it must be a text.", f"{place}.output")
    status = {"status": "failed"} if error is not None else {}
    return {
        **fields,
        **status,
        "output": output,
        "error": error,
        "approval_request_id": given.get("approval_request_id"),
    }


def _mcp_list_tools(given: Mapping[str, Any], place: str) -> Item:
    tools = given.get("tools") or []
    if not isinstance(tools, list) or not all(isinstance(tool, Mapping) for tool in tools):
        raise invalid(f"The tools are {_shown(tools)}; they must be a list of objects.", f"{place}.tools")
    return {"server_label": _text(given, "server_label", place), "tools": tools, "error": given.get("error")}


def _mcp_approval_request(given: Mapping[str, Any], place: str) -> Item:
    return {name: _text(given, name, place) for name in _MCP_CALL}


def _mcp_approval_response(given: Mapping[str, Any], place: str) -> Item:
    if not isinstance(given.get("approve"), bool):
        raise invalid(f"approve is {_shown(given.get('approve'))}; it must be true or false.", f"{place}.approve")
    fields = {"approval_request_id": _text(given, "approval_request_id", place), "approve": given["approve"]}
    return {**fields, "reason": None, **_present(given, "reason")}


def _item_reference(given: Mapping[str, Any], place: str) -> Item:
    return {"id": _text(given, "id", place)}


def _web_search_call(given: Mapping[str, Any], place: str) -> Item:
    del place
    return {"action": given.get("action")}


_READERS: dict[str, Callable[[Mapping[str, Any], str], Item]] = {
    "message": _message,
    "function_call": _function_call,
    "function_call_output": _function_call_output,
    "reasoning": _reasoning,
    "compaction": _compaction,
    "file_search_call": _file_search_call,
    "mcp_call": _mcp_call,
    "mcp_list_tools": _mcp_list_tools,
    "mcp_approval_request": _mcp_approval_request,
    "mcp_approval_response": _mcp_approval_response,
    "web_search_call": _web_search_call,
    "item_reference": _item_reference,
}


def _shown(value: Any) -> str:
    return json.dumps(value, default=str)[:80]
