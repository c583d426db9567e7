"""Routing seen from outside: decisions with their reasons, what was spent, prices with their sources, and explanations.

A caller sees the decisions and the spending of its own requests alone. Nothing here asks a model.
"""

from __future__ import annotations

import datetime
from dataclasses import replace
from typing import Any, Literal

from fastapi import APIRouter, Query, Request
from starlette.responses import JSONResponse

from puna.base.config import to_dict
from puna.base.errors import InputError
from puna.core.chat import Message, ToolSpec
from puna.core.completion import SamplingParams
from puna.stack.context import Caller, Stack, caller_of, stack_of
from puna.stack.errors import invalid, not_found
from puna.stack.providers.provider import Ask
from puna.stack.routing import explain as explaining
from puna.stack.routing.accounts import DECISION, LEDGER, totals
from puna.stack.routing.candidate import Candidate
from puna.stack.routing.config import RouteConfig
from puna.stack.routing.decision import Decision, replay
from puna.stack.routing.facts import Facts, of_ask
from puna.stack.routing.prices import PriceBook, built_in
from puna.stack.routing.router import Router
from puna.stack.routing.wishes import read_wishes
from puna.stack.state.store import run
from puna.stack.wire.base import listed
from puna.stack.wire.routing import ExplainRequest

router = APIRouter(prefix="/v1alpha/routing", tags=["routing"])
_MOST = 10_000  # ledger entries that are summed


def router_of(stack: Stack) -> Router | None:
    """The stack's router, where it has one; it may be wrapped by a meter."""
    for provider in stack.providers.values():
        inner = getattr(provider, "provider", provider)
        if isinstance(inner, Router):
            return inner
    return None


@router.get("/decisions", response_model=None)
async def list_decisions(
    request: Request,
    after: str | None = None,
    limit: int = Query(20, ge=1, le=100),
    order: Literal["asc", "desc"] = "desc",
) -> JSONResponse:
    """The decisions of the caller's requests; the last one first."""
    stack, caller = stack_of(request), caller_of(request)
    page = await run(stack.store.list, DECISION, caller.owner, after=after, limit=limit, order=order)
    return JSONResponse(listed([dict(record.data) for record in page.records], page.has_more))


@router.get("/decisions/{id}", response_model=None)
async def get_decision(request: Request, id: str) -> JSONResponse:
    """A decision, made again on the spot: `replays` says whether it comes out the same."""
    record = await run(stack_of(request).store.get, DECISION, id, caller_of(request).owner)
    if record is None:
        raise not_found("routing decision", id)
    _, same = replay(record.data)
    return JSONResponse({**record.data, "replays": same})


@router.get("/ledger", response_model=None)
async def ledger(
    request: Request,
    after: str | None = None,
    limit: int = Query(20, ge=1, le=100),
    order: Literal["asc", "desc"] = "desc",
) -> JSONResponse:
    """What the caller's requests cost, entry by entry and in sums, and what its budgets have left today."""
    stack, caller = stack_of(request), caller_of(request)
    page = await run(stack.store.list, LEDGER, caller.owner, after=after, limit=limit, order=order)
    every = await run(stack.store.list, LEDGER, caller.owner, limit=_MOST)
    data = [{"id": r.id, "created_at": int(r.created), **r.data} for r in page.records]
    left = {}
    if (found := router_of(stack)) is not None:
        left = {name: await run(route.accounts.left, caller.owner) for name, route in found.routes.items()}
    sums = {**totals(every.records), "complete": not every.has_more}
    return JSONResponse({**listed(data, page.has_more), "totals": sums, "left_today": left})


@router.get("/prices", response_model=None)
async def prices(request: Request, model: str | None = None) -> JSONResponse:
    """The price file's rows with sources, dates and doubts."""
    book = _book(stack_of(request))
    rows = book.of_model(model) if model else book.rows
    data = [_row(book, row) for row in rows]
    return JSONResponse({**listed(data), "fingerprint": book.fingerprint, "today": datetime.date.today().isoformat()})


def _row(book: PriceBook, row: Any) -> dict[str, Any]:
    id = f"{row.provider}/{row.id or row.model}"
    return {**to_dict(row), "id": id, "provider_model_id": row.id, "doubts": list(book.doubts(row))}


@router.post("/explain", response_model=None, responses={200: {"description": "A decision; see `verdicts`."}})
async def explain(request: Request, body: ExplainRequest) -> JSONResponse:
    """What would be decided for a request, and why; nobody is asked."""
    stack, caller = stack_of(request), caller_of(request)
    decision = await _decision(stack, caller, body)
    order = [candidate.key for candidate in decision.order]
    return JSONResponse({"object": "routing.explanation", **decision.to_json(), "order": order})


async def _decision(stack: Stack, caller: Caller, body: ExplainRequest) -> Decision:
    wishes = read_wishes(body.provider)
    found = router_of(stack)
    ask = _ask(body, caller)
    if body.price_list is not None or found is None:
        book = _book(stack)
        if body.price_list is None:
            raise invalid(
                "The server has no router, so price_list must name a model of the price file: "
                f"{', '.join(book.models())}.",
                "price_list",
            )
        facts = _facts(body, ask, RouteConfig().expected_output)
        try:
            return explaining.judge(
                facts, RouteConfig(), wishes, explaining.offers(book, body.price_list, body.cached_tokens)
            )
        except InputError as error:
            raise invalid(f"{error.message} {error.hint}", "price_list") from error
    try:
        route = found.route(body.route)
    except InputError as error:
        raise invalid(f"{error.message} {error.hint}", "route") from error
    candidates: list[Candidate] = await route.market.candidates(ask)
    facts = _facts(body, ask, found.state.meter.usual_output)
    return explaining.judge(facts, route.config, wishes, explaining.with_cached(candidates, body.cached_tokens))


def _ask(body: ExplainRequest, caller: Caller) -> Ask | None:
    """The chat request within the body, where there is one."""
    if body.messages is None:
        if body.prompt_tokens is None:
            raise invalid("An explanation needs messages, or prompt_tokens.", "prompt_tokens")
        return None
    messages = tuple(Message.from_json(message) for message in body.messages)
    tools = tuple(ToolSpec.from_json(tool) for tool in body.tools or ())
    return Ask(body.route, messages, SamplingParams(max_tokens=body.max_tokens, n=body.n), tools, owner=caller.owner)


def _facts(body: ExplainRequest, ask: Ask | None, usual_output: float) -> Facts:
    if ask is not None and body.prompt_tokens is None:
        facts = of_ask(ask, body.output_tokens or usual_output)
        return replace(facts, needs=tuple(dict.fromkeys((*facts.needs, *body.needs))))
    output = min(body.output_tokens or round(usual_output), body.max_tokens)
    return explaining.facts_of(body.prompt_tokens or 0, output, body.max_tokens, body.n, body.needs)


def _book(stack: Stack) -> PriceBook:
    found = router_of(stack)
    return next(iter(found.routes.values())).prices if found is not None else built_in()
