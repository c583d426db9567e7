"""Which of some texts fit a question best: by a model made for ranking, or by the angle between embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse

from puna.stack.context import Stack, new_id, stack_of
from puna.stack.conversion import content_of
from puna.stack.errors import ApiError, invalid, not_implemented
from puna.stack.routes.models import find
from puna.stack.sse import connected
from puna.stack.wire.embeddings import InferenceRerankRequest, RerankRequest

router = APIRouter(tags=["rerank"])
_MOST_TEXTS = 2048


@router.post("/v1alpha/inference/rerank", response_model=None)
async def rerank_items(request: Request, body: InferenceRerankRequest) -> JSONResponse:
    query = _text(body.query, "query")
    texts = [_text(item, f"items.{i}") for i, item in enumerate(body.items)]
    async with connected(request.receive):
        ranked = await _ranked(stack_of(request), body.model, query, texts, "items")
    best = [{"index": i, "relevance_score": score} for i, score in ranked[: body.max_num_results]]
    return JSONResponse({"data": best})


@router.post("/v1/rerank", response_model=None)
async def rerank(request: Request, body: RerankRequest) -> JSONResponse:
    texts = [_text(item, f"documents.{i}") for i, item in enumerate(body.documents)]
    async with connected(request.receive):
        ranked = await _ranked(stack_of(request), body.model, body.query, texts, "documents")
    results: list[dict[str, Any]] = []
    for i, score in ranked[: body.top_n]:
        shown = {"document": {"text": texts[i]}} if body.return_documents is not False else {}
        results.append({"index": i, "relevance_score": score, **shown})
    return JSONResponse({"id": new_id("rerank"), "model": body.model, "results": results})


def _text(item: str | dict[str, Any], param: str) -> str:
    if isinstance(item, dict) and "type" not in item:
        item = {"type": "text", **item}
    return content_of(item if isinstance(item, str) else [item], param)


async def _ranked(stack: Stack, model: str, query: str, texts: Sequence[str], param: str) -> list[tuple[int, float]]:
    """(place, score) of the texts, best first; of equals the first comes first."""
    if not texts:
        raise invalid("There is nothing to rank.", param, "empty_array")
    if len(texts) > _MOST_TEXTS:
        raise invalid(f"There are {len(texts):,} texts; at most {_MOST_TEXTS:,} are ranked at once.", param)
    scores = await _scores(stack, model, query, texts)
    return sorted(enumerate(scores), key=lambda pair: -pair[1])


async def _scores(stack: Stack, model: str, query: str, texts: Sequence[str]) -> list[float]:
    try:
        provider, info = await find(stack, model, "rerank")
    except ApiError as error:
        if error.status != 400:
            raise
        provider, info = await find(stack, model, "embedding")
        asked, *vectors = await provider.embed(info.id, [query, *texts])
        return [_cosine(asked, vector) for vector in vectors]
    if not hasattr(provider, "rerank"):
        raise not_implemented(f"The provider {provider.id!r} ({provider.type}) cannot rank.") from None
    return await cast(Any, provider).rerank(info.id, query, texts)


def _cosine(a: Sequence[float], b: Sequence[float]) -> float:
    lengths = (sum(x * x for x in a) * sum(y * y for y in b)) ** 0.5
    return sum(x * y for x, y in zip(a, b, strict=True)) / lengths if lengths else 0.0
