"""One turn of an agent: shields, memory, then answers and tools until an answer calls no tool.

The turn is a coroutine that emits an event for all that happens and keeps its record after every step, so that what a
client was told is kept. Where shields guard the output, an answer's text is held back until they have passed it; a
tool's result is judged before the model or the client sees it. A call of a tool that the client runs ends the
coroutine: the turn waits, and `resume` goes on with the client's results.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import anyio

from puna.base.errors import InputError
from puna.core.chat import Message, ToolCall, ToolSpec
from puna.core.completion import Completion, Done, TextDelta, ToolCallDelta
from puna.stack.agents.llama import (
    call_to,
    completion_message,
    message_from,
    params_from,
    text_of,
    tool_from,
)
from puna.stack.agents.memory import recall
from puna.stack.agents.tools import Offer, ToolResult, tools_of
from puna.stack.context import Stack, new_id
from puna.stack.errors import ApiError
from puna.stack.jobs.jobs import iso
from puna.stack.providers.provider import Ask
from puna.stack.safety.guard import guard_of, violation
from puna.stack.state.store import run
from puna.tokenizer.tool_calls import parse_tool_calls

Emit = Callable[[dict[str, Any]], Awaitable[None]]

_MOST_INFERENCES = 10
_WITHHELD = "This result was withheld by a shield."
_STOPS = {"length": "out_of_tokens", "end_of_message": "end_of_message"}


class ViolationError(Exception):
    """A shield's violation, which ends the turn."""

    def __init__(self, found: Mapping[str, Any]) -> None:
        super().__init__(found["user_message"])
        self.found = found


class Turn:
    """A turn under way.

    Args:
        stack: the server's parts.
        owner: whose agent it is.
        config: the agent's.
        record: the turn as it is kept.
        emit: is told every event's payload.
        keys: the caller's own keys by provider.
    """

    def __init__(
        self,
        stack: Stack,
        owner: str,
        config: Mapping[str, Any],
        record: dict[str, Any],
        emit: Emit,
        keys: Mapping[str, str] | None = None,
    ) -> None:
        self._keys = keys or {}
        self._stack, self._owner, self._config, self.record, self._emit = stack, owner, config, record, emit
        self._clients = {spec.name: spec for spec in map(tool_from, config.get("client_tools") or ())}
        self._offers: dict[str, Offer] = {}

    @property
    def messages(self) -> list[Message]:
        """What was said in this turn."""
        return [Message.from_json(message) for message in self.record["messages"]]

    async def start(self, history: Sequence[Message], documents: Sequence[Mapping[str, Any]]) -> None:
        """Runs a new turn."""
        await self._emit({"event_type": "turn_start", "turn_id": self.record["turn_id"]})
        await self._guarded(self._begin(history, documents))

    async def resume(self, history: Sequence[Message], results: Sequence[Mapping[str, Any]]) -> None:
        """Goes on with the results of the tools that the client ran."""
        await self._guarded(self._go_on(history, results))

    async def _guarded(self, work: Awaitable[None]) -> None:
        try:
            await work
        except ViolationError as blocked:
            refusal = Message("assistant", blocked.found["user_message"])
            if self.record["messages"]:  # what was never let in is not remembered
                self._say(refusal)
            await self._complete(refusal, "end_of_turn")
        except BaseException:
            self.record["status"] = "failed"
            with anyio.CancelScope(shield=True):
                await self._save()
            raise

    async def _begin(self, history: Sequence[Message], documents: Sequence[Mapping[str, Any]]) -> None:
        messages = [message_from(message) for message in self.record["input_messages"]]
        await self._shields("input_shields", [*history, *messages])
        groups = [*(self._config.get("toolgroups") or ()), *self.record["toolgroups"]]
        query = messages[-1].content
        found = await recall(self._stack, self._owner, query, documents, groups)
        if found is not None:
            step = await self._open("memory_retrieval")
            await self._close(step, {"vector_db_ids": found.stores, "inserted_context": found.text})
            messages[-1] = replace(messages[-1], content=f"{found.text}\n\n{query}")
        self._say(*messages)
        await self._loop(history)

    async def _go_on(self, history: Sequence[Message], results: Sequence[Mapping[str, Any]]) -> None:
        pending = {call["call_id"]: call for call in self.record["pending"]}
        given = {result.get("call_id"): result for result in results}
        calls = [ToolCall(call["tool_name"], call["arguments"], id) for id, call in pending.items()]
        answers = [ToolResult(text_of(given[call.id].get("content"), "tool_responses")) for call in calls]
        step = await self._open("tool_execution")
        self.record["pending"], self.record["status"] = [], "in_progress"
        await self._results(step, history, calls, answers)
        await self._loop(history)

    async def _loop(self, history: Sequence[Message]) -> None:
        groups = [*(self._config.get("toolgroups") or ()), *self.record["toolgroups"]]
        named = [entry for entry in groups if _name(entry).partition("/")[0] != "builtin::memory"]
        self._offers = await tools_of(self._stack).offers(self._owner, named, self._keys)
        limit = self._config.get("max_infer_iters") or _MOST_INFERENCES
        while True:
            completion = await self._infer(history)
            self._say(completion.message)
            calls = completion.message.tool_calls
            if not calls:
                await self._complete(completion.message, _STOPS.get(completion.stop_reason, "end_of_turn"))
                return
            await self._run_calls(history, [call for call in calls if call.name not in self._clients])
            if waiting := [call for call in calls if call.name in self._clients]:
                await self._wait(completion.message, waiting)
                return
            if self.record["inferences"] >= limit:
                self.record["incomplete_details"] = {"reason": "max_infer_iters"}
                await self._complete(replace(completion.message, tool_calls=()), "out_of_tokens")
                return

    async def _infer(self, history: Sequence[Message]) -> Completion:
        """One answer of the model, its text handed on word by word unless shields must see it first."""
        step = await self._open("inference")
        held = bool(self._config.get("output_shields"))
        completion = None
        provider, info = self._stack.model(self._config["model"])
        async with aclosing(provider.stream(self._ask(provider.id, info.id, history))) as events:  # type: ignore[type-var]
            async for event in events:
                if isinstance(event, TextDelta) and not held:
                    await self._progress(step, {"type": "text", "text": event.text})
                elif isinstance(event, ToolCallDelta) and not held:
                    continue  # calls are announced when they have their ids
                elif isinstance(event, Done):
                    completion = event.completion
        if completion is None:
            raise ApiError(502, f"The provider {provider.id!r} ended without an answer.", code="provider_error")
        self.record["inferences"] += 1
        message = self._with_calls(completion.message)
        found = await self._judge("output_shields", [*history, *self.messages, message])
        if found is not None:
            message = Message("assistant", found[1]["user_message"]) if found[1] else message
        if held and message.content and not (found and found[1]):
            await self._progress(step, {"type": "text", "text": message.content})
        for call in message.tool_calls:
            delta = {"type": "tool_call", "parse_status": "succeeded", "tool_call": call_to(call)}
            await self._progress(step, delta)
        stop = "end_of_turn" if not message.tool_calls else "end_of_message"
        shown = completion_message(message, _STOPS.get(completion.stop_reason, stop))
        await self._close(step, {"model_response": shown})
        await self._show_judgement(found)
        return replace(completion, message=message)

    def _ask(self, provider: str, model: str, history: Sequence[Message]) -> Ask:
        tool_config = {**(self._config.get("tool_config") or {}), **(self.record["tool_config"] or {})}
        choice = tool_config.get("tool_choice") or self._config.get("tool_choice") or "auto"
        if choice not in ("auto", "none") and self.record["inferences"]:
            choice = "auto"  # else it could never answer
        params = params_from(self._config.get("sampling_params"), self._config.get("response_format"), choice)
        instructions = self._config.get("instructions")
        system = [Message("system", instructions)] if instructions else []
        tools: list[ToolSpec] = [] if choice == "none" else self._tools()
        return Ask(
            model,
            (*system, *history, *self.messages),
            params,
            tuple(tools),
            owner=self._owner,
            key=self._keys.get(provider, ""),
        )

    def _tools(self) -> list[ToolSpec]:
        return [*(offer.spec for offer in self._offers.values()), *self._clients.values()]

    def _with_calls(self, message: Message) -> Message:
        """An answer whose calls have ids; a text that is nothing but calls of the tools on offer becomes those."""
        calls = message.tool_calls
        names = {spec.name for spec in self._tools()}
        if not calls and names and message.content.lstrip()[:1] in ("{", "[", "<"):
            try:
                read = parse_tool_calls(message.content.strip(), names)
            except InputError:
                read = ()
            if read and all(call.name in names for call in read):
                calls, message = read, replace(message, content="")
        return replace(
            message, tool_calls=tuple(call if call.id else replace(call, id=new_id("call")) for call in calls)
        )

    async def _run_calls(self, history: Sequence[Message], calls: Sequence[ToolCall]) -> None:
        if not calls:
            return
        step = await self._open("tool_execution")
        results = []
        for call in calls:
            if call.name not in self._offers:
                known = ", ".join(self._offers) or "none"
                results.append(ToolResult("", f"There is no tool {call.name!r}; the tools are: {known}."))
                continue
            offer = self._offers[call.name]
            arguments = {**call.arguments, **offer.args}
            results.append(await tools_of(self._stack).invoke(self._owner, call.name, arguments, offer))
        await self._results(step, history, calls, results)

    async def _results(
        self, step: dict[str, Any], history: Sequence[Message], calls: Sequence[ToolCall], results: Sequence[ToolResult]
    ) -> None:
        """Judges the results of tools, then shows them and gives them to the model."""
        texts = [result.content if not result.error else f"Error: {result.error}" for result in results]
        said = [
            Message("tool", text, tool_call_id=call.id, name=call.name) for call, text in zip(calls, texts, strict=True)
        ]
        found = None
        for message in said:
            found = await self._judge("input_shields", [*history, *self.messages, message])
            if found is not None and found[1] is not None:
                texts = [_WITHHELD] * len(said)
                said = [replace(message, content=_WITHHELD) for message in said]
                break
        responses = [
            {"call_id": call.id, "tool_name": call.name, "content": text, "metadata": dict(result.metadata)}
            for call, text, result in zip(calls, texts, results, strict=True)
        ]
        await self._close(step, {"tool_calls": [call_to(call) for call in calls], "tool_responses": responses})
        self._say(*said)
        await self._show_judgement(found)

    async def _judge(self, which: str, messages: Sequence[Message]) -> tuple[str, dict[str, Any] | None] | None:
        """The first violation that the shields find in the last message, or None in its place; None without shields."""
        last = None
        for id in self._config.get(which) or ():
            last = id, violation(id, await guard_of(self._stack).check(self._owner, id, messages))
            if last[1] is not None:
                break
        return last

    async def _shields(self, which: str, messages: Sequence[Message]) -> None:
        await self._show_judgement(await self._judge(which, messages))

    async def _show_judgement(self, found: tuple[str, dict[str, Any] | None] | None) -> None:
        """A step for what the shields said.

        Raises:
            ViolationError: they found a violation.
        """
        if found is None:
            return
        step = await self._open("shield_call")
        await self._close(step, {"violation": found[1]})
        if found[1] is not None:
            raise ViolationError(found[1])

    def _say(self, *messages: Message) -> None:
        self.record["messages"] += [message.to_json() for message in messages]

    async def _open(self, kind: str) -> dict[str, Any]:
        step = {"step_id": new_id("step"), "turn_id": self.record["turn_id"], "step_type": kind}
        step["started_at"] = iso(time.time())
        await self._emit({"event_type": "step_start", "step_id": step["step_id"], "step_type": kind, "metadata": {}})
        return step

    async def _progress(self, step: Mapping[str, Any], delta: Mapping[str, Any]) -> None:
        payload = {"event_type": "step_progress", "step_id": step["step_id"], "step_type": step["step_type"]}
        await self._emit({**payload, "delta": delta})

    async def _close(self, step: dict[str, Any], details: Mapping[str, Any]) -> None:
        step.update(details, completed_at=iso(time.time()))
        self.record["steps"].append(step)
        await self._save()
        payload = {"event_type": "step_complete", "step_id": step["step_id"], "step_type": step["step_type"]}
        await self._emit({**payload, "step_details": step})

    async def _wait(self, message: Message, waiting: Sequence[ToolCall]) -> None:
        shown = completion_message(replace(message, tool_calls=tuple(waiting)), "end_of_message")
        calls = [call_to(call) for call in waiting]
        self.record.update(pending=calls, status="awaiting_input", output_message=shown)
        await self._save()
        await self._emit({"event_type": "turn_awaiting_input", "turn": shown_turn(self.record)})

    async def _complete(self, message: Message, stop: str) -> None:
        shown = completion_message(message, stop)
        self.record.update(status="completed", output_message=shown, completed_at=iso(time.time()), pending=[])
        await self._save()
        await self._emit({"event_type": "turn_complete", "turn": shown_turn(self.record)})

    async def _save(self) -> None:
        await run(self._stack.store.put, "agent_turn", self.record["turn_id"], self.record, owner=self._owner)


def _name(group: Any) -> str:
    return group if isinstance(group, str) else str(group.get("name", ""))


def shown_turn(record: Mapping[str, Any]) -> dict[str, Any]:
    """A turn as clients see it."""
    names = ("turn_id", "session_id", "input_messages", "steps", "output_message", "started_at", "completed_at")
    shown = {name: record[name] for name in names} | {"output_attachments": []}
    if record.get("incomplete_details"):
        shown["incomplete_details"] = record["incomplete_details"]
    return shown
