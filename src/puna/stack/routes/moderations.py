"""`/v1/moderations`: OpenAI's form, answered by a shield: the one that `model` names, or else the owner's first."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse

from puna.core.chat import Message
from puna.core.verdict import Verdict
from puna.stack.agents.llama import text_of
from puna.stack.context import caller_of, new_id, stack_of
from puna.stack.errors import invalid
from puna.stack.safety.guard import guard_of
from puna.stack.wire.safety import ModerationBody

router = APIRouter(prefix="/v1", tags=["safety"])


@router.post("/moderations")
async def moderate(body: ModerationBody, request: Request) -> JSONResponse:
    """A result for each input; a list of parts is one input."""
    guard, owner = guard_of(stack_of(request)), caller_of(request).owner
    shield = body.model or await guard.default(owner)
    known = await guard.hazards(owner, shield)
    texts = _texts(body.input)
    verdicts = [await guard.check(owner, shield, [Message("user", text)]) for text in texts]
    results = [_result(verdict, known) for verdict in verdicts]
    return JSONResponse({"id": new_id("modr"), "model": shield, "results": results})


def _texts(given: str | list[str | dict[str, Any]]) -> list[str]:
    if isinstance(given, str):
        return [given]
    if not given:
        raise invalid("There is nothing to moderate: input is an empty list.", "input")
    if all(isinstance(part, str) for part in given):
        return [str(part) for part in given]
    return [text_of(given, "input")]


def _result(verdict: Verdict, known: tuple[str, ...]) -> dict[str, Any]:
    hazards = sorted({*known, *verdict.hazards, *verdict.scores})
    return {
        "flagged": not verdict.allowed,
        "categories": {hazard: hazard in verdict.hazards for hazard in hazards},
        "category_scores": {h: verdict.scores.get(h, float(h in verdict.hazards)) for h in hazards},
        "category_applied_input_types": {hazard: ["text"] for hazard in hazards},
        "user_message": verdict.reason or None,
        "metadata": {},
    }
