"""Any server that speaks OpenAI's API as a provider: vLLM, SGLang, llama.cpp, Ollama, TensorRT-LLM, OpenRouter, OpenAI.

What such a server takes beyond the basics is in its profile, a row of `profiles.toml`; what it does not take is
refused. Requests that fail in passing are sent again after a random wait that grows, or after the time that the server
asks for; never once text has been handed out. Closing a stream closes the connection, by which the server knows to
stop. A key travels in one header, and is blotted out of whatever a server says.

Left out: probabilities of the prompt's tokens, and what a server thinks aloud before it answers.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

import httpx

from puna.base.config import from_dict, require
from puna.base.errors import RemoteError
from puna.base.events import ServerEvents
from puna.base.web import is_loopback
from puna.core.chat import Message, ToolSpec
from puna.core.completion import Done, StreamEvent, TextDelta, ToolCallDelta
from puna.core.verdict import Price
from puna.stack import spans
from puna.stack.errors import ApiError
from puna.stack.providers.provider import Ask, Health, ModelInfo, ModelType
from puna.stack.providers.remote_body import Profile, chat_body, profile, raw_body
from puna.stack.providers.remote_reading import Blotter, Streamed, UpstreamError, refusal, whole_json
from puna.stack.providers.transport import transport_for

T = TypeVar("T")
_FIRST_WAIT = 0.5  # seconds; the longest first wait, doubled with every attempt
_FRESH = 300.0  # seconds that a list of models is good for
_SOON = 5.0  # seconds until it is asked for again where it did not come
_END_SECONDS = 0.02  # that an answer may take from its [DONE] to its end
_LIST_SECONDS = 2.0  # that somebody waits for it


@dataclass(frozen=True, slots=True)
class OpenAIConfig:
    """Where a server is and how patient to be.

    Attributes:
        url: up to and with the version: "http://127.0.0.1:8000/v1".
        key: sent with every request that brings no key of its own; "" sends none.
        profile: what it takes: openai, puna, vllm, sglang, llama.cpp, ollama, trtllm or openrouter.
        models: names to offer; by default all that the server lists.
        embedding_models: names that embed texts; by default those that say so in their name.
        timeout: seconds without a byte from the server.
        retries: further attempts after a failure that may pass.
        max_wait: the longest wait between two attempts, in seconds; a server that asks for more is given up.
        price: of a million tokens, where the server does not say what an answer cost.
    """

    url: str
    key: str = ""
    profile: str = "openai"
    models: tuple[str, ...] = ()
    embedding_models: tuple[str, ...] = ()
    timeout: float = 120.0
    retries: int = 3
    max_wait: float = 30.0
    price: Price = field(default_factory=Price)

    def __post_init__(self) -> None:
        try:
            parsed = httpx.URL(self.url)
        except httpx.InvalidURL:
            parsed = httpx.URL("")
        whole = parsed.scheme in ("http", "https") and bool(parsed.host)
        require(whole, f"url is {self.url!r}.", "Write it with its scheme: http://127.0.0.1:8000/v1.")
        profile(self.profile)
        require(self.timeout > 0, f"timeout is {self.timeout}, and must be above 0 seconds.")
        require(self.retries >= 0, f"retries is {self.retries}, and must be at least 0.")
        require(self.max_wait >= 0, f"max_wait is {self.max_wait}, and must be at least 0 seconds.")
        clean = self.key.isascii() and not any(char.isspace() for char in self.key)
        require(
            clean, "The key holds blanks or characters that no key has.", "Write it without quotes and line breaks."
        )


def from_settings(name: str, settings: Mapping[str, Any]) -> OpenAIProvider:
    """A provider as `stack.toml` describes it."""
    return OpenAIProvider(name, from_dict(OpenAIConfig, settings, f"providers.{name}"))


class OpenAIProvider:
    """One server elsewhere.

    Args:
        id: of the provider.
        config: where and how.
        models: what it offers, where somebody knows better than the server's own list.
        sleep: waits between attempts; a test's waits are short.
    """

    type = "remote::openai"

    def __init__(
        self,
        id: str,
        config: OpenAIConfig,
        models: Sequence[ModelInfo] | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self.id, self.config = id, config
        self.profile: Profile = profile(config.profile)
        self._given, self._sleep = models, sleep
        self._blotter = Blotter(config.key)
        self._listed: list[ModelInfo] = []
        self._asking: asyncio.Future[None] | None = None
        self._fault: UpstreamError | None = None
        self._ask_at = float("-inf")
        url = httpx.URL(config.url)
        self._base = config.url.rstrip("/")
        self._place = str(url.copy_with(username=None, password=None, query=None)).rstrip("/")  # what errors name
        self._client = httpx.AsyncClient(
            timeout=httpx.Timeout(config.timeout, connect=min(config.timeout, 10.0)),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=64),
            trust_env=not is_loopback(url.host),  # a proxy does not reach this machine
            transport=transport_for(url),
        )

    async def start(self) -> None:
        """Nothing to do: the first request connects, so that a server that is down holds nobody up."""

    async def stop(self) -> None:
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait({self._asking})
        await self._client.aclose()

    async def health(self) -> Health:
        try:
            await self._json("GET", "/models", None, "", retries=0)
        except RemoteError as error:
            return Health(False, error.message)
        return Health(True)

    # Models -----------------------------------------------------------------------------------------------------------

    async def models(self) -> Sequence[ModelInfo]:
        """What it offers.

        Its list is asked for every five minutes, and nobody waits for it for more than two seconds. Where it does not
        come, an old one does, or the names that the settings give.
        """
        if self._given is not None:
            return self._given
        fault = self._fault
        if self._asking is not None or time.monotonic() >= self._ask_at:
            asking = self._asking = self._asking or asyncio.ensure_future(self._ask_for_list())
            await asyncio.wait({asking}, timeout=_LIST_SECONDS)
            fault = self._fault if asking.done() else UpstreamError(f"{self._place} has not listed its models yet.")
        if self._listed:
            return self._listed
        named = [self._info({"id": id}) for id in (*self.config.models, *self.config.embedding_models)]
        if not named and fault is not None:
            raise fault
        return [info for info in named if info is not None]

    async def _ask_for_list(self) -> None:
        try:
            rows = (await self._json("GET", "/models", None, "", retries=0)).get("data")
        except (RemoteError, ApiError) as error:
            self._fault = UpstreamError(str(error))
            self._ask_at = time.monotonic() + _SOON
        else:
            rows = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
            self._listed = [info for row in rows if (info := self._info(row)) is not None]
            self._fault, self._ask_at = None, time.monotonic() + _FRESH
        finally:
            self._asking = None

    def _info(self, row: Mapping[str, Any]) -> ModelInfo | None:
        """A row of a list of models; None for one that is not to be offered."""
        id, config = row.get("id"), self.config
        if not isinstance(id, str) or (config.models and id not in (*config.models, *config.embedding_models)):
            return None
        kind = _kind(id, _table(row, "custom_metadata").get("model_type"))
        if config.embedding_models:
            kind = "embedding" if id in config.embedding_models else "llm" if kind == "embedding" else kind
        price = _price(row.get("pricing")) or config.price
        return ModelInfo(id, kind, _context(row), price=price, features=self.profile.features)

    # Answers ----------------------------------------------------------------------------------------------------------

    async def stream(self, ask: Ask) -> AsyncGenerator[StreamEvent, None]:
        path, body = ("/chat/completions", chat_body(ask, self.profile)) if ask.messages else (
            "/completions", raw_body(ask, self.profile))  # fmt: skip
        attempt, handed_out = 0, False
        while True:
            answer = Streamed(self._blotter, self._place)
            try:
                async with aclosing(self._events(path, body, ask.key)) as events:
                    async for data in events:
                        if text := answer.add(data):
                            handed_out = True
                            yield TextDelta(text)
                completion = answer.completion(self.config.price)
                break
            except UpstreamError as error:
                if handed_out or not self._again(error, attempt, self.config.retries):
                    raise
                await self._wait(attempt, error.retry_after)
                attempt += 1
        for call in completion.message.tool_calls:
            yield ToolCallDelta(call)
        yield Done(completion)

    async def embed(self, model: str, texts: Sequence[str]) -> list[list[float]]:
        body = {"model": model, "input": list(texts), "encoding_format": "float"}
        data = await self._json("POST", "/embeddings", body, "", self.config.retries)
        try:
            rows = sorted(data["data"], key=lambda row: row["index"])
            vectors = [[float(x) for x in row["embedding"]] for row in rows]
        except (KeyError, TypeError, ValueError) as error:
            raise UpstreamError(f"{self._place} answered what are no embeddings.") from error
        return self._as_many(vectors, texts, "vectors")

    async def rerank(self, model: str, query: str, texts: Sequence[str]) -> list[float]:
        """How well each text fits a query."""
        if not self.profile.rerank:
            raise RemoteError(f"{self._place} cannot rank (its profile is {self.profile.name}).")
        body = {"model": model, "query": query, "documents": list(texts)}
        data = await self._json("POST", self.profile.rerank, body, "", self.config.retries)
        try:
            scores = {int(row["index"]): float(row["relevance_score"]) for row in data["results"]}
            found = [scores[i] for i in sorted(scores)]
        except (KeyError, TypeError, ValueError) as error:
            raise UpstreamError(f"{self._place} answered what is no ranking.") from error
        return self._as_many(found, texts, "scores")

    def _as_many(self, found: list[T], texts: Sequence[str], what: str) -> list[T]:
        if len(found) != len(texts):
            raise UpstreamError(f"{self._place} answered {len(found)} {what} for {len(texts)} texts.")
        return found

    async def count_tokens(self, model: str, messages: Sequence[Message], tools: Sequence[ToolSpec] = ()) -> int | None:
        del model, messages, tools
        return None

    # Sending ----------------------------------------------------------------------------------------------------------

    async def _json(
        self, method: str, path: str, body: Mapping[str, Any] | None, key: str, retries: int
    ) -> Mapping[str, Any]:
        attempt = 0
        while True:
            try:
                async with self._response(method, path, body, key) as response:
                    return whole_json(await response.aread(), self._blotter, self._place)
            except UpstreamError as error:
                if not self._again(error, attempt, retries):
                    raise
                await self._wait(attempt, error.retry_after)
                attempt += 1

    async def _events(self, path: str, body: Mapping[str, Any], key: str) -> AsyncGenerator[Mapping[str, Any], None]:
        """The JSON of the events of a stream, up to its [DONE]."""
        async with (
            self._response("POST", path, body, key) as response,
            aclosing(_data(response.aiter_bytes())) as events,  # type: ignore[type-var]
        ):
            async for data in events:
                if data == b"[DONE]":
                    break
                yield whole_json(data, self._blotter, self._place)
            # What is read to its end leaves a connection that serves the next request.
            with suppress(TimeoutError, httpx.HTTPError):
                async with asyncio.timeout(_END_SECONDS):
                    async for _ in events:
                        continue

    @asynccontextmanager
    async def _response(
        self, method: str, path: str, body: Mapping[str, Any] | None, key: str
    ) -> AsyncIterator[httpx.Response]:
        """An open response of status 200.

        Raises:
            UpstreamError: anything else, also where it breaks off while it is read.
            ApiError: 400, where the request is at fault; 401 and 403, where the caller's own key is.
        """
        shown = key or self.config.key
        headers = {**spans.headers(), **({"Authorization": f"Bearer {shown}"} if shown else {})}
        try:
            async with self._client.stream(method, self._base + path, json=body, headers=headers) as response:
                if response.status_code != 200:
                    said = (await response.aread()).decode(errors="replace")
                    raise refusal(response, said, self._place, self._blotter.also(key), bool(key))
                yield response
        except httpx.HTTPError as error:
            waited = isinstance(error, httpx.TimeoutException)
            what = f"was silent for {self.config.timeout:g} s" if waited else "cannot be reached, or broke off"
            hint = "Raise timeout." if waited else "Check that the server runs and that the url is right."
            message = f"{self._place} {what} ({type(error).__name__})."
            raise UpstreamError(message, hint=hint, may_pass=True) from error

    def _again(self, error: UpstreamError, attempt: int, retries: int) -> bool:
        return error.may_pass and attempt < retries and error.retry_after <= self.config.max_wait

    async def _wait(self, attempt: int, asked: float) -> None:
        """Full jitter: a wait drawn from 0 to a bound that doubles, so that many clients do not come back at once."""
        bound = min(_FIRST_WAIT * 2**attempt, self.config.max_wait)
        await self._sleep(asked + random.uniform(0.0, bound))


def _table(row: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = row.get(name)
    return value if isinstance(value, dict) else {}


def _kind(id: str, said: Any) -> ModelType:
    """What a model is for: as the server says (Puna and OGX do), or by its name."""
    if said in ("llm", "embedding", "rerank"):
        return said
    return "embedding" if "embed" in id.lower() else "rerank" if "rerank" in id.lower() else "llm"


def _context(row: Mapping[str, Any]) -> int:
    """Tokens of a context, where vLLM, OpenRouter, llama.cpp or Puna say it; 0 where nobody does."""
    meta, own = _table(row, "meta"), _table(row, "custom_metadata")
    found = (row.get("max_model_len"), row.get("context_length"), own.get("context_length"))
    found += (meta.get("n_ctx"), meta.get("n_ctx_train"))
    return next((int(n) for n in found if isinstance(n, (int, float)) and n > 0), 0)


def _price(data: Any) -> Price | None:
    """OpenRouter's prices, which are of one token."""
    try:
        prompt, answer = float(data["prompt"]) * 1e6, float(data["completion"]) * 1e6
        return Price(prompt, answer, float(data.get("input_cache_read") or 0) * 1e6)
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


async def _data(pieces: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """The data of a stream's events."""
    events = ServerEvents()
    async for piece in pieces:
        for event in events.feed(piece):
            if event.data:
                yield event.data
    if (last := events.end()) and last.data:
        yield last.data
