"""Shields, and what they say of messages: `/v1/shields` and `/v1/safety/run-shield`."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from puna.stack.agents.llama import message_from
from puna.stack.context import caller_of, stack_of
from puna.stack.safety.guard import guard_of, violation
from puna.stack.wire.base import listed
from puna.stack.wire.safety import RunShieldBody, ShieldBody

router = APIRouter(prefix="/v1", tags=["safety"])


@router.get("/shields")
async def list_shields(request: Request) -> JSONResponse:
    return JSONResponse(listed(await guard_of(stack_of(request)).list(caller_of(request).owner)))


@router.post("/shields")
async def register_shield(body: ShieldBody, request: Request) -> JSONResponse:
    guard, owner = guard_of(stack_of(request)), caller_of(request).owner
    kind, resource = body.provider_id, body.provider_shield_id
    return JSONResponse(await guard.register(owner, body.shield_id, kind, resource, body.params or {}))


@router.get("/shields/{identifier:path}")
async def get_shield(identifier: str, request: Request) -> JSONResponse:
    return JSONResponse(await guard_of(stack_of(request)).get(caller_of(request).owner, identifier))


@router.delete("/shields/{identifier:path}", status_code=204)
async def delete_shield(identifier: str, request: Request) -> Response:
    await guard_of(stack_of(request)).delete(caller_of(request).owner, identifier)
    return Response(status_code=204)


@router.post("/safety/run-shield")
async def run_shield(body: RunShieldBody, request: Request) -> JSONResponse:
    """What a shield says of the last message: null, or a violation with its level."""
    messages = [message_from(message) for message in body.messages]
    verdict = await guard_of(stack_of(request)).check(caller_of(request).owner, body.shield_id, messages)
    return JSONResponse({"violation": violation(body.shield_id, verdict)})
