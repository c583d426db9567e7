"""OpenAI's bodies as Puna's nouns: messages, tools, what tool to call, the form of an answer, how to sample.

Both of OpenAI's spellings are read: that of chat, where a function stands within "function" and a schema within
"json_schema", and that of the responses API, where they are flat. Whatever cannot be done is refused, and the refusal
names the field. The way back, from an answer to JSON, is `puna.stack.wire.chat`.

Left out: pictures, sound and files inside of messages, which no model here can read, and the `functions` of 2023.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from puna.base.errors import ConfigError, InputError
from puna.core.chat import Message, ToolCall, ToolSpec
from puna.core.completion import (
    Completion,
    Constraint,
    Done,
    SamplingParams,
    StreamEvent,
    TextDelta,
    TokenLogprob,
    ToolCallDelta,
)
from puna.stack.errors import ApiError, invalid

T = TypeVar("T")
# `max_tokens` of a request that names no limit: an answer goes on to its end, or to that of the context.
OPEN_END = 1 << 20
_TEXT_PARTS = frozenset({"text", "input_text", "output_text"})
_ROLES = {"developer": "system", "system": "system", "user": "user", "assistant": "assistant", "tool": "tool"}


@dataclass(frozen=True, slots=True)
class NamedLogprob(TokenLogprob):
    """A token's probability with its bytes, for the wire gives texts; providers make them.

    Attributes:
        token: the chosen token's bytes.
        names: those of the alternatives, in their order.
    """

    token: bytes = b""
    names: tuple[bytes, ...] = ()


# Bodies in ------------------------------------------------------------------------------------------------------------


def messages_of(items: Sequence[Mapping[str, Any]], param: str = "messages") -> tuple[Message, ...]:
    """A conversation.

    Raises:
        ApiError: 400, for a message that cannot be read, with its place.
    """
    if not items:
        raise invalid("A conversation has at least one message.", param, "empty_array")
    messages: list[Message] = []
    names: dict[str, str] = {}  # of the calls so far, by their ids
    for i, item in enumerate(items):
        message = _message(item, names, f"{param}.{i}")
        names |= {call.id: call.name for call in message.tool_calls}
        messages.append(message)
    return tuple(messages)


def _message(item: Any, names: Mapping[str, str], place: str) -> Message:
    if not isinstance(item, Mapping):
        raise invalid(f"A message is {_shown(item)}; it must be an object.", place)
    given_role = item.get("role")
    role = _ROLES.get(given_role) if isinstance(given_role, str) else None
    if role is None:
        known = ", ".join(_ROLES)
        raise invalid(f"A message has the role {_shown(given_role)}; the roles are {known}.", f"{place}.role")
    content = content_of(item.get("content"), f"{place}.content")
    if role == "tool":
        id = item.get("tool_call_id")
        if not isinstance(id, str) or id not in names:
            raise invalid(
                f"A tool's message answers the call {id!r}; no assistant's message before it has a call of this id.",
                f"{place}.tool_call_id",
            )
        return Message("tool", content, tool_call_id=id, name=names[id])
    if role != "assistant":
        if not content and item.get("content") is None:
            raise invalid("A message has no content.", f"{place}.content", "missing")
        return Message(role, content)  # type: ignore[arg-type]
    content = content or content_of(item.get("refusal"), f"{place}.refusal")
    given = item.get("tool_calls") or ()
    if not isinstance(given, Sequence) or isinstance(given, str):
        raise invalid(f"The tool calls are {_shown(given)}; they must be a list.", f"{place}.tool_calls")
    calls = tuple(_read(ToolCall.from_json, call, f"{place}.tool_calls.{k}") for k, call in enumerate(given))
    if not calls and not content and item.get("content") is None:
        raise invalid("An assistant's message has neither content nor tool calls.", f"{place}.content", "missing")
    return Message("assistant", content, calls, end_of_turn=not calls)


def content_of(content: Any, param: str) -> str:
    """The text of a message's content: a text, or a list of parts, of which only texts can be read."""
    if content is None:
        return ""
    if isinstance(content, str):
        return _whole_text(content)
    if not isinstance(content, Sequence):
        raise invalid(f"A content is {_shown(content)}; it must be a text or a list of parts.", param)
    texts = []
    for k, part in enumerate(content):
        kind = part.get("type") if isinstance(part, Mapping) else None
        text = part.get("refusal" if kind == "refusal" else "text") if isinstance(part, Mapping) else None
        if kind not in _TEXT_PARTS and kind != "refusal":
            raise invalid(
                f"A part of type {kind!r} cannot be read: this server's models read text.",
                f"{param}.{k}.type",
                "unsupported_content",
            )
        if not isinstance(text, str):
            raise invalid(f"A part of type {kind!r} has no text.", f"{param}.{k}.text")
        texts.append(_whole_text(text))
    return "".join(texts)


def plain_json(value: Any) -> Any:
    """JSON as any database and any reader takes it: without halves of surrogate pairs, and null for NaN."""
    text = json.dumps(value, ensure_ascii=False).encode(errors="replace")
    return json.loads(text, parse_constant=lambda name: None)


def _whole_text(text: str) -> str:
    """Half of a surrogate pair, which JSON can spell and UTF-8 cannot, becomes a question mark."""
    return text if text.isascii() else text.encode(errors="replace").decode()


def tools_of(tools: Sequence[Mapping[str, Any]] | None, param: str = "tools") -> tuple[ToolSpec, ...]:
    """The functions on offer.

    Raises:
        ApiError: 400, for a tool of another type, or two of one name.
    """
    specs: list[ToolSpec] = []
    for i, tool in enumerate(tools or ()):
        if not isinstance(tool, Mapping):
            raise invalid(f"A tool is {_shown(tool)}; it must be an object.", f"{param}.{i}")
        if tool.get("type", "function") != "function":
            raise invalid(f"A tool has the type {tool.get('type')!r}; here it must be 'function'.", f"{param}.{i}.type")
        spec = _read(ToolSpec.from_json, tool, f"{param}.{i}")
        if not isinstance(spec.parameters, Mapping):
            raise invalid(f"The parameters of the tool {spec.name!r} are no JSON schema.", f"{param}.{i}")
        if any(spec.name == other.name for other in specs):
            raise invalid(f"Two tools are named {spec.name!r}.", f"{param}.{i}")
        specs.append(spec)
    return tuple(specs)


def choice_of(choice: Any, tools: Sequence[ToolSpec], param: str = "tool_choice") -> tuple[str, tuple[ToolSpec, ...]]:
    """What `SamplingParams.tool_choice` is to say, and the tools that may be called at all.

    Args:
        choice: "none", "auto", "required", a function by its name, or some of the tools ("allowed_tools").
        tools: on offer.
        param: the field's name, for refusals.
    """
    if choice is None:
        return "auto", tuple(tools)
    if choice in ("none", "auto", "required"):
        if choice == "required" and not tools:
            raise invalid("tool_choice is 'required', and there are no tools.", param)
        return choice, tuple(tools)
    if not isinstance(choice, Mapping):
        raise invalid(f"tool_choice is {_shown(choice)}; it must be none, auto, required, or an object.", param)
    if choice.get("type") == "allowed_tools":
        inner = choice.get("allowed_tools")
        return _allowed(inner if isinstance(inner, Mapping) else choice, tools, param)
    if choice.get("type") != "function":
        raise invalid(f"tool_choice has the type {choice.get('type')!r}; here it must be 'function'.", f"{param}.type")
    name = _offered(choice, tools, param).name
    if name in ("none", "auto", "required"):
        raise invalid(f"A tool of the name {name!r} cannot be forced; give it another name.", param)
    return name, tuple(tools)


def _allowed(choice: Mapping[str, Any], tools: Sequence[ToolSpec], param: str) -> tuple[str, tuple[ToolSpec, ...]]:
    mode, named = choice.get("mode") or "auto", choice.get("tools")
    if mode not in ("none", "auto", "required"):
        raise invalid(f"The mode is {_shown(mode)}; it must be auto or required.", f"{param}.mode")
    if not isinstance(named, Sequence) or isinstance(named, str) or not named:
        raise invalid("The allowed tools are a list of at least one.", f"{param}.tools")
    names = {_offered(tool, tools, f"{param}.tools.{i}").name for i, tool in enumerate(named)}
    return mode, tuple(tool for tool in tools if tool.name in names)


def _offered(choice: Any, tools: Sequence[ToolSpec], param: str) -> ToolSpec:
    inner = choice.get("function", choice) if isinstance(choice, Mapping) else {}
    name = inner.get("name") if isinstance(inner, Mapping) else None
    found = next((tool for tool in tools if tool.name == name), None)
    if found is None:
        known = ", ".join(tool.name for tool in tools) or "none"
        raise invalid(f"tool_choice names the tool {name!r}; on offer are: {known}.", param)
    return found


def constraint_of(form: Any, param: str = "response_format") -> Constraint | None:
    """The form that an answer is to have, by `response_format` (chat) or `text.format` (responses); None for any."""
    if form is None:
        return None
    kind = form.get("type") if isinstance(form, Mapping) else None
    if kind == "text":
        return None
    if kind == "json_object":
        return Constraint("json_schema", {"type": "object"})
    if kind != "json_schema":
        raise invalid(
            f"The format has the type {kind!r}; it must be text, json_object or json_schema.", f"{param}.type"
        )
    inner = form.get("json_schema", form)
    schema = inner.get("schema") if isinstance(inner, Mapping) else None
    if schema is None:
        schema = {"type": "object"}
    if not isinstance(schema, Mapping):
        raise invalid(f"The schema is {_shown(schema)}; it must be an object.", f"{param}.schema")
    return Constraint("json_schema", schema)


def structured_of(value: Any, param: str = "structured_outputs") -> Constraint | None:
    """vLLM's `structured_outputs`: one of "json", "regex", "choice", "grammar" (Lark's notation)."""
    if value is None:
        return None
    kinds = {"json": "json_schema", "regex": "regex", "choice": "choice", "grammar": "lark"}
    given = [name for name in kinds if isinstance(value, Mapping) and value.get(name) is not None]
    if len(given) != 1:
        raise invalid(f"It holds {given or 'nothing'}; it must hold one of {', '.join(kinds)}.", param)
    return Constraint(kinds[given[0]], value[given[0]])  # type: ignore[arg-type]


def params_of(
    values: Mapping[str, Any], constraint: Constraint | None = None, tool_choice: str = "auto"
) -> SamplingParams:
    """How to sample.

    What is not said is Llama's own setting (temperature 0.6, top_p 0.9), and an answer without a limit.

    Args:
        values: by the names of chat's body; None is the same as absent. The responses API's
            `max_output_tokens` is `max_completion_tokens` here, its `top_logprobs` needs `logprobs` beside it.
        constraint: the form of the answer.
        tool_choice: of `choice_of`.
    """
    given = {name: value for name, value in values.items() if value is not None}
    fields: dict[str, Any] = {name: given[name] for name in _SAME if name in given}
    if "top_p" in fields:
        fields["top_p"] = max(float(fields["top_p"]), 1e-6)  # 0 is allowed on the wire: the best token alone
    name = "max_completion_tokens" if "max_completion_tokens" in given else "max_tokens"
    fields["max_tokens"] = min(int(given.get(name, OPEN_END)), OPEN_END)
    if fields["max_tokens"] < 1:
        raise invalid(f"{name} is {given[name]}; it must be at least 1.", name)
    stop = given.get("stop", ())
    fields["stop"] = tuple(text for text in ((stop,) if isinstance(stop, str) else stop) if text)
    fields["logit_bias"] = _bias(given.get("logit_bias", {}))
    if given.get("logprobs"):
        fields["logprobs"] = int(given.get("top_logprobs", 0))
    elif given.get("top_logprobs"):
        raise invalid("top_logprobs is of use with logprobs: true alone.", "top_logprobs")
    try:
        return SamplingParams(**fields, constraint=constraint, tool_choice=tool_choice)
    except ConfigError as error:
        raise invalid(_line(error), next((word for word in str(error).split() if word in fields), None)) from error


_SAME = (
    *("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty"),
    *("seed", "n"),
)


def _bias(given: Mapping[str, Any]) -> dict[int, float]:
    try:
        bias = {int(id): float(value) for id, value in given.items()}
    except (TypeError, ValueError, AttributeError) as error:
        raise invalid("logit_bias maps token ids to numbers.", "logit_bias") from error
    if not all(abs(value) <= 100 and id >= 0 for id, value in bias.items()):
        raise invalid("logit_bias maps token ids to numbers from -100 to 100.", "logit_bias")
    return bias


def _read(reader: Callable[[Any], T], data: Any, place: str) -> T:
    try:
        return reader(data)
    except InputError as error:
        raise invalid(_line(error), place) from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def _shown(value: Any) -> str:
    return repr(value)[:80]


# Answers on their way -------------------------------------------------------------------------------------------------


async def settled(events: AsyncIterator[StreamEvent], parallel: bool = True) -> AsyncGenerator[StreamEvent, None]:
    """A provider's stream with an id for every tool call, the same where it comes and at the end.

    Args:
        events: of a provider; it is closed when this is.
        parallel: False keeps the first call alone.
    """
    calls: list[ToolCall] = []
    async with aclosing(events) as stream:  # type: ignore[type-var]
        async for event in stream:
            if isinstance(event, TextDelta):
                yield event
            elif isinstance(event, ToolCallDelta):
                if parallel or not calls:
                    calls.append(_with_id(event.call))
                    yield ToolCallDelta(calls[-1])
            else:
                yield Done(_with_calls(event.completion, calls, parallel))


def _with_calls(completion: Completion, calls: Sequence[ToolCall], parallel: bool) -> Completion:
    """The end of a stream, with the calls as they went out; one without deltas gets its ids here."""
    own = completion.message.tool_calls
    own = tuple(calls) if calls else tuple(_with_id(call) for call in (own if parallel else own[:1]))
    others = tuple(_with_calls(other, (), parallel) for other in completion.others)
    return replace(completion, message=replace(completion.message, tool_calls=own), others=others)


def _with_id(call: ToolCall) -> ToolCall:
    return call if call.id else replace(call, id=f"call_{secrets.token_hex(12)}")


async def whole(events: AsyncIterator[StreamEvent]) -> Completion:
    """The answer at a stream's end."""
    async with aclosing(events) as stream:  # type: ignore[type-var]
        async for event in stream:
            if isinstance(event, Done):
                return event.completion
    raise ApiError(502, "The model's answer broke off.", code="provider_error")
