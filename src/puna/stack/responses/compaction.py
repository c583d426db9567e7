"""Compaction: a long conversation in short, by the model itself, as an item that stands for it from then on.

What the user said stays word for word; what was answered, called and found becomes one summary. What of the
conversation does not fit into the model's context is left out of the summary, the oldest first.
"""

from __future__ import annotations

import time
from typing import Any

from puna.core.chat import Message
from puna.stack.context import Caller, Stack, new_id
from puna.stack.conversion import params_of, whole
from puna.stack.errors import ApiError, invalid
from puna.stack.providers.provider import Ask
from puna.stack.responses.events import usage
from puna.stack.responses.fitting import fit, leading
from puna.stack.responses.items import item_id, public
from puna.stack.responses.messages import messages_of, pack
from puna.stack.responses.plan import gather, model_of
from puna.stack.wire.responses import Compact

_TOKENS = 1024
_REQUEST = (
    "Write down in short what was said and done so far, so that the conversation can go on from your text: what was "
    "asked, what was found out with names and numbers, what was decided, and what is still open. Write nothing else."
)


async def compact(stack: Stack, caller: Caller, body: Compact) -> dict[str, Any]:
    """The compacted conversation.

    Raises:
        ApiError: there is nothing to compact, or the model failed.
    """
    provider, info = model_of(stack, body.model)
    before, own, _, _ = await gather(stack, caller.owner, body)
    items = [*before, *own]
    if not items:
        raise invalid("There is nothing to compact: give input.", "input", "missing")
    system = [Message("system", body.instructions)] if body.instructions else []
    messages = [*system, *messages_of(items), Message("user", _REQUEST)]
    dropped, head = await fit(provider, info, messages, (), _TOKENS, drop=True), leading(messages)
    messages = [*messages[:head], *messages[head + dropped :]]
    params = params_of({"temperature": 0.0, "max_completion_tokens": _TOKENS})
    key = caller.provider_keys.get(provider.id, "")
    done = await whole(provider.stream(Ask(info.id, messages, params, owner=caller.owner, key=key)))
    if not done.message.content.strip():
        raise ApiError(502, "The model gave no summary.", code="model_error")
    short = {
        "type": "compaction",
        "id": item_id("compaction"),
        "status": "completed",
        "encrypted_content": pack(done.message.content),
    }
    said = [public(item) for item in items if item["type"] == "message" and item["role"] == "user"]
    used = done.usage
    return {
        "id": new_id("resp"),
        "object": "response.compaction",
        "created_at": int(time.time()),
        "output": [*said, short],
        "usage": usage(used.prompt_tokens, used.completion_tokens, used.cached_tokens),
    }
