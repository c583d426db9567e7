"""The conversation nouns, in the shape of OpenAI's messages.

The same objects are fine-tuning data, the input of the chat format, the prompt of an engine, the memory of an
agent and the body of an API call, so `to_json` and `from_json` are exact inverses and lose nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from puna.base.errors import InputError, ToolCallError

Role = Literal["system", "user", "assistant", "tool"]
ROLES: tuple[str, ...] = get_args(Role)


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A model's request to run a tool.

    Attributes:
        name: the function's name.
        arguments: keyword arguments, JSON values.
        id: pairs the call with its result; "" where the format carries none.
    """

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    id: str = ""

    def to_json(self) -> dict[str, Any]:
        function = {"name": self.name, "arguments": json.dumps(self.arguments, ensure_ascii=False)}
        return {"id": self.id, "type": "function", "function": function}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ToolCall:
        """Reads OpenAI's form; `arguments` may be a JSON string (as on the wire) or already an object."""
        function, name = _named_function(data, "tool call")
        arguments = function.get("arguments", {})
        if isinstance(arguments, str):
            try:
                arguments = json.loads(arguments or "{}")
            except json.JSONDecodeError as error:
                raise ToolCallError(f"the arguments of tool call {name!r} are not JSON: {error}") from error
        if not isinstance(arguments, Mapping):
            raise ToolCallError(f"the arguments of tool call {name!r} are not an object: {arguments!r}")
        return cls(name=name, arguments=arguments, id=data.get("id") or "")


def _table(data: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(data, Mapping):
        raise InputError(f"a {what} is {data!r}; it must be an object")
    return data


def _named_function(data: Any, what: str) -> tuple[Mapping[str, Any], str]:
    """What OpenAI's form holds under "function", and the name there; the form without that level is read too."""
    table = _table(data, what)
    function = _table(table.get("function", table), what)
    name = function.get("name")
    if not isinstance(name, str) or not name:
        raise InputError(f"a {what} names no function: {data!r}")
    return function, name


@dataclass(frozen=True, slots=True)
class Message:
    """One turn.

    Attributes:
        role: who speaks; "tool" carries a tool's result.
        content: the text. "" where an assistant turn holds tool calls alone.
        tool_calls: calls made by this (assistant) turn.
        tool_call_id: for a tool's result, the call it answers.
        name: for a tool's result, the tool's name.
        end_of_turn: False where the speaker goes on after this message: an assistant turn that waits for a
            tool's result (Llama's `eom_id` in place of `eot_id`).
    """

    role: Role
    content: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""
    name: str = ""
    end_of_turn: bool = True

    def to_json(self) -> dict[str, Any]:
        data: dict[str, Any] = {"role": self.role, "content": self.content}
        if self.tool_calls:
            data["tool_calls"] = [call.to_json() for call in self.tool_calls]
        if self.tool_call_id:
            data["tool_call_id"] = self.tool_call_id
        if self.name:
            data["name"] = self.name
        if not self.end_of_turn:
            data["end_of_turn"] = False
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Message:
        role = _table(data, "message").get("role")
        if role not in ROLES:
            raise InputError(f"a message has role {role!r}; the roles are {', '.join(ROLES)}")
        content = data.get("content") or ""
        if not isinstance(content, str):
            content = _text_of_parts(content)
        return cls(
            role=role,
            content=content,
            tool_calls=tuple(ToolCall.from_json(call) for call in data.get("tool_calls") or ()),
            tool_call_id=data.get("tool_call_id") or "",
            name=data.get("name") or "",
            end_of_turn=data.get("end_of_turn", True),
        )


def _text_of_parts(parts: Any) -> str:
    """OpenAI's list form of a content: only text parts can be read by a text model."""
    if not isinstance(parts, Sequence):
        raise InputError(f"a message has content {parts!r}; it must be text or a list of parts")
    texts = []
    for part in parts:
        kind, text = _table(part, "message's part").get("type"), part.get("text")
        if kind != "text" or not isinstance(text, str):
            raise InputError(f"a message holds a part of type {kind!r}; only 'text' parts are supported")
        texts.append(text)
    return "".join(texts)


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """What a model is told of a tool.

    Attributes:
        name: the function's name; `brave_search`, `wolfram_alpha` and `code_interpreter` are Llama's built-ins.
        description: one or two sentences.
        parameters: JSON schema of the keyword arguments (an object schema).
    """

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=lambda: {"type": "object", "properties": {}})

    def to_json(self) -> dict[str, Any]:
        function = {"name": self.name, "description": self.description, "parameters": self.parameters}
        return {"type": "function", "function": function}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ToolSpec:
        function, name = _named_function(data, "tool")
        spec = {key: function[key] for key in ("description", "parameters") if function.get(key) is not None}
        return cls(name=name, **spec)


@dataclass(frozen=True, slots=True)
class Conversation:
    """Messages in order, the tools that were on offer, and what is known about where they came from.

    `meta` holds JSON values: for a conversation built from a document, the spans that its answers quote.
    """

    messages: tuple[Message, ...]
    tools: tuple[ToolSpec, ...] = ()
    meta: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {"messages": [message.to_json() for message in self.messages], **circumstances(self.tools, self.meta)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Conversation:
        messages = _table(data, "conversation").get("messages")
        if not isinstance(messages, Sequence) or isinstance(messages, str):
            raise InputError(f"a conversation has messages {messages!r}; it must have a list of them")
        return cls(
            messages=tuple(Message.from_json(message) for message in messages),
            tools=tuple(ToolSpec.from_json(tool) for tool in data.get("tools") or ()),
            meta=data.get("meta") or {},
        )


def circumstances(tools: Sequence[ToolSpec], meta: Mapping[str, Any]) -> dict[str, Any]:
    """What stands in JSON beside messages: the tools on offer and what is known of them, each where there is some."""
    data: dict[str, Any] = {"tools": [tool.to_json() for tool in tools]} if tools else {}
    return data | ({"meta": dict(meta)} if meta else {})
