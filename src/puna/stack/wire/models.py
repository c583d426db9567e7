"""Models on the wire: OpenAI's object, with what OGX's clients read of it besides under `custom_metadata`, and with the
fields that Llama Stack's clients up to 0.2 read. Anthropic's clients, which name themselves by a header, get their own
object and no other: OGX's clients refuse one that could be either.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from puna.stack.providers.provider import ModelInfo, Provider
from puna.stack.wire.base import Wire


class CustomMetadata(Wire):
    """What a model is for, who offers it, and what that provider calls it."""

    model_type: str
    provider_id: str
    provider_resource_id: str
    context_length: int | None = None
    precision: str | None = None
    embedding_dimension: int | None = None
    features: tuple[str, ...] = ()
    price: dict[str, float] | None = None


class Model(Wire):
    """An answer of GET /v1/models/{id}."""

    id: str
    object: str = "model"
    created: int
    owned_by: str
    custom_metadata: CustomMetadata


class ModelList(Wire):
    """An answer of GET /v1/models."""

    object: str = "list"
    data: list[Model]


def model_json(id: str, provider: Provider, info: ModelInfo, created: float) -> dict[str, Any]:
    """A model as this server offers it; prices are of a million tokens, in dollars."""
    metadata: dict[str, Any] = {
        "model_type": info.type,
        "provider_id": provider.id,
        "provider_resource_id": info.id,
        "provider_type": provider.type,
        "features": sorted(info.features),
    }
    known = {
        "context_length": info.context_length,
        "precision": info.precision,
        "embedding_dimension": info.dimensions,
    }
    metadata |= {name: value for name, value in known.items() if value}
    if info.price.input or info.price.output:
        price = info.price
        metadata["price"] = {"input": price.input, "output": price.output, "cached_input": price.cached_input}
    return {
        "id": id,
        "object": "model",
        "created": int(created),
        "owned_by": provider.id,
        "custom_metadata": metadata | dict(info.meta),
        "identifier": id,
        "type": "model",
        "model_type": info.type,
        "provider_id": provider.id,
        "provider_resource_id": info.id,
        "metadata": {"embedding_dimension": info.dimensions} if info.dimensions else {},
    }


def anthropic_json(id: str, info: ModelInfo, created: float) -> dict[str, Any]:
    """A model as Anthropic's API shows it."""
    return {
        "type": "model",
        "id": id,
        "display_name": id,
        "created_at": datetime.fromtimestamp(int(created), UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "max_input_tokens": info.context_length or None,
    }
