"""Texts to vectors, by a model of type "embedding"."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse

from puna.stack.context import stack_of
from puna.stack.errors import ApiError, invalid
from puna.stack.providers.provider import Provider
from puna.stack.providers.vocabulary import vocabulary_of
from puna.stack.routes.models import find
from puna.stack.sse import connected
from puna.stack.wire.embeddings import EmbeddingRequest, embeddings_json, shortened

router = APIRouter(tags=["embeddings"])
_MOST_TEXTS = 2048


@router.post("/v1/openai/v1/embeddings", response_model=None, include_in_schema=False)
@router.post("/v1/embeddings", response_model=None)
async def create(request: Request, body: EmbeddingRequest) -> JSONResponse:
    texts = _texts(body)
    provider, info = await find(stack_of(request), body.model, "embedding")
    if body.dimensions and info.dimensions and body.dimensions > info.dimensions:
        raise invalid(
            f"dimensions is {body.dimensions}; the vectors of {body.model!r} have {info.dimensions}.", "dimensions"
        )
    async with connected(request.receive):
        vectors = await provider.embed(info.id, texts)
        tokens = await _count(provider, info.id, texts)
    if body.dimensions:
        vectors = [shortened(vector, body.dimensions) for vector in vectors]
    name = f"{provider.id}/{info.id}"
    return JSONResponse(embeddings_json(name, vectors, body.encoding_format == "base64", tokens))


def _texts(body: EmbeddingRequest) -> list[str]:
    if isinstance(body.input, str):
        return [body.input]
    if not body.input:
        raise invalid("There is no text in the list.", "input", "empty_array")
    texts = [text for text in body.input if isinstance(text, str)]
    if len(texts) < len(body.input):
        raise invalid("The input is token ids; send texts, for each model has ids of its own.", "input")
    if len(texts) > _MOST_TEXTS:
        raise invalid(f"There are {len(texts):,} texts; at most {_MOST_TEXTS:,} are taken at once.", "input")
    return texts


async def _count(provider: Provider, model: str, texts: Sequence[str]) -> int:
    """Tokens of the texts; 0 where nobody here knows the model's tokenizer."""
    try:
        vocabulary = vocabulary_of(provider, "counting")
    except ApiError:
        return 0
    return sum([len(await vocabulary.encode(model, text, bos=True)) for text in texts])
