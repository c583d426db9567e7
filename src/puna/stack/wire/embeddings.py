"""Embeddings and rankings on the wire: OpenAI's form of the one, and of the other OGX's and the one that Jina's,
Cohere's and vLLM's servers share.
"""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from puna.stack.wire.base import Wire


class EmbeddingRequest(Wire):
    """The body of POST /v1/embeddings."""

    model: str
    input: str | list[str] | list[int] | list[list[int]]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = Field(None, ge=1, description="Keep so many of the first numbers, scaled to length 1.")


class InferenceRerankRequest(Wire):
    """The body of POST /v1alpha/inference/rerank."""

    model: str
    query: str | dict[str, Any]
    items: list[str | dict[str, Any]]
    max_num_results: int | None = Field(None, ge=1)


class RerankRequest(Wire):
    """The body of POST /v1/rerank."""

    model: str
    query: str
    documents: list[str | dict[str, Any]]
    top_n: int | None = Field(None, ge=1)
    return_documents: bool | None = None


def embeddings_json(model: str, vectors: Sequence[Sequence[float]], encoded: bool, tokens: int) -> dict[str, Any]:
    """An answer; `encoded` vectors are little-endian float32 in base64, which is what OpenAI's client asks for."""
    data = [
        {"object": "embedding", "index": i, "embedding": _encoded(vector) if encoded else list(vector)}
        for i, vector in enumerate(vectors)
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "data": data, "model": model, "usage": usage}


def _encoded(vector: Sequence[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def shortened(vector: Sequence[float], dimensions: int) -> list[float]:
    """The first numbers of a vector, scaled to length 1."""
    cut = list(vector[:dimensions])
    length = math.sqrt(sum(x * x for x in cut))
    return [x / length for x in cut] if length else cut
