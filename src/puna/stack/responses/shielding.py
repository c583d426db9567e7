"""The shields of one response: what the client sent, what tools found, and what the model says, each before it goes on.

Text of the model is held back until a sentence has ended and the whole text so far has passed, so that what a shield
stops never leaves. A shield that fails blocks (`puna.stack.safety.guard`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from puna.core.chat import Message, ToolCall
from puna.stack.context import Stack
from puna.stack.errors import ApiError, invalid
from puna.stack.safety.guard import guard_of

_END = re.compile(r"[.!?](?=\s)|\n")
_LONGEST = 600  # characters that are held back at most, where no sentence ends
_REFUSED = "This was stopped by the shield {id!r}."


class BlockedError(Exception):
    """Something must not go on; the message is for the reader of the response."""


@dataclass(frozen=True, slots=True)
class Shielding:
    """Attributes:
    stack: whose guard is asked.
    owner: whose shields they are.
    input: shields of what the model is to read.
    output: shields of what it says.
    """

    stack: Stack
    owner: str
    input: tuple[str, ...] = ()
    output: tuple[str, ...] = ()

    async def check_input(self, messages: Sequence[Message], start: int) -> None:
        """Checks what users and tools said from a message on.

        Raises:
            BlockedError: a shield stops one of them.
        """
        for i in range(start, len(messages)):
            if messages[i].role in ("user", "tool"):
                await self._check(self.input, messages[: i + 1])

    async def check_output(self, messages: Sequence[Message], text: str, calls: Sequence[ToolCall] = ()) -> None:
        """Checks an answer as far as it has come.

        Raises:
            BlockedError: a shield stops it.
        """
        await self._check(self.output, [*messages, Message("assistant", text, tuple(calls))])

    async def _check(self, shields: Sequence[str], messages: Sequence[Message]) -> None:
        for id in shields:
            verdict = await guard_of(self.stack).check(self.owner, id, messages)
            if not verdict.allowed:
                raise BlockedError(verdict.reason or _REFUSED.format(id=id))


@dataclass(slots=True)
class Held:
    """Text that has not left yet.

    Attributes:
        said: all of the turn's text.
        sent: how much of it has left.
    """

    said: str = ""
    sent: int = field(default=0)

    @property
    def ready(self) -> int:
        """Up to where the text may leave once it has passed: the last end of a sentence."""
        ends = [match.end() for match in _END.finditer(self.said, self.sent)]
        if ends:
            return ends[-1]
        return len(self.said) if len(self.said) - self.sent > _LONGEST else self.sent

    def take(self, upto: int) -> str:
        text, self.sent = self.said[self.sent : upto], upto
        return text


async def read_shields(stack: Stack, owner: str, shields: Mapping[str, Any] | None, guardrails: Any) -> Shielding:
    """The shields of a request: `shields` with lists for "input" and "output", or `guardrails`, which are both.

    Raises:
        ApiError: 400 for another form, 404 for an unknown shield, 501 where guardrails are wanted and there is none.
    """
    both: list[str] = []
    if guardrails is True:
        try:
            both = [await guard_of(stack).default(owner)]
        except ApiError as error:
            error.param = "guardrails"
            raise
    elif guardrails:
        both = _ids(guardrails, "guardrails")
    named = {side: _ids((shields or {}).get(side) or [], f"shields.{side}") for side in ("input", "output")}
    for side, ids in named.items():
        for id in dict.fromkeys([*both, *ids]):
            try:
                await guard_of(stack).get(owner, id)
            except ApiError as error:
                error.param = "guardrails" if id in both else f"shields.{side}"
                raise
    input, output = (tuple(dict.fromkeys([*both, *named[side]])) for side in ("input", "output"))
    return Shielding(stack, owner, input, output)


def _ids(given: Any, param: str) -> list[str]:
    """Names of shields; Llama Stack also writes {"type": name}."""
    listed = given if isinstance(given, list) else [given]
    named = [item.get("type") if isinstance(item, Mapping) else item for item in listed]
    ids = [id for id in named if isinstance(id, str) and id]
    if len(ids) < len(named):
        raise invalid(f"{param} must be a list of shields.", param)
    return ids
