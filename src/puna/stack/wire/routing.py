"""The body of a request for an explanation: facts of a request, or a chat request of which they are taken."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from puna.stack.wire.base import Wire


class ExplainRequest(Wire):
    """What to decide, without asking anybody.

    Without `route` and `price_list` the route "auto" decides over what the server's providers offer.
    """

    route: str = Field("auto", description="Which of the server's routes decides.")
    price_list: str | None = Field(None, description="Decide over the rows of the price file for this model instead.")
    messages: list[dict[str, Any]] | None = None
    tools: list[dict[str, Any]] | None = None
    max_tokens: int = Field(512, ge=1)
    n: int = Field(1, ge=1, le=128)
    prompt_tokens: int | None = Field(None, ge=0, description="In place of messages.")
    output_tokens: int | None = Field(None, ge=1, description="Expected; by default what answers usually have.")
    cached_tokens: int = Field(0, ge=0, description="Of the prompt, in the providers' caches.")
    needs: list[str] = Field(default_factory=list, description='Of "tools", "json_schema", "logprobs", "seed".')
    provider: dict[str, Any] | None = Field(None, description="OpenRouter's object: limits and preferences.")
