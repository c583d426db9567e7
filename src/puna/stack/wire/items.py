"""JSON schemas of items, tools and choices, for the OpenAPI document alone: they are read by `puna.stack.responses`.

They describe what is taken in full, so that a client can be made from the document. Left out are the short forms that
are read as well.
"""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]
TEXT: Schema = {"type": "string"}
_ID: Schema = {"type": "string", "minLength": 1, "maxLength": 128, "pattern": "^[a-zA-Z0-9_-]+$"}
_NAME: Schema = {"type": "string", "minLength": 1, "maxLength": 64, "pattern": "^[a-zA-Z0-9_-]+$"}


def table(required: dict[str, Schema], optional: dict[str, Schema] | None = None) -> Schema:
    """An object with these fields; it may have others."""
    return {"type": "object", "properties": {**required, **(optional or {})}, "required": list(required)}


def one(*values: str) -> Schema:
    return {"type": "string", "enum": list(values)}


def listed(item: Schema, **limits: int) -> Schema:
    return {"type": "array", "items": item, **limits}


_PARTS = [
    table({"type": one("input_text", "text", "output_text", "summary_text", "reasoning_text"), "text": TEXT}),
    table({"type": one("refusal"), "refusal": TEXT}),
    table({"type": one("input_image")}, {"image_url": TEXT, "detail": one("low", "high", "auto")}),
    table({"type": one("input_file")}, {"filename": TEXT, "file_url": TEXT, "file_id": TEXT, "file_data": TEXT}),
]
CONTENT: Schema = {"anyOf": [TEXT, listed({"anyOf": _PARTS})]}
_STATUS = one("in_progress", "completed", "incomplete")
_COMMON: dict[str, Schema] = {"id": _ID, "status": _STATUS}
_TEXT_OR_NULL: Schema = {"type": ["string", "null"]}
_MCP_CALL: dict[str, Schema] = {"server_label": TEXT, "name": TEXT, "arguments": TEXT}
ITEM: Schema = {
    "anyOf": [
        table(
            {"type": one("message"), "role": one("user", "assistant", "system", "developer"), "content": CONTENT},
            _COMMON,
        ),
        table({"type": one("function_call"), "call_id": _ID, "name": _NAME, "arguments": TEXT}, _COMMON),
        table({"type": one("function_call_output"), "call_id": _ID, "output": CONTENT}, _COMMON),
        table({"type": one("reasoning"), "summary": listed({"anyOf": _PARTS[:1]})}, _COMMON),
        table({"type": one("compaction"), "encrypted_content": TEXT}, _COMMON),
        table({"type": one("file_search_call"), "queries": listed(TEXT)}, _COMMON),
        table(
            {"type": one("mcp_list_tools"), "server_label": TEXT, "tools": listed({"type": "object"})},
            {**_COMMON, "error": _TEXT_OR_NULL},
        ),
        table({"type": one("mcp_call"), **_MCP_CALL}, {"id": _ID, "output": _TEXT_OR_NULL, "error": {}}),
        table({"type": one("mcp_approval_request"), **_MCP_CALL}, {"id": _ID}),
        table(
            {"type": one("mcp_approval_response"), "approval_request_id": TEXT, "approve": {"type": "boolean"}},
            {"id": _ID, "reason": _TEXT_OR_NULL},
        ),
        table({"type": one("item_reference"), "id": _ID}),
    ]
}
INPUT: Schema = {"anyOf": [TEXT, listed(ITEM), {"type": "null"}]}
_FILTER: Schema = {
    "anyOf": [listed(TEXT), table({}, {"tool_names": listed(TEXT), "read_only": {"type": "boolean"}})],
}
_LABEL: Schema = {"type": "string", "pattern": "^[a-zA-Z0-9_.-]{1,64}$"}
_MCP: dict[str, Schema] = {
    "server_description": TEXT,
    "headers": {"type": "object", "additionalProperties": TEXT},
    "authorization": TEXT,
    "allowed_tools": _FILTER,
    "require_approval": {"anyOf": [one("always", "never"), table({}, {"always": _FILTER, "never": _FILTER})]},
}
TOOL: Schema = {
    "anyOf": [
        table(
            {"type": one("function"), "name": _NAME},
            {"description": TEXT, "parameters": {"type": "object"}, "strict": {"type": "boolean"}},
        ),
        table(
            {"type": one("file_search"), "vector_store_ids": listed(TEXT, minItems=1)},
            {
                "max_num_results": {"type": "integer", "minimum": 1, "maximum": 50},
                "filters": {"type": "object"},
                "ranking_options": table({}, {"score_threshold": {"type": "number"}}),
            },
        ),
        table({"type": one("mcp"), "server_label": _LABEL, "server_url": TEXT}, _MCP),
        table({"type": one("mcp"), "server_label": _LABEL, "connector_id": TEXT}, _MCP),
    ]
}
_NAMED: Schema = {
    "anyOf": [
        table({"type": one("function"), "name": _NAME}),
        table({"type": one("file_search")}),
        table({"type": one("mcp"), "server_label": TEXT}, {"name": TEXT}),
    ]
}
CHOICE: Schema = {
    "anyOf": [
        one("none", "auto", "required"),
        *_NAMED["anyOf"],
        table(
            {"type": one("allowed_tools"), "tools": listed(_NAMED, minItems=1)},
            {"mode": one("none", "auto", "required")},
        ),
        {"type": "null"},
    ]
}
CONVERSATION: Schema = {"anyOf": [TEXT, table({"id": TEXT}), {"type": "null"}]}
FORMAT: Schema = {
    "anyOf": [
        table({"type": one("text", "json_object")}),
        table(
            {"type": one("json_schema"), "name": TEXT, "schema": {"type": "object"}},
            {"description": TEXT, "strict": {"type": "boolean"}},
        ),
        {"type": "null"},
    ]
}
