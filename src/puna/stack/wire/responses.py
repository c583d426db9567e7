"""Bodies of the responses API: what `POST /v1/responses` and `POST /v1/responses/compact` take.

Fields that may be of several forms (`input`, `tool_choice`, `conversation`) are only described here; they are read by
`puna.stack.responses`, whose refusals name the place within. Answers are plain objects without a model: they grow event
by event.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, WithJsonSchema

from puna.stack.wire.base import Wire
from puna.stack.wire.items import CHOICE, CONVERSATION, FORMAT, INPUT, TOOL

Items = Annotated[Any, WithJsonSchema(INPUT)]
Tools = Annotated[list[dict[str, Any]], WithJsonSchema({"type": "array", "items": TOOL})]
Choice = Annotated[Any, WithJsonSchema(CHOICE)]
Named = Annotated[Any, WithJsonSchema(CONVERSATION)]
Metadata = Annotated[
    dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]], Field(max_length=16)
]


class Prefix(Wire):
    """What comes before an answer.

    Attributes:
        model: by the server's id; may be left out where the server has one language model alone.
        input: a text, which is a user's message, or items.
        instructions: a system message that is not carried over to the next response.
        previous_response_id: the kept response that this one goes on from.
        conversation: or the conversation, by its id.
        prompt_cache_key: given back as it is; what owners share is cached without it.
    """

    model: str | None = None
    input: Items = None
    instructions: str | None = None
    previous_response_id: str | None = None
    conversation: Named = None
    prompt_cache_key: Annotated[str, Field(max_length=64)] | None = None


class Text(Wire):
    """The form of the answer. No model here knows verbosity; it is given back as it is."""

    format: Annotated[dict[str, Any] | None, WithJsonSchema(FORMAT)] = None
    verbosity: Literal["low", "medium", "high"] | None = None


class Reasoning(Wire):
    """How much to think. No model here can be told; it is given back as it is."""

    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh"] | None = None
    summary: Literal["auto", "concise", "detailed"] | None = None


class CreateResponse(Prefix):
    """A request for an answer. What is not described here is OpenAI's.

    Attributes:
        background: answer at once with a queued response, and make it whether or not the client stays.
        max_infer_iters: how often the model may be asked within this response; our own, as in Llama Stack.
        max_tool_calls: calls of tools within this response; more are not made.
        seed: our own: the same seed gives the same answer.
        shields: our own: {"input": [...], "output": [...]}, names of shields.
        guardrails: Llama Stack's: shields for both; true for the owner's first.
    """

    tools: Tools | None = None
    tool_choice: Choice = None
    parallel_tool_calls: bool | None = None
    max_tool_calls: Annotated[int, Field(ge=1)] | None = None
    max_infer_iters: Annotated[int, Field(ge=1, le=100)] | None = None
    max_output_tokens: Annotated[int, Field(ge=16)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    seed: int | None = None
    text: Text | None = None
    reasoning: Reasoning | None = None
    truncation: Literal["auto", "disabled"] | None = None
    include: list[str] | None = None
    store: bool | None = None
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    background: bool | None = None
    metadata: Metadata | None = None
    service_tier: Literal["auto", "default", "flex", "priority"] | None = None
    user: str | None = None
    safety_identifier: Annotated[str, Field(max_length=64)] | None = None
    prompt: dict[str, Any] | None = None
    shields: dict[str, Any] | None = None
    guardrails: Any = None


class Compact(Prefix):
    """What is to be made shorter."""
