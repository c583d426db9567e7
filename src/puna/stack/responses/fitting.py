"""Whether a conversation fits into a model's context, and what to leave out of it where the client allows that.

What goes first is what was said first: whole turns, from one user's message to the next, so that no result loses its
call. The system's messages at the front stay, and so does the last turn; where those alone are too long, the request
is refused as it would be without truncation.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from puna.core.chat import Message, ToolSpec
from puna.stack.errors import ApiError
from puna.stack.providers.provider import ModelInfo, Provider

_ROOM = 256  # tokens that are kept for an answer whose length nobody named
# The most that a chat's form takes beside the texts: of the whole, and of each message.
_FORM, _MESSAGE = 1024, 32


def leading(messages: Sequence[Message]) -> int:
    """How many messages at the front are the system's."""
    return next((i for i, message in enumerate(messages) if message.role != "system"), len(messages))


async def fit(
    provider: Provider,
    info: ModelInfo,
    messages: Sequence[Message],
    tools: Sequence[ToolSpec],
    wanted: int | None,
    drop: bool,
) -> int:
    """How many messages behind the system's are to be left out.

    Args:
        provider, info: of the model; where it does not know its context or its tokens, everything is tried.
        messages, tools: what it is to read.
        wanted: tokens of the answer.
        drop: whether anything may be left out.

    Raises:
        ApiError: 400 "context_length_exceeded".
    """
    limit = info.context_length
    if not limit:
        return 0
    room = limit - min(wanted or _ROOM, limit // 4)
    if _at_most(messages, tools) <= room:
        return 0
    head = leading(messages)
    rest = messages[head:]
    turns = [i for i, message in enumerate(rest) if message.role == "user"]

    async def tokens(dropped: int) -> int | None:
        return await provider.count_tokens(info.id, [*messages[:head], *rest[dropped:]], tools)

    count = await tokens(0)
    if count is None or count < limit:
        if not drop or count is None or count <= room:
            return 0
    elif not drop:
        raise _too_long(count, limit)
    # The fewest turns without which it fits; the count falls with every turn.
    low, high = 0, len(turns) - 1
    while low < high:
        middle = (low + high) // 2
        if (await tokens(turns[middle]) or 0) <= room:
            high = middle
        else:
            low = middle + 1
    dropped = turns[low] if turns else 0
    left = await tokens(dropped) or 0
    if left >= limit:
        raise _too_long(left, limit)
    return dropped


def _at_most(messages: Sequence[Message], tools: Sequence[ToolSpec]) -> int:
    """More tokens than a conversation can have: none is shorter than a byte. It saves the count of most requests."""
    said = sum(len(message.content.encode()) + len(repr(message.tool_calls)) * 4 + _MESSAGE for message in messages)
    return _FORM + said + sum(len(json.dumps(tool.to_json())) for tool in tools)


def _too_long(count: int, limit: int) -> ApiError:
    return ApiError(
        400,
        f"The input is {count:,} tokens long, and the model's context holds {limit:,}. Send less, or a truncation of "
        "'auto', which leaves out the oldest turns.",
        param="input",
        code="context_length_exceeded",
    )
