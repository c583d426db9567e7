"""`Plan`: a request for a response, read whole and found possible, before anything is answered.

What can be refused is refused here, with a status and the field's name: unknown models and items, tools that are not
there, a conversation that does not fit into the model's context. Nothing is generated and nothing is written yet.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from puna.core.chat import Message
from puna.core.completion import SamplingParams
from puna.stack.context import Caller, Stack, new_id
from puna.stack.conversion import constraint_of, params_of
from puna.stack.errors import invalid
from puna.stack.mcp.service import mcp_of
from puna.stack.providers.provider import ModelInfo, Provider
from puna.stack.responses import records
from puna.stack.responses.attachments import read_attachments
from puna.stack.responses.fitting import fit, leading
from puna.stack.responses.items import Item, read_items
from puna.stack.responses.mcp_tools import Approval, McpServer, read_approvals
from puna.stack.responses.messages import messages_of
from puna.stack.responses.prompts import filled
from puna.stack.responses.search import require_vector_stores
from puna.stack.responses.shielding import Shielding, read_shields
from puna.stack.responses.tools import Tools, read_tools
from puna.stack.state.store import run
from puna.stack.wire.responses import CreateResponse, Prefix, Text

LOGPROBS = "message.output_text.logprobs"
INFER_ITERS = 10
_KEPT = ("item_reference", "file_search_call")  # items of which the server may know more than the client sent


@dataclass(slots=True)
class Plan:
    """Attributes:
    owner: whose response it is.
    key: the owner's own key for the provider.
    provider: asked.
    info: its model.
    response: the object as it is at the start.
    input: the items of this request.
    context: all items before the answer, those of this request among them.
    instructions: for this response alone; a kept prompt stands before them.
    dropped: how many messages at the front of the context (behind the system's) are left out to make it fit.
    tools: on offer; those of servers come to them when the response begins.
    approved: calls that the user has approved, to be made first.
    params: how to sample.
    include: what the client wants to see of items.
    infer_iters: how often the model may be asked.
    conversation: that the items are added to; "" for none.
    upto: the place of its last item.
    shielding: of what is read and said.
    """

    owner: str
    key: str
    provider: Provider
    info: ModelInfo
    response: dict[str, Any]
    input: list[Item]
    context: list[Item]
    instructions: str = ""
    dropped: int = 0
    tools: Tools = field(default_factory=Tools)
    approved: tuple[Approval, ...] = ()
    params: SamplingParams = field(default_factory=SamplingParams)
    include: tuple[str, ...] = ()
    infer_iters: int = INFER_ITERS
    conversation: str = ""
    upto: int = 0
    shielding: Shielding | None = None

    @property
    def id(self) -> str:
        return self.response["id"]

    def kept(self) -> records.Kept:
        return records.Kept(self.response, self.input, self.conversation, self.upto, self.include)

    @property
    def new(self) -> int:
        """Where among the messages those of this request begin."""
        before = self.context[: len(self.context) - len(self.input)]
        return max(len(messages_of(before, later=self.input)) + bool(self.instructions) - self.dropped, 0)

    def messages(self, output: Sequence[Item] = ()) -> list[Message]:
        """What the model reads before its next turn."""
        system = [Message("system", self.instructions)] if self.instructions else []
        every = [*system, *messages_of([*self.context, *output])]
        head = leading(every)
        return [*every[:head], *every[head + self.dropped :]]


async def make_plan(stack: Stack, caller: Caller, body: CreateResponse) -> Plan:
    """Reads a request.

    Raises:
        ApiError: it cannot be done.
    """
    if body.background and body.store is False:
        raise invalid("A response in the background must be stored: nobody could read it.", "store")
    provider, info = model_of(stack, body.model)
    tools = read_tools(body.tools, body.tool_choice, body.parallel_tool_calls is not False)
    if tools.search is not None:
        require_vector_stores(stack)
    for place, server in _named_servers(body.tools or (), tools):
        await mcp_of(stack).check(caller.owner, server.target, place)
    params = _params(body, tools)
    before, own, conversation, upto = await gather(stack, caller.owner, body)
    prompt = await run(filled, stack.store, caller.owner, body.prompt) if body.prompt else ""
    shielding = await read_shields(stack, caller.owner, body.shields, body.guardrails)
    plan = Plan(
        owner=caller.owner,
        key=caller.provider_keys.get(provider.id, ""),
        provider=provider,
        info=info,
        response=_object(body, f"{provider.id}/{info.id}", tools, params, conversation),
        input=own,
        context=[*before, *own],
        instructions="\n\n".join(filter(None, (prompt, body.instructions))),
        tools=tools,
        approved=read_approvals(before, own, tools.servers),
        params=params,
        include=tuple(body.include or ()),
        infer_iters=body.max_infer_iters or INFER_ITERS,
        conversation=conversation,
        upto=upto,
        shielding=shielding,
    )
    messages = plan.messages()
    if not messages:
        raise invalid("There is nothing to answer: give input.", "input", "missing")
    plan.dropped = await fit(
        provider, info, messages, tools.offer(True)[0], body.max_output_tokens, body.truncation == "auto"
    )
    return plan


def _named_servers(given: Sequence[Mapping[str, Any]], tools: Tools) -> list[tuple[str, McpServer]]:
    """The servers of tools with the fields that say where they are."""
    places = [i for i, tool in enumerate(given) if tool.get("type") == "mcp"]
    return [
        (f"tools.{i}.{'connector_id' if server.target.connector else 'server_url'}", server)
        for i, server in zip(places, tools.servers, strict=True)
    ]


def model_of(stack: Stack, id: str | None) -> tuple[Provider, ModelInfo]:
    """The model of a request; one that names none gets the only language model.

    Raises:
        ApiError: 404 for an unknown one, 400 where there is a choice and none was made.
    """
    if id:
        return stack.model(id)
    every = [pair for pair in stack.models.values() if pair[1].type == "llm"]
    if len(every) != 1:
        raise invalid(f"Name a model; this server has {len(every)} language models.", "model", "missing")
    return every[0]


async def gather(stack: Stack, owner: str, body: Prefix) -> tuple[list[Item], list[Item], str, int]:
    """The items before a request, those of it, the conversation's id, and the place of its last item."""
    named = body.conversation
    conversation = named.get("id") if isinstance(named, Mapping) else named
    if conversation is not None and not (isinstance(conversation, str) and conversation.startswith("conv_")):
        raise invalid("conversation must be an id (conv_...), or an object with an id.", "conversation")
    if conversation and body.previous_response_id:
        raise invalid("Give either previous_response_id or conversation.", "previous_response_id")
    own = read_items(body.input)
    await read_attachments(stack, owner, own)

    def read() -> tuple[list[Item], list[Item], int]:
        before: list[Item] = []
        upto = 0
        if conversation:
            before, upto = records.conversation_items(stack.store, owner, conversation)
        elif body.previous_response_id:
            before = records.chain(stack.store, owner, body.previous_response_id)
        return before, records.resolved(stack.store, owner, own, conversation or "", "input"), upto

    # Without history there is nothing to read: the common case saves a thread.
    if conversation or body.previous_response_id or any(item["type"] in _KEPT for item in own):
        before, own, upto = await run(read)
    else:
        before, upto = [], 0
    return before, own, conversation or "", upto


def _params(body: CreateResponse, tools: Tools) -> SamplingParams:
    wanted = bool(body.top_logprobs) or LOGPROBS in (body.include or ())
    values = {
        "temperature": body.temperature,
        "top_p": body.top_p,
        "presence_penalty": body.presence_penalty,
        "frequency_penalty": body.frequency_penalty,
        "seed": body.seed,
        "max_completion_tokens": body.max_output_tokens,
        "logprobs": wanted,
        "top_logprobs": body.top_logprobs if wanted else None,
    }
    return params_of(values, constraint_of(_format(body.text), "text.format"), tools.choice)


def _object(
    body: CreateResponse, model: str, tools: Tools, params: SamplingParams, conversation: str
) -> dict[str, Any]:
    """The response before its first event, with every field that the schema demands."""
    response = {
        "id": new_id("resp"),
        "object": "response",
        "created_at": int(time.time()),
        "completed_at": None,
        "status": "queued" if body.background else "in_progress",
        "background": bool(body.background),
        "error": None,
        "incomplete_details": None,
        "instructions": body.instructions,
        "model": body.model or model,
        "output": [],
        "previous_response_id": body.previous_response_id,
        "tools": tools.shown,
        "tool_choice": tools.shown_choice,
        "parallel_tool_calls": tools.parallel,
        "max_output_tokens": body.max_output_tokens,
        "max_tool_calls": body.max_tool_calls,
        "text": _shown_text(body.text),
        "temperature": params.temperature,
        "top_p": params.top_p,
        "presence_penalty": params.presence_penalty,
        "frequency_penalty": params.frequency_penalty,
        "top_logprobs": body.top_logprobs or 0,
        "reasoning": body.reasoning.model_dump() if body.reasoning else None,
        "truncation": body.truncation or "disabled",
        "store": body.store is not False,
        # There is one tier; the word is given back for clients that compare it.
        "service_tier": "default" if body.service_tier in (None, "auto") else body.service_tier,
        "metadata": body.metadata or {},
        "safety_identifier": body.safety_identifier,
        "prompt_cache_key": body.prompt_cache_key,
        "user": body.user,
        "usage": None,
    }
    if body.prompt:
        response["prompt"] = {"version": None, "variables": None, **body.prompt}
    if conversation:
        response["conversation"] = {"id": conversation}
    return response


def _format(text: Text | None) -> dict[str, Any]:
    """The form of the answer; one with a schema alone is a JSON schema.

    Raises:
        ApiError: 400 for a field of the wrong type.
    """
    form = (text.format if text else None) or {"type": "text"}
    if "schema" in form:
        form = {"type": "json_schema", **form}
    for name, kind in (("name", str), ("description", str), ("strict", bool)):
        if form.get(name) is not None and not isinstance(form[name], kind):
            raise invalid(f"{name} is {form[name]!r}.", f"text.format.{name}")
    return form


def _shown_text(text: Text | None) -> dict[str, Any]:
    form = _format(text)
    if form["type"] == "json_schema":
        inner = form["json_schema"] if isinstance(form.get("json_schema"), Mapping) else form
        names = ("name", "description", "schema")
        form = {"type": "json_schema", **{name: inner.get(name) for name in names}, "strict": bool(inner.get("strict"))}
        form["name"] = form["name"] or "response"
    else:
        form = {"type": form["type"]}
    return {"format": form, **({"verbosity": text.verbosity} if text and text.verbosity else {})}
