"""/v1/responses: OpenAI's responses API, as the Open Responses text sets it.

Left out: the WebSocket form.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, FastAPI, Query, Request
from starlette.responses import JSONResponse, Response

from puna.stack import sse
from puna.stack.context import caller_of, stack_of
from puna.stack.errors import ApiError, not_found
from puna.stack.responses import records
from puna.stack.responses.compaction import compact
from puna.stack.responses.events import view
from puna.stack.responses.forms import FormsToo
from puna.stack.responses.items import public
from puna.stack.responses.marks import UNDER_WAY
from puna.stack.responses.paging import page
from puna.stack.responses.plan import make_plan
from puna.stack.responses.service import responses_of
from puna.stack.state.store import run
from puna.stack.wire.base import listed
from puna.stack.wire.responses import Compact, CreateResponse

Limit = Annotated[int, Query(ge=1, le=100)]
Order = Literal["asc", "desc"]


@asynccontextmanager
async def _running(app: FastAPI) -> AsyncIterator[None]:
    service = responses_of(app.state.stack)
    await service.start()
    try:
        yield
    finally:
        await service.stop()


router = APIRouter(tags=["Responses"], lifespan=_running, route_class=FormsToo)


def _include(request: Request) -> tuple[str, ...]:
    """What to show of items; OpenAI's clients write the name of a list with brackets."""
    query = request.query_params
    return (*query.getlist("include"), *query.getlist("include[]"))


@router.post("/v1/responses", response_model=None)
async def create_response(request: Request, body: CreateResponse) -> Response:
    """Answers; as one object, as events, or in the background."""
    stack, caller = stack_of(request), caller_of(request)
    service = responses_of(stack)
    if body.background:
        plan = await make_plan(stack, caller, body)
        queued = view(plan.response, plan.include)
        feed = await service.launch(plan)
        return sse.EventStream(feed.read()) if body.stream else JSONResponse(queued)
    if body.stream:
        return sse.EventStream(service.stream(await make_plan(stack, caller, body)))
    async with sse.connected(request.receive):
        return JSONResponse(await service.answer(await make_plan(stack, caller, body)))


@router.get("/v1/responses", response_model=None)
async def list_responses(
    request: Request,
    after: str | None = None,
    before: str | None = None,
    limit: Limit = 20,
    order: Order = "desc",
    model: str | None = None,
) -> Response:
    """The caller's kept responses, with the items that came with each."""
    stack, owner = stack_of(request), caller_of(request).owner

    def read() -> dict[str, Any]:
        found: list[dict[str, Any]] = []
        at = after
        while True:
            part = stack.store.list(records.RESPONSE, owner, after=at, before=before, limit=limit, order=order)
            for record in part.records:
                kept = records.kept_of(record)
                if model is None or kept.response["model"] == model:
                    if len(found) == limit:
                        return listed(found, True)
                    found.append({**view(kept.response, kept.include), "input": [public(item) for item in kept.input]})
            if model is None or not part.has_more or before is not None:
                return listed(found, part.has_more and model is None)
            at = part.records[-1].id

    return JSONResponse(await run(read))


@router.get("/v1/responses/{response_id}", response_model=None)
async def get_response(
    request: Request, response_id: str, stream: bool = False, starting_after: Annotated[int | None, Query(ge=0)] = None
) -> Response:
    """A kept response; one in the background can be watched as events, from any event on."""
    service, owner = responses_of(stack_of(request)), caller_of(request).owner
    kept = await service.load(owner, response_id)
    if stream:
        return sse.EventStream(service.watch(response_id, starting_after))
    return JSONResponse(view(kept.response, {*kept.include, *_include(request)}))


@router.delete("/v1/responses/{response_id}", response_model=None)
async def delete_response(request: Request, response_id: str) -> Response:
    """Deletes a response and its items; one in the background is cancelled first."""
    stack, owner = stack_of(request), caller_of(request).owner
    service = responses_of(stack)
    kept = await service.load(owner, response_id)
    if kept.response["status"] in UNDER_WAY:
        if not kept.response["background"]:
            raise ApiError(409, f"{response_id!r} is under way; it ends when its client leaves.", code="under_way")
        with suppress(ApiError):  # it may have ended by itself just now
            await service.cancel(owner, response_id)
    if not await run(records.delete, stack.store, owner, response_id):
        raise not_found("response", response_id, "response_id")
    return JSONResponse({"id": response_id, "object": "response", "deleted": True})


@router.post("/v1/responses/compact", response_model=None)
async def compact_response(request: Request, body: Compact) -> Response:
    """A conversation made shorter."""
    async with sse.connected(request.receive):
        return JSONResponse(await compact(stack_of(request), caller_of(request), body))


@router.post("/v1/responses/{response_id}/cancel", response_model=None)
async def cancel_response(request: Request, response_id: str) -> Response:
    """Ends a response in the background."""
    kept = await responses_of(stack_of(request)).cancel(caller_of(request).owner, response_id)
    return JSONResponse(view(kept.response, kept.include))


@router.get("/v1/responses/{response_id}/input_items", response_model=None)
async def list_input_items(
    request: Request,
    response_id: str,
    after: str | None = None,
    before: str | None = None,
    limit: Limit = 20,
    order: Order = "desc",
) -> Response:
    """The items that came with a response's request."""
    load = partial(records.load, stack_of(request).store, caller_of(request).owner, response_id)
    items = [public(item, _include(request)) for item in (await run(load)).input]
    return JSONResponse(page(items, after, before, limit, order))
