"""Items as the messages that a model reads. One way only: a chain of responses, a conversation, and the same items sent
again by a client give the same messages, and so the same prompt.

Calls that follow each other without a result between them were one turn of the model, and become one message.

Left out: reasoning (models here read none but their own of the same turn), and pictures: in their place stands a line
that says so, for a conversation that holds one can still be answered.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from puna.core.chat import Message, ToolCall
from puna.stack.errors import invalid
from puna.stack.responses.items import Item

FILE_SEARCH = "file_search"
_ROLES = {"developer": "system", "system": "system", "user": "user", "assistant": "assistant"}
_NO_PICTURE = "[A picture stands here. This model reads text alone.]"
_NO_VIDEO = "[A video stands here. This model reads text alone.]"
_WAITING = "This call waits for the user's approval. It was not made."
_DENIED = "The user did not approve this call. It was not made."
_NOTHING_FOUND = "Nothing was found."
_CITE = "Passages of the documents. After a statement name the passage that it is from by its number, such as [1]."


def messages_of(items: Sequence[Item], param: str = "input", later: Sequence[Item] = ()) -> list[Message]:
    """What a model reads.

    Args:
        items: to be read.
        param: the field that they came in, for refusals.
        later: items after them, which may say what became of a request for an approval.

    Raises:
        ApiError: 400, for a result whose call is not among the items.
    """
    messages: list[Message] = []
    names: dict[str, str] = {}
    said = [item for item in (*items, *later) if item["type"] == "mcp_approval_response"]
    approvals = {item["approval_request_id"]: item for item in said}
    for i, item in enumerate(items):
        type = item["type"]
        if type == "message":
            text = "".join(_text(part) for part in item["content"])
            messages.append(Message(_ROLES[item["role"]], text))  # type: ignore[arg-type]
        elif type == "function_call":
            names[item["call_id"]] = item["name"]
            _add_call(messages, ToolCall(item["name"], arguments_of(item["arguments"]), item["call_id"]))
        elif type == "function_call_output":
            messages.append(_result(item, names, f"{param}.{i}.call_id"))
        elif type == "file_search_call":
            call = ToolCall(FILE_SEARCH, {"query": "\n".join(item["queries"])}, item["id"])
            _add_call(messages, call)
            found = passages(item.get("_results") or ())
            messages.append(Message("tool", found, tool_call_id=item["id"], name=FILE_SEARCH))
        elif type == "mcp_call":
            _add_call(messages, ToolCall(item["name"], arguments_of(item["arguments"]), item["id"]))
            text = item["output"] if isinstance(item["output"], str) else f"Error: {_error(item['error'])}"
            messages.append(Message("tool", text, tool_call_id=item["id"], name=item["name"]))
        elif type == "mcp_approval_request":
            _add_request(messages, item, approvals.get(item["id"]))
        elif type == "compaction":
            messages.append(Message("system", f"What was said before, in short:\n{unpack(item, f'{param}.{i}')}"))
    return messages


def _add_call(messages: list[Message], call: ToolCall) -> None:
    if messages and messages[-1].role == "assistant":
        last = messages[-1]
        messages[-1] = replace(last, tool_calls=(*last.tool_calls, call), end_of_turn=False)
    else:
        messages.append(Message("assistant", "", (call,), end_of_turn=False))


def _add_request(messages: list[Message], item: Item, approval: Item | None) -> None:
    """A call that waits or was refused; one that was approved stands where it was made."""
    if approval is not None and approval["approve"]:
        return
    _add_call(messages, ToolCall(item["name"], arguments_of(item["arguments"]), item["id"]))
    reason = f" The reason: {approval['reason']}" if approval and approval["reason"] else ""
    text = _WAITING if approval is None else f"{_DENIED}{reason}"
    messages.append(Message("tool", text, tool_call_id=item["id"], name=item["name"]))


def _error(error: Any) -> str:
    """What went wrong with a call, of the forms that OpenAI has for it."""
    if not isinstance(error, Mapping):
        return str(error or "the call was not finished")
    content = error.get("content")
    parts = content if isinstance(content, list) else []
    texts = [str(part.get("text", "")) for part in parts if isinstance(part, Mapping)]
    return "\n".join(texts) or str(error.get("message") or "the tool failed")


def _result(item: Item, names: Mapping[str, str], place: str) -> Message:
    id, output = item["call_id"], item["output"]
    if id not in names:
        raise invalid(f"No function call {id!r} comes before this output.", place, "unknown_call_id")
    text = output if isinstance(output, str) else "".join(_text(part) for part in output)
    return Message("tool", text, tool_call_id=id, name=names[id])


def arguments_of(text: str) -> Mapping[str, Any]:
    """A call's arguments. What a model wrote badly, and a client sends again, is still shown to the model."""
    try:
        value = json.loads(text or "{}")
    except json.JSONDecodeError:
        value = text
    return value if isinstance(value, Mapping) else {"arguments": value}


def _text(part: Mapping[str, Any]) -> str:
    type = part["type"]
    if type == "refusal":
        return part["refusal"]
    if type == "input_image":
        return _NO_PICTURE
    if type == "input_video":
        return _NO_VIDEO
    if type == "input_file":
        return part.get("_text") or f"[The file {part.get('filename') or part.get('file_id') or 'here'} was not read.]"
    return part["text"]


def passages(results: Sequence[Mapping[str, Any]]) -> str:
    """What a search found, as a model reads it: numbered, so that it can name what it cites."""
    if not results:
        return _NOTHING_FOUND
    shown = [f"[{i}] {result['filename']}\n{result['text']}" for i, result in enumerate(results, start=1)]
    return "\n\n".join([_CITE, *shown])


def pack(summary: str) -> str:
    """The content of a compaction item. Encoded, not encrypted: it is for its owner, who knows what it says."""
    return base64.urlsafe_b64encode(json.dumps({"v": 1, "summary": summary}).encode()).decode()


def unpack(item: Item, place: str) -> str:
    try:
        data = json.loads(base64.b64decode(item["encrypted_content"], altchars=b"-_", validate=True))
    except (binascii.Error, ValueError):
        data = None
    if not isinstance(data, Mapping) or not isinstance(data.get("summary"), str):
        raise invalid("This compaction item is not of this server.", f"{place}.encrypted_content")
    return data["summary"]
