"""`Agents`: agents, their sessions and turns, as they are kept; and a turn's events as a stream.

One session has one turn at a time. A turn that was cut off by its client or by the server's end is kept as far as it
came, and later turns do not remember it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from typing import Any

import anyio

from puna.core.chat import Message
from puna.stack.agents.llama import message_from, params_from, tool_from
from puna.stack.agents.memory import GROUP
from puna.stack.agents.tools import tools_of
from puna.stack.agents.turn import Emit, Turn, shown_turn
from puna.stack.context import Stack, new_id
from puna.stack.errors import ApiError, as_api_error, invalid, not_found
from puna.stack.jobs.jobs import iso
from puna.stack.safety.guard import guard_of
from puna.stack.state.store import every, run

_WAITING_EVENTS = 64


class Agents:
    """Args:
    stack: the server's parts.
    """

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._busy: set[str] = set()  # sessions with a turn under way

    async def create(self, owner: str, config: Mapping[str, Any]) -> str:
        """Keeps an agent, once its model, shields, tools and settings are known to exist."""
        self._stack.model(config["model"])
        for id in [*(config.get("input_shields") or ()), *(config.get("output_shields") or ())]:
            await guard_of(self._stack).get(owner, id)
        await self._check_groups(owner, config.get("toolgroups") or ())
        for tool in config.get("client_tools") or ():
            tool_from(tool)
        params_from(config.get("sampling_params"), config.get("response_format"))
        id = new_id("agent")
        data = {"agent_id": id, "agent_config": dict(config), "created_at": iso(time.time())}
        await run(self._stack.store.insert, "agent", id, data, owner=owner)
        return id

    async def _check_groups(self, owner: str, groups: Sequence[Any]) -> None:
        names = [entry for entry in groups if isinstance(entry, str) or entry.get("name") != GROUP]
        await tools_of(self._stack).check(owner, names)

    async def list(self, owner: str) -> list[dict[str, Any]]:
        return await run(lambda: [dict(record.data) for record in every(self._stack.store, "agent", owner)])

    async def get(self, owner: str, agent: str) -> dict[str, Any]:
        record = await run(self._stack.store.get, "agent", agent, owner)
        if record is None:
            raise not_found("agent", agent, "agent_id")
        return dict(record.data)

    async def delete(self, owner: str, agent: str) -> None:
        await self.get(owner, agent)

        def erase() -> None:
            store = self._stack.store
            with store.transaction():
                for session in list(every(store, "agent_session", owner, agent)):
                    store.delete_children("agent_turn", session.id, owner)
                store.delete_children("agent_session", agent, owner)
                store.delete("agent", agent, owner)

        await run(erase)

    async def create_session(self, owner: str, agent: str, name: str) -> str:
        await self.get(owner, agent)
        id = new_id("session")
        data = {"session_id": id, "session_name": name, "started_at": iso(time.time())}
        await run(self._stack.store.insert, "agent_session", id, data, owner=owner, parent=agent)
        return id

    async def sessions(self, owner: str, agent: str) -> list[dict[str, Any]]:
        await self.get(owner, agent)
        found = await run(lambda: list(every(self._stack.store, "agent_session", owner, agent)))
        return [{**record.data, "turns": []} for record in found]

    async def session(self, owner: str, agent: str, session: str, turns: Sequence[str] = ()) -> dict[str, Any]:
        """A session with its turns, or with some of them."""
        record = await run(self._stack.store.get, "agent_session", session, owner)
        if record is None or record.parent != agent:
            raise not_found("session", session, "session_id")
        found = await run(lambda: [dict(turn.data) for turn in every(self._stack.store, "agent_turn", owner, session)])
        shown = [shown_turn(turn) for turn in found if not turns or turn["turn_id"] in turns]
        return {**record.data, "turns": shown}

    async def delete_session(self, owner: str, agent: str, session: str) -> None:
        await self.session(owner, agent, session)

        def erase() -> None:
            with self._stack.store.transaction():
                self._stack.store.delete_children("agent_turn", session, owner)
                self._stack.store.delete("agent_session", session, owner)

        await run(erase)

    async def turn(self, owner: str, session: str, turn: str) -> dict[str, Any]:
        """The record of a turn, as it is kept."""
        record = await run(self._stack.store.get, "agent_turn", turn, owner)
        if record is None or record.parent != session:
            raise not_found("turn", turn, "turn_id")
        return dict(record.data)

    async def start_turn(
        self,
        owner: str,
        agent: str,
        session: str,
        body: Mapping[str, Any],
        keys: Mapping[str, str] | None = None,
    ) -> Callable[[Emit], Awaitable[None]]:
        """Checks a new turn and keeps it; returns what runs it."""
        config = (await self.get(owner, agent))["agent_config"]
        await self.session(owner, agent, session)
        messages = list(body["messages"])
        if not messages or message_from(messages[-1]).role == "assistant":
            raise invalid("A turn begins with a user's message.", "messages")
        await self._check_groups(owner, body.get("toolgroups") or ())
        history = await self._history(owner, session)
        id = new_id("turn")
        record = {
            "turn_id": id,
            "session_id": session,
            "agent_id": agent,
            "input_messages": messages,
            "toolgroups": list(body.get("toolgroups") or ()),
            "tool_config": body.get("tool_config"),
            "messages": [],
            "steps": [],
            "pending": [],
            "inferences": 0,
            "status": "in_progress",
            "output_message": {"role": "assistant", "content": "", "stop_reason": "end_of_turn", "tool_calls": []},
            "started_at": iso(time.time()),
            "completed_at": None,
        }
        self._refuse_busy(session)
        await run(self._stack.store.insert, "agent_turn", id, record, owner=owner, parent=session)
        documents = list(body.get("documents") or ())

        async def work(emit: Emit) -> None:
            self._refuse_busy(session)
            self._busy.add(session)
            try:
                await Turn(self._stack, owner, config, record, emit, keys).start(history, documents)
            finally:
                self._busy.discard(session)

        return work

    async def resume_turn(
        self,
        owner: str,
        agent: str,
        session: str,
        turn: str,
        results: Sequence[Mapping[str, Any]],
        keys: Mapping[str, str] | None = None,
    ) -> Callable[[Emit], Awaitable[None]]:
        """Checks that a turn waits for a client's tools; returns what goes on with it."""
        config = (await self.get(owner, agent))["agent_config"]
        await self.session(owner, agent, session)
        record = await self.turn(owner, session, turn)
        if record["status"] != "awaiting_input":
            raise ApiError(
                409, f"The turn {turn!r} does not wait for results; it is {record['status']}.", code="conflict"
            )
        waiting = {call["call_id"] for call in record["pending"]}
        given = [str(result.get("call_id")) for result in results]
        if sorted(waiting) != sorted(given):
            missing = ", ".join(map(repr, sorted(waiting))) or "none"
            raise invalid(f"The turn waits for the results of the calls {missing}, each once.", "tool_responses")
        history = await self._history(owner, session)
        self._refuse_busy(session)

        async def work(emit: Emit) -> None:
            self._refuse_busy(session)
            self._busy.add(session)
            try:
                fresh = await self.turn(owner, session, turn)  # another request may have been first
                if fresh["status"] != "awaiting_input":
                    raise ApiError(409, f"The turn {turn!r} was resumed already.", code="conflict")
                await Turn(self._stack, owner, config, fresh, emit, keys).resume(history, results)
            finally:
                self._busy.discard(session)

        return work

    def _refuse_busy(self, session: str) -> None:
        if session in self._busy:
            raise ApiError(409, f"The session {session!r} has a turn under way.", code="busy")

    async def _history(self, owner: str, session: str) -> list[Message]:
        """What was said in the session's finished turns."""

        def read() -> list[Message]:
            turns = [turn.data for turn in every(self._stack.store, "agent_turn", owner, session)]
            done = [turn for turn in turns if turn["status"] == "completed"]
            return [Message.from_json(message) for turn in done for message in turn["messages"]]

        return await run(read)


async def events(work: Callable[[Emit], Awaitable[None]]) -> AsyncGenerator[dict[str, Any], None]:
    """The payloads that a turn emits; a failure is the last one, as {"error"}. Closing the stream ends the turn."""
    queue: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue(_WAITING_EVENTS)

    async def body() -> None:
        try:
            await work(queue.put)
        except Exception as error:
            await queue.put(as_api_error(error).body())
        await queue.put(None)

    task = asyncio.ensure_future(body())
    try:
        while (payload := await queue.get()) is not None:
            yield payload
    finally:
        task.cancel()
        with anyio.CancelScope(shield=True):
            await asyncio.wait([task])


async def finish(work: Callable[[Emit], Awaitable[None]]) -> dict[str, Any]:
    """Runs a turn to its end, and returns it."""
    last: dict[str, Any] = {}

    async def keep(payload: dict[str, Any]) -> None:
        last.update(payload)

    await work(keep)
    return last["turn"]


def agents_of(stack: Stack) -> Agents:
    """The server's agents, made when they are first asked for."""
    return stack.part("agents", Agents)
