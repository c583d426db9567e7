"""The Llama Stack's forms of messages, calls, tools and sampling, to and from the nouns of `puna.core`.

Old and new clients differ: a call's arguments are an object beside `arguments_json` in the one and a JSON string in the
other; a tool's parameters are a list or a JSON schema. Reading takes all of them; `in_dialect` writes for either.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from puna.core.chat import Message, ToolCall, ToolSpec
from puna.core.completion import Constraint, SamplingParams
from puna.stack.errors import invalid, not_implemented

Dialect = Literal["v1", "v1alpha"]  # the prefix of the path tells which client speaks

_ROLES = {"user": "user", "system": "system", "assistant": "assistant", "tool": "tool", "ipython": "tool"}
_JSON_TYPES = {
    "str": "string",
    "int": "integer",
    "float": "number",
    "bool": "boolean",
    "list": "array",
    "dict": "object",
}
_MAX_TOKENS = 512


def text_of(content: Any, param: str = "messages") -> str:
    """The text of a content: text, a part, or a list of parts."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, Mapping):
        if content.get("type", "text") in ("text", "input_text", "output_text") and isinstance(
            content.get("text"), str
        ):
            return content["text"]
        raise invalid(f"A content of type {content.get('type')!r} cannot be read; send text.", param)
    if isinstance(content, Sequence):
        return "".join(text_of(part, param) for part in content)
    raise invalid(f"A content is {content!r}; it must be text or a list of parts.", param)


def message_from(data: Mapping[str, Any], param: str = "messages") -> Message:
    """Reads a message of the Llama Stack or of OpenAI."""
    said = data.get("role", "user")
    role = _ROLES.get(said) if isinstance(said, str) else None
    if role is None:
        raise invalid(f"A message has role {data.get('role')!r}; the roles are {', '.join(_ROLES)}.", param)
    text = text_of(data.get("content"), param)
    if data.get("context") is not None:
        text = f"{text}\n{text_of(data['context'], param)}"
    calls = tuple(call_from(call) for call in objects(data.get("tool_calls"), "tool_calls"))
    call_id = str(data.get("call_id") or data.get("tool_call_id") or "")
    name = str(data.get("tool_name") or data.get("name") or "")
    return Message(role, text, calls, call_id, name)  # type: ignore[arg-type]


def objects(value: Any, param: str) -> list[Mapping[str, Any]]:
    """A list of objects; none where there is no value.

    Raises:
        ApiError: 400 for anything else.
    """
    if not value:
        return []
    if not isinstance(value, list) or not all(isinstance(item, Mapping) for item in value):
        raise invalid(f"{param} must be a list of objects.", param)
    return value


def call_from(data: Mapping[str, Any]) -> ToolCall:
    if "function" in data:
        return ToolCall.from_json(data)
    arguments = data.get("arguments", {})
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}")
        except json.JSONDecodeError as error:
            raise invalid(f"The arguments of a tool call are not JSON: {error}.", "tool_calls") from error
    if not isinstance(arguments, Mapping) or not isinstance(data.get("tool_name"), str):
        raise invalid("A tool call needs a tool_name and an object of arguments.", "tool_calls")
    return ToolCall(data["tool_name"], arguments, str(data.get("call_id") or ""))


def call_to(call: ToolCall) -> dict[str, Any]:
    written = json.dumps(call.arguments, ensure_ascii=False)
    return {"call_id": call.id, "tool_name": call.name, "arguments": dict(call.arguments), "arguments_json": written}


def in_dialect(data: Any, dialect: Dialect) -> Any:
    """An answer with its calls as the client reads them: newer ones take the arguments as a JSON string."""
    if dialect == "v1":
        return data
    if isinstance(data, dict):
        if "arguments_json" in data and "tool_name" in data:
            return {"call_id": data["call_id"], "tool_name": data["tool_name"], "arguments": data["arguments_json"]}
        return {key: in_dialect(value, dialect) for key, value in data.items()}
    if isinstance(data, list):
        return [in_dialect(value, dialect) for value in data]
    return data


def completion_message(message: Message, stop_reason: str) -> dict[str, Any]:
    """An answer as `CompletionMessage`."""
    calls = [call_to(call) for call in message.tool_calls]
    return {"role": "assistant", "content": message.content, "stop_reason": stop_reason, "tool_calls": calls}


def params_from(
    data: Mapping[str, Any] | None, response_format: Mapping[str, Any] | None = None, tool_choice: str = "auto"
) -> SamplingParams:
    """`SamplingParams` of the Llama Stack: a strategy, or OpenAI's flat names."""
    data = data or {}
    fields: dict[str, Any] = {"max_tokens": data.get("max_tokens") or _MAX_TOKENS, "tool_choice": tool_choice}
    strategy = data.get("strategy") or {}
    if not isinstance(strategy, (str, Mapping)):
        raise invalid("A sampling strategy is an object with a type.", "sampling_params.strategy")
    kind = strategy if isinstance(strategy, str) else strategy.get("type")
    given = {} if isinstance(strategy, str) else strategy
    if kind is not None and not isinstance(kind, str):
        raise invalid("A sampling strategy has a type: greedy, top_p or top_k.", "sampling_params.strategy")
    if kind == "greedy":
        fields["temperature"] = 0.0
    elif kind == "top_p":
        fields |= {name: given[name] for name in ("temperature", "top_p") if given.get(name) is not None}
    elif kind == "top_k":
        fields |= {"top_k": given.get("top_k", 0), "temperature": given.get("temperature", 1.0), "top_p": 1.0}
    elif kind is not None:
        raise invalid(f"There is no sampling strategy {kind!r}: greedy, top_p or top_k.", "sampling_params.strategy")
    for name in ("temperature", "top_p", "top_k", "repetition_penalty", "seed"):
        if data.get(name) is not None and name not in fields:
            fields[name] = data[name]
    if fields.get("repetition_penalty") == 0:  # what old clients send for none
        fields["repetition_penalty"] = 1.0
    if stop := data.get("stop"):
        stops = [stop] if isinstance(stop, str) else stop
        if not isinstance(stops, list) or not all(isinstance(text, str) for text in stops):
            raise invalid("stop must be a list of texts.", "sampling_params.stop")
        fields["stop"] = tuple(stops)
    try:
        return SamplingParams(**fields, constraint=_constraint(response_format))
    except TypeError as error:
        raise invalid(f"The sampling parameters cannot be read: {error}.", "sampling_params") from error


def _constraint(data: Mapping[str, Any] | None) -> Constraint | None:
    if not data or data.get("type") in (None, "text"):
        return None
    if data.get("type") == "json_schema":
        schema = data.get("json_schema") or {}
        if not isinstance(schema, Mapping):
            raise invalid("json_schema must be an object.", "response_format.json_schema")
        return Constraint("json_schema", schema.get("schema", schema))
    raise not_implemented(f"Answers of the form {data.get('type')!r} cannot be asked for here; json_schema can.")


def tool_from(data: Mapping[str, Any]) -> ToolSpec:
    """A tool's definition, of whichever age."""
    if "function" in data:
        return ToolSpec.from_json(data)
    name = data.get("name")
    if not isinstance(name, str) or not name:
        raise invalid("A client tool needs a name.", "client_tools")
    schema = data.get("input_schema")
    if schema is None:
        schema = _schema(data.get("parameters") or [])
    if not isinstance(schema, Mapping):
        raise invalid(f"The input_schema of the tool {name!r} is no object.", "client_tools")
    return ToolSpec(name, str(data.get("description") or ""), schema)


def _schema(parameters: Any) -> Mapping[str, Any]:
    """The JSON schema of a list of parameters; an object is one already."""
    if isinstance(parameters, Mapping):
        return parameters
    properties, required = {}, []
    for parameter in objects(parameters, "client_tools.parameters"):
        kind = parameter.get("parameter_type", "string")
        if not isinstance(kind, str) or not isinstance(parameter.get("name"), str):
            raise invalid("A tool's parameter has a name and a type.", "client_tools.parameters")
        row: dict[str, Any] = {"type": _JSON_TYPES.get(kind, kind)}
        if parameter.get("description"):
            row["description"] = parameter["description"]
        properties[parameter["name"]] = row
        if parameter.get("required", True) and parameter.get("default") is None:
            required.append(parameter["name"])
    return {"type": "object", "properties": properties, "required": required}


def tool_to(spec: ToolSpec, group: str, provider: str = "puna") -> dict[str, Any]:
    """A tool as the clients list it: both ages' names, for none of them minds the other's."""
    properties = spec.parameters.get("properties", {})
    required = spec.parameters.get("required", ())
    return {
        "identifier": spec.name,
        "name": spec.name,
        "provider_id": provider,
        "provider_resource_id": spec.name,
        "toolgroup_id": group,
        "tool_host": "distribution",
        "type": "tool",
        "description": spec.description,
        "input_schema": spec.parameters,
        "parameters": [
            {
                "name": name,
                "parameter_type": str(row.get("type", "string")),
                "description": row.get("description", ""),
                "required": name in required,
            }
            for name, row in properties.items()
            if isinstance(row, Mapping)
        ],
        "metadata": {},
    }
