"""A provider seen through a meter: tokens, times and failures of every answer are counted, whoever asked for it, and
traced where the server traces.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any, cast

from puna.core.chat import Message, ToolSpec
from puna.core.completion import Completion, Done, StreamEvent
from puna.stack import spans
from puna.stack.operation.limits import Limits
from puna.stack.operation.metrics import Metrics
from puna.stack.operation.tracing import answered, answering, embedding
from puna.stack.providers.provider import Ask, Health, ModelInfo, Provider


class MeteredProvider:
    """Another provider, counted.

    Args:
        provider: who does the work.
        metrics: where it is counted.
        limits: whose buckets the tokens are taken out of.
    """

    def __init__(self, provider: Provider, metrics: Metrics, limits: Limits) -> None:
        self.provider, self.metrics, self.limits = provider, metrics, limits
        self.id, self.type = provider.id, provider.type

    def __getattr__(self, name: str) -> Any:
        """What a kind of provider has beyond the protocol, such as loading and unloading."""
        return getattr(self.provider, name)

    async def start(self) -> None:
        await self.provider.start()

    async def stop(self) -> None:
        await self.provider.stop()

    async def models(self) -> Sequence[ModelInfo]:
        return await self.provider.models()

    async def health(self) -> Health:
        return await self.provider.health()

    async def embed(self, model: str, texts: Sequence[str]) -> list[list[float]]:
        with spans.carried(embedding(self.provider, model, len(texts))):
            return await self.provider.embed(model, texts)

    async def count_tokens(self, model: str, messages: Sequence[Message], tools: Sequence[ToolSpec] = ()) -> int | None:
        return await self.provider.count_tokens(model, messages, tools)

    async def stream(self, ask: Ask) -> AsyncIterator[StreamEvent]:
        name, started, first = f"{self.id}/{ask.model}", time.perf_counter(), 0.0
        span = answering(self.provider, ask)
        try:
            async with aclosing(cast(Any, spans.along(span, self.provider.stream(ask)))) as events:
                async for event in events:
                    if not first:
                        first = time.perf_counter()
                        self.metrics.first_token.labels(name).observe(first - started)
                    if isinstance(event, Done):
                        if span is not None:
                            span.set(answered(event.completion, first - started))
                        self._count(name, ask.owner, event.completion, time.perf_counter() - first)
                    yield event
        except Exception as error:
            self.metrics.failures.labels(name, type(error).__name__).inc()
            raise

    def _count(self, name: str, owner: str, completion: Completion, seconds: float) -> None:
        usage = completion.usage
        self.limits.spend(owner, usage.prompt_tokens + usage.completion_tokens)
        self.metrics.tokens.labels(name, "prompt").inc(usage.prompt_tokens)
        self.metrics.tokens.labels(name, "cached").inc(usage.cached_tokens)
        self.metrics.tokens.labels(name, "completion").inc(usage.completion_tokens)
        self.metrics.cost.labels(name).inc(completion.cost)
        decoding = usage.decode_seconds or seconds
        if usage.completion_tokens > 1 and decoding > 0:
            self.metrics.rate.labels(name).observe((usage.completion_tokens - 1) / decoding)
