"""Agents, sessions and turns as they are kept."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from puna.stack.agents.service import Agents, agents_of, events
from puna.stack.context import Stack
from puna.stack.errors import ApiError
from puna.stack.testing import ScriptedProvider, make_stack

HELLO = {"messages": [{"role": "user", "content": "one two three four"}]}


async def started(folder: Path, **provider: Any) -> tuple[Stack, Agents]:
    stack = make_stack(folder, ScriptedProvider(**provider))
    await stack.start()
    return stack, agents_of(stack)


def test_an_agent_and_all_that_is_its_own_are_deleted_together(tmp_path: Path) -> None:
    async def go() -> None:
        stack, agents = await started(tmp_path)
        agent = await agents.create("me", {"model": "tiny", "instructions": ""})
        session = await agents.create_session("me", agent, "talk")
        async for _ in events(await agents.start_turn("me", agent, session, HELLO)):
            pass
        assert len((await agents.session("me", agent, session))["turns"]) == 1
        assert [s["session_name"] for s in await agents.sessions("me", agent)] == ["talk"]
        for call in (
            agents.get("you", agent),
            agents.session("you", agent, session),
            agents.session("me", "x", session),
        ):
            with pytest.raises(ApiError) as refused:
                await call
            assert refused.value.status == 404
        await agents.delete("me", agent)
        assert stack.store.list("agent_turn", "me").records == []
        assert stack.store.list("agent_session", "me").records == []
        assert await agents.list("me") == []

    asyncio.run(go())


@pytest.mark.parametrize(
    "config",
    [
        {"model": "none"},
        {"input_shields": ["none"]},
        {"toolgroups": ["none"]},
        {"client_tools": [{}]},
        {"sampling_params": {"strategy": {"type": "beam"}}},
    ],
)
def test_an_agent_that_could_not_work_is_refused(tmp_path: Path, config: dict) -> None:
    async def go() -> None:
        _, agents = await started(tmp_path)
        with pytest.raises(ApiError):
            await agents.create("", {"model": "tiny", **config})

    asyncio.run(go())


def test_a_session_has_one_turn_at_a_time(tmp_path: Path) -> None:
    async def go() -> None:
        _, agents = await started(tmp_path, pause=0.05)
        agent = await agents.create("", {"model": "tiny"})
        session = await agents.create_session("", agent, "")
        stream = events(await agents.start_turn("", agent, session, HELLO))
        await anext(stream)
        with pytest.raises(ApiError) as refused:
            await agents.start_turn("", agent, session, HELLO)
        assert refused.value.status == 409
        await stream.aclose()
        await agents.start_turn("", agent, session, HELLO)

    asyncio.run(go())


def test_a_client_that_leaves_ends_the_turn_and_what_was_said_is_kept(tmp_path: Path) -> None:
    async def go() -> None:
        stack, agents = await started(tmp_path, pause=0.05)
        agent = await agents.create("", {"model": "tiny"})
        session = await agents.create_session("", agent, "")
        stream = events(await agents.start_turn("", agent, session, HELLO))
        async for payload in stream:
            if payload["event_type"] == "step_progress":
                break
        await asyncio.wait_for(stream.aclose(), 1)
        provider = stack.providers["scripted"]
        assert isinstance(provider, ScriptedProvider)
        turn = stack.store.list("agent_turn").records[0].data
        assert (turn["status"], turn["completed_at"]) == ("failed", None)

    asyncio.run(go())


def test_a_failure_is_the_streams_last_payload(tmp_path: Path) -> None:
    async def go() -> None:
        _, agents = await started(tmp_path, answers=[RuntimeError("the secret")])
        agent = await agents.create("", {"model": "tiny"})
        session = await agents.create_session("", agent, "")
        last: dict[str, Any] = {}
        async for payload in events(await agents.start_turn("", agent, session, HELLO)):
            last = payload
        assert last["error"]["code"] == "internal_error"
        assert "secret" not in str(last)

    asyncio.run(go())


def test_a_turn_needs_a_users_message(tmp_path: Path) -> None:
    async def go() -> None:
        _, agents = await started(tmp_path)
        agent = await agents.create("", {"model": "tiny"})
        session = await agents.create_session("", agent, "")
        with pytest.raises(ApiError) as refused:
            await agents.start_turn("", agent, session, {"messages": [{"role": "assistant", "content": "x"}]})
        assert (refused.value.status, refused.value.param) == (400, "messages")

    asyncio.run(go())
