"""One whole answer of a model of this server, for judges, evaluations and data synthesis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import aclosing

from puna.core.chat import Message, ToolSpec
from puna.core.completion import Completion, Done, SamplingParams
from puna.stack.context import Stack
from puna.stack.errors import ApiError
from puna.stack.providers.provider import Ask


async def complete(
    stack: Stack,
    model: str,
    messages: Sequence[Message],
    params: SamplingParams | None = None,
    *,
    tools: Sequence[ToolSpec] = (),
    owner: str = "",
    keys: Mapping[str, str] | None = None,
) -> Completion:
    """Answers a conversation.

    Args:
        stack: the server's parts.
        model: by its id here.
        messages: the conversation.
        params: how to answer.
        tools: on offer.
        owner: whose request it is.
        keys: the caller's own keys by provider; a job has none, for they are not kept.

    Raises:
        ApiError: 404 for an unknown model, 502 for a provider that stops without an answer.
    """
    provider, info = stack.model(model)
    ask = Ask(
        info.id,
        tuple(messages),
        params or SamplingParams(),
        tuple(tools),
        owner=owner,
        key=(keys or {}).get(provider.id, ""),
    )
    async with aclosing(provider.stream(ask)) as events:  # type: ignore[type-var]
        async for event in events:
            if isinstance(event, Done):
                return event.completion
    raise ApiError(502, f"The provider {provider.id!r} ended without an answer.", code="provider_error")
