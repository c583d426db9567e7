"""Scoring functions, and rows scored by them: `/v1/scoring-functions`, `/v1/scoring/score` and `score-batch`."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from puna.stack.context import caller_of, new_id, stack_of
from puna.stack.jobs.evaluation import datasets_of
from puna.stack.scoring.service import scoring_of
from puna.stack.wire.base import listed
from puna.stack.wire.scoring import ScoreBatchBody, ScoreBody, ScoringFunctionBody

router = APIRouter(prefix="/v1", tags=["scoring"])


@router.get("/scoring-functions")
async def list_functions(request: Request) -> JSONResponse:
    return JSONResponse(listed(await scoring_of(stack_of(request)).functions.list(caller_of(request).owner)))


@router.post("/scoring-functions")
async def register_function(body: ScoringFunctionBody, request: Request) -> JSONResponse:
    data = body.model_dump() | {"provider_resource_id": body.provider_scoring_fn_id}
    scoring = scoring_of(stack_of(request))
    return JSONResponse(await scoring.register(caller_of(request).owner, body.scoring_fn_id, data))


@router.get("/scoring-functions/{identifier:path}")
async def get_function(identifier: str, request: Request) -> JSONResponse:
    functions = scoring_of(stack_of(request)).functions
    return JSONResponse(await functions.get(caller_of(request).owner, identifier))


@router.delete("/scoring-functions/{identifier:path}", status_code=204)
async def delete_function(identifier: str, request: Request) -> Response:
    await scoring_of(stack_of(request)).functions.delete(caller_of(request).owner, identifier)
    return Response(status_code=204)


@router.post("/scoring/score")
async def score(body: ScoreBody, request: Request) -> JSONResponse:
    scoring, caller = scoring_of(stack_of(request)), caller_of(request)
    rows, keys = body.input_rows, caller.provider_keys
    return JSONResponse({"results": await scoring.score(caller.owner, rows, body.scoring_functions, keys)})


@router.post("/scoring/score-batch")
async def score_batch(body: ScoreBatchBody, request: Request) -> JSONResponse:
    """Scores a dataset; `save_results_dataset` keeps the scores as a dataset of their own, whose id is answered."""
    stack, owner = stack_of(request), caller_of(request).owner
    rows = await datasets_of(stack).rows(owner, body.dataset_id)
    results = await scoring_of(stack).score(owner, rows, body.scoring_functions, caller_of(request).provider_keys)
    answer = {"results": results, "dataset_id": None}
    if body.save_results_dataset:
        columns = {id: result["score_rows"] for id, result in results.items()}
        scored = [{**row, "scores": {id: column[i] for id, column in columns.items()}} for i, row in enumerate(rows)]
        answer["dataset_id"] = new_id("dataset")
        source, about = {"rows": scored}, {"scored": body.dataset_id}
        await datasets_of(stack).register(owner, answer["dataset_id"], "eval/question-answer", source, about)
    return JSONResponse(answer)
