"""Prompts with versions: `/v1/prompts`. A version never changes; one of them is the default."""

from __future__ import annotations

import re
import secrets
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import JSONResponse, Response

from puna.stack.context import Stack, caller_of, stack_of
from puna.stack.errors import ApiError, invalid, not_found
from puna.stack.state.store import every, run
from puna.stack.wire.base import listed
from puna.stack.wire.prompts import DefaultVersion, PromptBody, PromptUpdate

router = APIRouter(prefix="/v1/prompts", tags=["prompts"])
_VARIABLE = re.compile(r"\{\{\s*(\w+)\s*\}\}")


@router.get("")
async def list_prompts(request: Request) -> JSONResponse:
    """Every prompt in its default version."""
    store, owner = stack_of(request).store, caller_of(request).owner

    def read() -> list[dict[str, Any]]:
        return [_version(stack_of(request), owner, record.id, None) for record in every(store, "prompt", owner)]

    return JSONResponse(listed(await run(read)))


@router.post("")
async def create_prompt(body: PromptBody, request: Request) -> JSONResponse:
    stack, owner, id = stack_of(request), caller_of(request).owner, f"pmpt_{secrets.token_hex(24)}"
    _check(body)

    def write() -> dict[str, Any]:
        with stack.store.transaction():
            stack.store.insert("prompt", id, {"default": 1, "latest": 1}, owner=owner)
            return _add(stack, owner, id, 1, body)

    await run(write)
    return JSONResponse(await run(_version, stack, owner, id, 1))


@router.get("/{prompt_id}")
async def get_prompt(
    prompt_id: str, request: Request, version: Annotated[int | None, Query(ge=1)] = None
) -> JSONResponse:
    return JSONResponse(await run(_version, stack_of(request), caller_of(request).owner, prompt_id, version))


@router.post("/{prompt_id}")
@router.put("/{prompt_id}")
async def update_prompt(prompt_id: str, body: PromptUpdate, request: Request) -> JSONResponse:
    """Writes the next version; 409 where somebody else has written it since this one was read."""
    stack, owner = stack_of(request), caller_of(request).owner
    _check(body)

    def write() -> int:
        with stack.store.transaction():
            head = _head(stack, owner, prompt_id)
            if body.version != head["latest"]:
                message = f"The latest version of this prompt is {head['latest']}, not {body.version}."
                raise ApiError(409, message, param="version", code="conflict")
            number = head["latest"] + 1
            default = number if body.set_as_default else head["default"]
            stack.store.put("prompt", prompt_id, {"default": default, "latest": number}, owner=owner)
            _add(stack, owner, prompt_id, number, body)
            return number

    return JSONResponse(await run(_version, stack, owner, prompt_id, await run(write)))


@router.delete("/{prompt_id}", status_code=204)
async def delete_prompt(prompt_id: str, request: Request) -> Response:
    stack, owner = stack_of(request), caller_of(request).owner

    def erase() -> None:
        with stack.store.transaction():
            _head(stack, owner, prompt_id)
            stack.store.delete_children("prompt_version", prompt_id, owner)
            stack.store.delete("prompt", prompt_id, owner)

    await run(erase)
    return Response(status_code=204)


@router.get("/{prompt_id}/versions")
async def list_versions(prompt_id: str, request: Request) -> JSONResponse:
    stack, owner = stack_of(request), caller_of(request).owner

    def read() -> list[dict[str, Any]]:
        latest = _head(stack, owner, prompt_id)["latest"]
        return [_version(stack, owner, prompt_id, number) for number in range(1, latest + 1)]

    return JSONResponse(listed(await run(read)))


@router.post("/{prompt_id}/set-default-version")
@router.put("/{prompt_id}/set-default-version")
async def set_default_version(prompt_id: str, body: DefaultVersion, request: Request) -> JSONResponse:
    stack, owner = stack_of(request), caller_of(request).owner

    def write() -> dict[str, Any]:
        with stack.store.transaction():
            head = _head(stack, owner, prompt_id)
            _version(stack, owner, prompt_id, body.version)
            stack.store.put("prompt", prompt_id, {**head, "default": body.version}, owner=owner)
            return _version(stack, owner, prompt_id, body.version)

    return JSONResponse(await run(write))


def _check(body: PromptBody) -> None:
    if unnamed := sorted(set(_VARIABLE.findall(body.prompt)) - set(body.variables)):
        raise invalid(f"The prompt uses {', '.join(unnamed)}, which variables does not name.", "variables")


def _add(stack: Stack, owner: str, id: str, number: int, body: PromptBody) -> dict[str, Any]:
    data = {"prompt": body.prompt, "variables": list(body.variables)}
    stack.store.insert("prompt_version", f"{id}:{number}", data, owner=owner, parent=id)
    return data


def _head(stack: Stack, owner: str, id: str) -> dict[str, Any]:
    record = stack.store.get("prompt", id, owner)
    if record is None:
        raise not_found("prompt", id, "prompt_id")
    return dict(record.data)


def _version(stack: Stack, owner: str, id: str, number: int | None) -> dict[str, Any]:
    head = _head(stack, owner, id)
    number = head["default"] if number is None else number
    record = stack.store.get("prompt_version", f"{id}:{number}", owner)
    if record is None:
        raise not_found("version of the prompt", str(number), "version")
    return {"prompt_id": id, "version": number, "is_default": number == head["default"], **record.data}
