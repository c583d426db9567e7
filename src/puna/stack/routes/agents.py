"""Agents, their sessions and turns: `/v1alpha/agents`, and `/v1/agents` as older clients have them.

A streamed turn is server-sent events {"event": {"payload"}}; a failure on the way is a last {"error"}.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import JSONResponse, Response

from puna.stack.agents.llama import Dialect, in_dialect
from puna.stack.agents.service import agents_of, events, finish
from puna.stack.agents.turn import Emit, shown_turn
from puna.stack.context import caller_of, stack_of
from puna.stack.errors import not_found
from puna.stack.sse import EventStream, event, told
from puna.stack.wire.agents import AgentBody, ResumeBody, SessionBody, TurnBody

_routes = APIRouter(prefix="/agents", tags=["agents"])
_TURN = "/{agent_id}/session/{session_id}/turn"


def _dialect(request: Request) -> Dialect:
    return "v1alpha" if request.url.path.startswith("/v1alpha/") else "v1"


def _page(data: list[dict[str, Any]], start: int, limit: int | None) -> JSONResponse:
    end = len(data) if limit is None else start + limit
    return JSONResponse({"object": "list", "data": data[start:end], "has_more": end < len(data), "url": None})


@_routes.post("")
async def create_agent(body: AgentBody, request: Request) -> JSONResponse:
    config = body.agent_config.model_dump(exclude_none=True)
    return JSONResponse({"agent_id": await agents_of(stack_of(request)).create(caller_of(request).owner, config)})


@_routes.get("")
async def list_agents(
    request: Request,
    start_index: Annotated[int, Query(ge=0)] = 0,
    limit: Annotated[int | None, Query(ge=1)] = None,
) -> JSONResponse:
    return _page(await agents_of(stack_of(request)).list(caller_of(request).owner), start_index, limit)


@_routes.get("/{agent_id}")
async def get_agent(agent_id: str, request: Request) -> JSONResponse:
    return JSONResponse(await agents_of(stack_of(request)).get(caller_of(request).owner, agent_id))


@_routes.delete("/{agent_id}", status_code=204)
async def delete_agent(agent_id: str, request: Request) -> Response:
    await agents_of(stack_of(request)).delete(caller_of(request).owner, agent_id)
    return Response(status_code=204)


@_routes.post("/{agent_id}/session")
async def create_session(agent_id: str, body: SessionBody, request: Request) -> JSONResponse:
    agents, owner = agents_of(stack_of(request)), caller_of(request).owner
    return JSONResponse({"session_id": await agents.create_session(owner, agent_id, body.session_name)})


@_routes.get("/{agent_id}/sessions")
async def list_sessions(
    agent_id: str,
    request: Request,
    start_index: Annotated[int, Query(ge=0)] = 0,
    limit: Annotated[int | None, Query(ge=1)] = None,
) -> JSONResponse:
    return _page(await agents_of(stack_of(request)).sessions(caller_of(request).owner, agent_id), start_index, limit)


@_routes.get("/{agent_id}/session/{session_id}")
async def get_session(
    agent_id: str, session_id: str, request: Request, turn_ids: Annotated[list[str] | None, Query()] = None
) -> JSONResponse:
    agents, owner = agents_of(stack_of(request)), caller_of(request).owner
    session = await agents.session(owner, agent_id, session_id, turn_ids or ())
    return JSONResponse(in_dialect(session, _dialect(request)))


@_routes.delete("/{agent_id}/session/{session_id}", status_code=204)
async def delete_session(agent_id: str, session_id: str, request: Request) -> Response:
    await agents_of(stack_of(request)).delete_session(caller_of(request).owner, agent_id, session_id)
    return Response(status_code=204)


@_routes.post(_TURN)
async def create_turn(agent_id: str, session_id: str, body: TurnBody, request: Request) -> Response:
    agents, caller = agents_of(stack_of(request)), caller_of(request)
    given = body.model_dump(exclude_none=True)
    work = await agents.start_turn(caller.owner, agent_id, session_id, given, caller.provider_keys)
    return await _answer(request, work, bool(body.stream))


@_routes.post(_TURN + "/{turn_id}/resume")
async def resume_turn(agent_id: str, session_id: str, turn_id: str, body: ResumeBody, request: Request) -> Response:
    agents, caller, given = agents_of(stack_of(request)), caller_of(request), body.tool_responses
    results = [{"call_id": id, **result} for id, result in given.items()] if isinstance(given, dict) else given
    work = await agents.resume_turn(caller.owner, agent_id, session_id, turn_id, results, caller.provider_keys)
    return await _answer(request, work, bool(body.stream))


@_routes.get(_TURN + "/{turn_id}")
async def get_turn(agent_id: str, session_id: str, turn_id: str, request: Request) -> JSONResponse:
    return JSONResponse(in_dialect(await _turn(request, agent_id, session_id, turn_id), _dialect(request)))


@_routes.get(_TURN + "/{turn_id}/step/{step_id}")
async def get_step(agent_id: str, session_id: str, turn_id: str, step_id: str, request: Request) -> JSONResponse:
    turn = await _turn(request, agent_id, session_id, turn_id)
    step = next((step for step in turn["steps"] if step["step_id"] == step_id), None)
    if step is None:
        raise not_found("step", step_id, "step_id")
    return JSONResponse({"step": in_dialect(step, _dialect(request))})


async def _turn(request: Request, agent: str, session: str, turn: str) -> dict[str, Any]:
    agents, owner = agents_of(stack_of(request)), caller_of(request).owner
    record = await agents.turn(owner, session, turn)
    if record["agent_id"] != agent:
        raise not_found("turn", turn, "turn_id")
    return shown_turn(record)


async def _answer(request: Request, work: Callable[[Emit], Awaitable[None]], stream: bool) -> Response:
    dialect = _dialect(request)
    if not stream:
        return JSONResponse(in_dialect(await finish(work), dialect))
    return EventStream(_pieces(work, dialect), failed=told)


async def _pieces(work: Callable[[Emit], Awaitable[None]], dialect: Dialect) -> AsyncGenerator[bytes, None]:
    async with aclosing(events(work)) as payloads:
        async for payload in payloads:
            yield event(payload if "error" in payload else {"event": {"payload": in_dialect(payload, dialect)}})


router = APIRouter()
for _prefix in ("/v1alpha", "/v1"):
    router.include_router(_routes, prefix=_prefix)
