"""`Facts`: what a decision has to know of a request, and nothing of its text.

Tokens are counted by the model's own tokenizer where one is at hand. Else they are estimated, twice: as it will
probably be, for prices, and as it can be at most, for budgets. A token holds at least one byte in every tokenizer of
bytes, so the bytes of a prompt bound its tokens; what a chat format adds to a message is bounded too.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

from puna.stack.conversion import OPEN_END
from puna.stack.providers.provider import Ask

_BYTES_PER_TOKEN = 4.0  # of English prose and Llama 3's tokenizer
_FRAME = 16  # tokens at most that a chat format puts around a message
_LIKELY_FRAME = 5
_PREAMBLE = 256  # bytes at most of a system preamble
_INSTRUCTION = 1024  # bytes at most of the words around tools
_BLANKS = 4  # how many times longer tools are with their indents, at most


@dataclass(frozen=True, slots=True)
class Facts:
    """A request in numbers.

    Attributes:
        prompt_tokens: as they will probably be.
        most_prompt_tokens: what they can be at most.
        counted: whether `prompt_tokens` is counted, and not estimated.
        expected_output: tokens of all answers together.
        max_output: what they can be at most.
        longest: tokens of one answer at most, which must fit into the context.
        open_end: whether the request itself names no limit; `longest` is then the route's own, which holds where money
            is limited, and the answer need only fit as it is expected.
        needs: of "tools", "json_schema", "logprobs", "seed".
    """

    prompt_tokens: int
    most_prompt_tokens: int
    expected_output: int
    max_output: int
    longest: int
    counted: bool = False
    needs: tuple[str, ...] = ()
    open_end: bool = False

    @property
    def context(self) -> int:
        """Tokens that the context must hold; an estimate gets a quarter more."""
        answer = min(self.longest, self.expected_output) if self.open_end else self.longest
        return math.ceil(self.prompt_tokens * (1.0 if self.counted else 1.25)) + answer


def of_ask(ask: Ask, usual_output: float, counted: int | None = None, open_answer: int = 4096) -> Facts:
    """The facts of a request.

    Args:
        ask: the request.
        usual_output: tokens of an answer, from experience.
        counted: tokens of the prompt by the model's tokenizer.
        open_answer: tokens of an answer at most, where the request names no limit.
    """
    params = ask.params
    needs = []
    if ask.tools and params.tool_choice != "none":
        needs.append("tools")
    if params.constraint is not None:
        needs.append("json_schema" if params.constraint.kind == "json_schema" else params.constraint.kind)
    if params.logprobs is not None or params.prompt_logprobs:
        needs.append("logprobs")
    likely, most = _estimate(ask)
    open_end = params.max_tokens >= OPEN_END
    longest = open_answer if open_end else params.max_tokens
    return Facts(
        prompt_tokens=likely if counted is None else counted,
        most_prompt_tokens=max(most, counted or 0),
        expected_output=max(1, min(round(usual_output), longest)) * params.n,
        max_output=longest * params.n,
        longest=longest,
        counted=counted is not None,
        needs=tuple(needs),
        open_end=open_end,
    )


def _estimate(ask: Ask) -> tuple[int, int]:
    """Tokens of the prompt: as it will probably be, and at most."""
    if not ask.messages:
        if not isinstance(ask.prompt, str):
            return len(ask.prompt), len(ask.prompt) + 1
        size = len(ask.prompt.encode())
        return math.ceil(size / _BYTES_PER_TOKEN) + 1, size + 1
    tools = sum(len(json.dumps(tool.to_json(), ensure_ascii=False).encode()) for tool in ask.tools)
    said = 0
    for message in ask.messages:
        said += len(message.content.encode())
        said += sum(len(json.dumps(call.to_json(), ensure_ascii=False).encode()) for call in message.tool_calls)
    count = len(ask.messages) + 1
    likely = math.ceil((said + tools) / _BYTES_PER_TOKEN) + _LIKELY_FRAME * count
    # Tools are written with indents and an instruction around them.
    most = said + _FRAME * count + _PREAMBLE + (_BLANKS * tools + _INSTRUCTION if tools else 0)
    return likely, most
