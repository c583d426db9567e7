"""What is traced of a server: every request, every answer of a model, every vector that a model made.

Names are those of OpenTelemetry's semantic conventions for HTTP and for generative AI, as of 2026; what they have no
name for begins with "puna.". Paths are templates, and stop strings, which are a user's words, are left out with all
other texts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from puna.core.completion import Completion
from puna.stack import spans
from puna.stack.operation.middleware import is_open, template
from puna.stack.providers.provider import Ask, Provider

# As `gen_ai.response.finish_reasons` has them.
_REASONS = {"end_of_turn": "stop", "end_of_message": "tool_calls", "stop": "stop", "length": "length"}
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_QUIET = ("/metrics",)  # like the health, asked for all day by machines


class Tracing:
    """A span for every request but those that ask how the server is.

    Args:
        app: what lies behind.
        tracer: where spans go; it is closed when the server stops.
    """

    def __init__(self, app: ASGIApp, tracer: spans.Tracer) -> None:
        self.app, self.tracer = app, tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, self._closing(send))
            return
        if scope["type"] != "http" or is_open(scope["path"]) or scope["path"] in _QUIET:
            await self.app(scope, receive, send)
            return
        await self._traced(scope, receive, send)

    def _closing(self, send: Send) -> Send:
        """Closes the tracer before the server hears that all has been put away, since it may end at once then."""

        async def closing(message: Message) -> None:
            if message["type"].startswith("lifespan.shutdown."):
                await asyncio.to_thread(self.tracer.close)
            await send(message)

        return closing

    async def _traced(self, scope: Scope, receive: Receive, send: Send) -> None:
        status, error = 500, ""

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        method = scope["method"] if scope["method"] in _METHODS else "_OTHER"
        attributes = {"http.request.method": method, "url.scheme": scope["scheme"]}
        span = self.tracer.server(method, Headers(scope=scope), attributes)
        try:
            with spans.inside(span):
                await self.app(scope, receive, watched)
        except BaseException as failure:
            error = type(failure).__name__
            raise
        finally:
            route, id = template(scope), scope.get("state", {}).get("request_id", "")
            span.set(
                {"http.route": route, "http.response.status_code": status, "puna.request.id": id}, f"{method} {route}"
            )
            span.end(error or (str(status) if status >= 500 else ""))


def answering(provider: Provider, ask: Ask) -> spans.Span | None:
    """The span of an answer."""
    if spans.current() is None:
        return None
    params, operation = ask.params, "chat" if ask.messages else "text_completion"
    attributes: dict[str, spans.Value] = {
        "gen_ai.operation.name": operation,
        "gen_ai.request.max_tokens": params.max_tokens,
        "gen_ai.request.temperature": params.temperature,
        "gen_ai.request.top_p": params.top_p,
        **_whose(provider, ask.model),
    }
    more: dict[str, spans.Value | None] = {
        "gen_ai.request.top_k": params.top_k or None,
        "gen_ai.request.seed": params.seed,
        "gen_ai.request.frequency_penalty": params.frequency_penalty or None,
        "gen_ai.request.presence_penalty": params.presence_penalty or None,
        "gen_ai.request.choice.count": params.n if params.n > 1 else None,
    }
    attributes |= {name: value for name, value in more.items() if value is not None}
    return spans.begin(f"{operation} {ask.model}", attributes, _kind(provider))


def answered(completion: Completion, first: float) -> Mapping[str, spans.Value]:
    """What an answer adds to its span; `first` is the seconds to its first piece."""
    usage = completion.usage
    reasons = [_REASONS.get(each.stop_reason, each.stop_reason) for each in (completion, *completion.others)]
    return {
        "gen_ai.usage.input_tokens": usage.prompt_tokens,
        "gen_ai.usage.output_tokens": usage.completion_tokens,
        "gen_ai.usage.cache_read.input_tokens": usage.cached_tokens,
        "gen_ai.response.finish_reasons": reasons,
        "gen_ai.response.time_to_first_chunk": first,
        "puna.cost.dollars": completion.cost,
    }


def embedding(provider: Provider, model: str, texts: int) -> spans.Span | None:
    """The span of vectors for texts."""
    if spans.current() is None:
        return None
    attributes = {"gen_ai.operation.name": "embeddings", "puna.texts": texts, **_whose(provider, model)}
    return spans.begin(f"embeddings {model}", attributes, _kind(provider))


def _kind(provider: Provider) -> spans.Kind:
    return "client" if provider.type.startswith("remote::") else "internal"


def _whose(provider: Provider, model: str) -> dict[str, spans.Value]:
    """The model and where it is: the vendor's name, which its profile has, and the server's place."""
    profile, config = getattr(provider, "profile", None), getattr(provider, "config", None)
    found: dict[str, spans.Value] = {
        "gen_ai.request.model": model,
        "gen_ai.provider.name": getattr(profile, "name", "puna"),
        "puna.provider.id": provider.id,
    }
    url = urlsplit(getattr(config, "url", ""))
    if url.hostname:
        found["server.address"] = url.hostname
        found["server.port"] = url.port or (443 if url.scheme == "https" else 80)
    return found
