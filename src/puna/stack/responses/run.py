"""`Run`: one response from its first event to its last.

    created -> (queued) -> in progress -> (lists of servers' tools) -> (turn of the model -> searches, servers' tools)*
    -> completed, incomplete, failed, cancelled

A turn asks the model once. Text and calls of the client's functions go out as they come; searches of documents and
calls of servers' tools are made here, after the turn, and the model is asked again with what they gave. A call that
needs an approval is not made: the response ends, and the next one brings the approval. A call that is not on offer
never reaches the client: the model is told so and asked again, as far as the limit of turns allows.

What a run ends with is saved before its terminal event is given out; where that fails, the response has failed.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from puna.core.chat import Message, ToolCall
from puna.core.completion import Completion, TextDelta, ToolCallDelta
from puna.stack.context import Stack
from puna.stack.conversion import NamedLogprob, settled
from puna.stack.errors import ApiError, as_api_error
from puna.stack.providers.provider import Ask
from puna.stack.responses.events import Event, Script, usage
from puna.stack.responses.fitting import fit
from puna.stack.responses.items import Item
from puna.stack.responses.mcp_run import Servers
from puna.stack.responses.messages import FILE_SEARCH, messages_of, passages
from puna.stack.responses.plan import Plan
from puna.stack.responses.search import citations, queries_of, search
from puna.stack.responses.shielding import BlockedError, Held, Shielding

_log = logging.getLogger(__name__)
_EVENTS = {"completed": "response.completed", "incomplete": "response.incomplete", "failed": "response.failed"}
# OpenAI's clients know these codes of a failed response.
_CODES = {400: "invalid_prompt", 429: "rate_limit_exceeded"}
Save = Callable[[], Coroutine[Any, Any, None]]
T = TypeVar("T")


@dataclass(slots=True)
class _Turn:
    """One answer of the model, as far as it has come."""

    offered: frozenset[str]  # names of tools
    held: Held = field(default_factory=Held)
    calls: int = 0
    theirs: int = 0  # calls of the client's functions
    ours: list[ToolCall] = field(default_factory=list)  # searches, and calls of servers' tools
    strays: list[ToolCall] = field(default_factory=list)


class Run:
    """Args:
        stack: whose vector stores are searched.
        plan: what to do; its response is filled.
        save: keeps the response as it is.

    Attributes:
        error: why it failed.
    """

    def __init__(self, stack: Stack, plan: Plan, save: Save) -> None:
        self.stack, self.plan = stack, plan
        self.script = Script(plan.response, plan.include)
        self.error: ApiError | None = None
        self._save = save
        self._read: list[Item] = []  # what the model has read of this response: its output, and notes for it alone
        self._notes: list[Item] = []  # for its next turn: calls that were not let through
        self._shown = 0  # how much of the output it has read
        self._calls = 0  # of tools, in the whole response
        self._read_tokens = self._written_tokens = self._cached_tokens = 0
        self._servers = Servers(stack, plan, self.script) if plan.tools.servers else None
        self._shields = plan.shielding or Shielding(stack, plan.owner)
        self._asked = False
        self._over = False

    @property
    def response(self) -> dict[str, Any]:
        return self.plan.response

    async def events(self) -> AsyncGenerator[Event, None]:
        """The events. Closing this, or cancelling the task that reads it, ends the model's work: a cancellation."""
        try:
            yield self.script.lifecycle("response.created")
            if self.response["background"]:
                yield self.script.lifecycle("response.queued")
                self.response["status"] = "in_progress"
                await unbroken(self._save())
            yield self.script.lifecycle("response.in_progress")
            try:
                async with aclosing(self._turns()) as turns:
                    async for event in turns:
                        yield event
                self._over = True
                await unbroken(self._save())
            except Exception as error:
                for event in await self._failed(error):
                    yield event
            yield self.script.lifecycle(_EVENTS[self.response["status"]])
        except (asyncio.CancelledError, GeneratorExit):
            if not self._over:
                await self._cancelled()
            raise
        finally:
            if self._servers is not None:
                await unbroken(self._servers.close())

    async def _turns(self) -> AsyncGenerator[Event, None]:
        if self._servers is not None:
            async with aclosing(self._servers.prepare()) as events:
                async for event in events:
                    yield event
        for turn in range(self.plan.infer_iters):
            ask = await self._ask(turn)
            if ask is None:
                self._end("incomplete", "max_output_tokens")
                return
            try:
                if turn == 0 and self._shields.input:
                    await self._shields.check_input(ask.messages, self.plan.new)
                async with aclosing(self._turn(ask, first=turn == 0)) as events:
                    async for event in events:
                        yield event
            except BlockedError as blocked:
                for event in self._refuse(str(blocked), before=not self._asked):
                    yield event
            if self.response["status"] != "in_progress":
                return
        self._end("incomplete", "max_infer_iters")

    async def _ask(self, turn: int) -> Ask | None:
        """What the model is asked; None where no token is left for an answer."""
        plan = self.plan
        tools, choice = plan.tools.offer(turn == 0)
        if self._spent:
            tools, choice = (), "none"
        params = replace(plan.params, tool_choice=choice)
        limit = self.response["max_output_tokens"]
        if limit is not None:
            left = limit - self._written_tokens
            if left < 1:
                return None
            params = replace(params, max_tokens=left)
        self._read += [*self.script.output[self._shown :], *self._notes]
        self._shown, self._notes = len(self.script.output), []
        if turn or self._servers is not None:
            plan.dropped, drop = 0, self.response["truncation"] == "auto"
            plan.dropped = await fit(plan.provider, plan.info, plan.messages(self._read), tools, limit, drop)
        return Ask(plan.info.id, plan.messages(self._read), params, tools, owner=plan.owner, key=plan.key)

    @property
    def _spent(self) -> bool:
        """Whether no more tools may be called."""
        most = self.response["max_tool_calls"]
        return most is not None and self._calls >= most

    async def _turn(self, ask: Ask, first: bool) -> AsyncGenerator[Event, None]:
        turn = _Turn(frozenset(tool.name for tool in ask.tools))
        completion: Completion | None = None
        self._asked = True
        async with aclosing(settled(self.plan.provider.stream(ask), self.plan.tools.parallel)) as stream:
            async for event in stream:
                if isinstance(event, TextDelta):
                    turn.held.said += event.text
                    for written in await self._let_out(ask, turn):
                        yield written
                elif isinstance(event, ToolCallDelta):
                    for written in [*await self._let_out(ask, turn, (event.call,)), *self._take(event.call, turn)]:
                        yield written
                else:
                    completion = event.completion
        if completion is None:
            raise ApiError(502, "The model's answer broke off.", code="provider_error")
        self._count(completion)
        message, calls = completion.message, () if turn.calls else completion.message.tool_calls
        if message.content.startswith(turn.held.said):
            turn.held.said = message.content
        for written in await self._let_out(ask, turn, calls, last=True):
            yield written
        for written in [written for call in calls for written in self._take(call, turn)]:
            yield written
        for written in self._rest(completion, turn):
            yield written
        async with aclosing(self._work(turn)) as events:
            async for written in events:
                yield written
        if turn.theirs or not (turn.ours or turn.strays):
            forced = first and ask.params.tool_choice not in ("auto", "none") and not turn.theirs
            if forced and self.response["status"] == "in_progress":
                raise ApiError(502, "The model called no tool, which tool_choice demands.", code="no_tool_call")
            self._end("completed")
        self._notes += [note for call in turn.strays for note in _stray(call)]

    async def _let_out(self, ask: Ask, turn: _Turn, calls: Sequence[ToolCall] = (), last: bool = False) -> list[Event]:
        """Text on its way, after the shields have seen it, and calls too where they are to follow it."""
        held = turn.held
        upto = len(held.said)
        if self._shields.output:
            upto = upto if last or calls else held.ready
            if upto > held.sent or calls:
                await self._shields.check_output(ask.messages, held.said, calls)
        text = held.take(upto)
        return self.script.say(text) if text else []

    def _refuse(self, reason: str, before: bool) -> list[Event]:
        """The end of a response that a shield stopped: before the model was asked it is whole, and else incomplete."""
        events = [*self.script.close("incomplete"), *self.script.refuse(reason)]
        if self.response["usage"] is None:
            self.response["usage"] = usage(0, 0, 0)
        self._end(*(("completed",) if before else ("incomplete", "content_filter")))
        return events

    def _take(self, call: ToolCall, turn: _Turn) -> list[Event]:
        """A call of the model's: let through, kept for later, or not on offer."""
        turn.calls += 1
        if call.name not in turn.offered or self._spent:
            turn.strays.append(call)
            return []
        self._calls += 1
        if self._is_search(call) or (self._servers and self._servers.has(call.name)):
            turn.ours.append(call)
            return []
        turn.theirs += 1
        return [*self._close("completed"), *self.script.call(call)]

    def _rest(self, completion: Completion, turn: _Turn) -> list[Event]:
        """The end of a turn: the close of its message; one in which nothing was said or called is an empty one."""
        events = self.script.say("") if not turn.calls and not turn.held.said else []
        cut = completion.stop_reason == "length"
        logprobs = _logprobs(completion, self.script.text) if self.plan.params.logprobs is not None else []
        events += self._close("incomplete" if cut else "completed", logprobs)
        if completion.stop_reason == "cancelled":
            raise ApiError(503, "The model was stopped before it had answered.", code="generation_cancelled")
        if cut:
            self._end("incomplete", "max_output_tokens")
        return events

    def _close(self, status: str, logprobs: Sequence[Mapping[str, Any]] = ()) -> list[Event]:
        return self.script.close(status, citations(self.script.text, self.script.output), logprobs)

    def _is_search(self, call: ToolCall) -> bool:
        return call.name == FILE_SEARCH and self.plan.tools.search is not None

    async def _work(self, turn: _Turn) -> AsyncGenerator[Event, None]:
        """The calls of a turn that are made here; beside calls of the client too, for the conversation holds them."""
        for call in turn.ours:
            if self._servers is None or self._is_search(call):
                async with aclosing(self._search(call)) as events:
                    async for event in events:
                        yield event
            elif asked := self._servers.asks(call):
                turn.theirs += 1  # the next word is the client's
                for event in asked:
                    yield event
            else:
                async with aclosing(self._servers.call(call)) as events:
                    async for event in events:
                        yield event
                await self._check_found(messages_of(self.script.output[-1:])[-1])

    async def _check_found(self, found: Message) -> None:
        """Shows the shields what a tool gave, before the model reads it."""
        if self._shields.input:
            read = [*self.plan.messages(self._read), found]
            await self._shields.check_input(read, len(read) - 1)

    async def _search(self, call: ToolCall) -> AsyncGenerator[Event, None]:
        where = self.plan.tools.search
        assert where is not None
        queries = queries_of(call.arguments)
        item, events = self.script.search_begins(queries)
        for event in events:
            yield event
        try:
            results = await search(self.stack, self.plan.owner, where, queries)
        except ApiError:
            for event in self.script.search_ends(item, (), "failed"):
                yield event
            raise
        for event in self.script.search_ends(item, results):
            yield event
        await self._check_found(Message("tool", passages(results), name=FILE_SEARCH))

    def _count(self, completion: Completion) -> None:
        self._read_tokens += completion.usage.prompt_tokens
        self._written_tokens += completion.usage.completion_tokens
        self._cached_tokens += completion.usage.cached_tokens
        self.response["usage"] = usage(self._read_tokens, self._written_tokens, self._cached_tokens)

    # Ends -------------------------------------------------------------------------------------------------------------

    def _end(self, status: str, reason: str = "") -> None:
        response = self.response
        if response["status"] != "in_progress":
            return
        response["status"] = status
        if reason:
            response["incomplete_details"] = {"reason": reason}
        if status == "completed":
            response["completed_at"] = int(time.time())

    async def _failed(self, error: Exception) -> list[Event]:
        self.error, self._over = as_api_error(error), True
        if not isinstance(error, ApiError):
            _log.warning("%s failed", self.response["id"], exc_info=error)
        events = self.script.close("incomplete")
        self.response.update(status="failed", completed_at=None, incomplete_details=None)
        code = _CODES.get(self.error.status, "server_error")
        self.response["error"] = {"code": code, "message": self.error.message}
        await self._keep()
        return [*events, self.script.error(self.error)]

    async def _cancelled(self) -> None:
        self.script.close("incomplete")
        self.response.update(status="cancelled", completed_at=None, incomplete_details=None)
        await self._keep()

    async def _keep(self) -> None:
        try:
            await unbroken(self._save())
        except Exception:
            _log.exception("%s could not be kept", self.response["id"])


def _stray(call: ToolCall) -> list[Item]:
    """What a model is told of a call that was not let through."""
    arguments = call.to_json()["function"]["arguments"]
    fields = {"id": call.id, "status": "completed", "call_id": call.id}
    told = f"The tool {call.name} cannot be called now."
    return [
        {**fields, "type": "function_call", "name": call.name, "arguments": arguments},
        {**fields, "type": "function_call_output", "output": told},
    ]


def _logprobs(completion: Completion, text: str) -> list[dict[str, Any]]:
    """The tokens of the text with their probabilities, as far as the provider names them."""
    shown, left = [], len(text.encode())
    for token in completion.logprobs:
        if not isinstance(token, NamedLogprob) or len(token.token) > left:
            break
        left -= len(token.token)
        top = zip(token.names, token.top, strict=False)
        shown.append(_named(token.token, token.logprob) | {"top_logprobs": [_named(name, p) for name, (_, p) in top]})
    return shown


def _named(token: bytes, logprob: float) -> dict[str, Any]:
    return {"token": token.decode(errors="replace"), "logprob": logprob, "bytes": list(token)}


async def unbroken(work: Coroutine[Any, Any, T]) -> T:
    """Awaits something that a cancellation of this task waits for: a write that has begun is ended."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise
