"""Models in this process as a provider: each has an engine of its own, and loads in the background.

The server answers while a model loads: its health says so, and a request for it waits a while. A model can be given
back to make room and taken in again. Prompts share cached beginnings with those of the same owner alone.

A raw prompt is read like an answer without tools, so that code after a `<|python_tag|>` comes as a call. torch is
imported when the first model loads, which keeps the server's start short.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from puna.base.errors import ConfigError
from puna.core.chat import Message, ToolSpec
from puna.core.completion import Completion, Done, SamplingParams, StreamEvent, TokenLogprob
from puna.stack.conversion import NamedLogprob, settled
from puna.stack.errors import ApiError, not_found
from puna.stack.providers.provider import Ask, Health, ModelInfo

if TYPE_CHECKING:
    from puna.engine.local import LocalModel
    from puna.engine.sequence import Request
    from puna.engine.serving import AsyncModel
    from puna.tokenizer import Tokenizer

T = TypeVar("T")
_log = logging.getLogger(__name__)
_HEAD_START = 0.1  # seconds: the server listens before importing torch takes the processor
_EMBEDDING = "-embedding"  # after a model's name: its hidden states as vectors of texts
_FEATURES = frozenset({"tools", "json_schema", "regex", "lark", "choice", "span", "logprobs", "seed"})
_PRECISIONS = {"float64": "fp64", "float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}


@dataclass(slots=True)
class _Slot:
    """A model's place: what loads it, and what has come of it."""

    name: str
    load: Callable[[], LocalModel]
    status: Literal["loading", "ready", "failed", "unloading", "unloaded"] = "unloaded"
    error: str = ""
    loading: asyncio.Task[None] | None = None
    served: AsyncModel | None = None


class EngineProvider:
    """Models on this machine.

    Args:
        id: of the provider.
        models: name -> what loads the model of that name; called in a thread.
        patience: seconds that a request waits for a model that is loading.
        drain_seconds: how long requests under way may take when a model is given back.
    """

    type = "inline::engine"

    def __init__(
        self,
        id: str,
        models: Mapping[str, Callable[[], LocalModel]],
        patience: float = 60.0,
        drain_seconds: float = 30.0,
    ) -> None:
        self.id, self.patience, self.drain_seconds = id, patience, drain_seconds
        self._slots = {name: _Slot(name, load) for name, load in models.items()}
        self._embedding = asyncio.Lock()  # one at a time: each uses all threads

    async def start(self) -> None:
        for name in self._slots:
            await self.load(name)

    async def stop(self) -> None:
        await asyncio.gather(*(self.unload(name) for name in self._slots))

    # Models in and out ------------------------------------------------------------------------------------------------

    async def add(self, name: str, load: Callable[[], LocalModel]) -> None:
        """Offers one model more, and begins to load it."""
        if name in self._slots:
            raise ConfigError(f"The provider {self.id!r} has a model {name!r} already.", hint="Give it another name.")
        self._slots[name] = _Slot(name, load)
        await self.load(name)

    async def load(self, model: str) -> None:
        """Begins to load a model that is not in memory; `health` says how it goes."""
        slot = self._slot(model)
        if slot.status in ("unloaded", "failed"):
            slot.status, slot.error = "loading", ""
            slot.loading = asyncio.ensure_future(self._load(slot))

    async def unload(self, model: str) -> None:
        """Lets a model's requests finish, and gives its memory back."""
        slot = self._slot(model)
        if slot.loading is not None:
            slot.loading.cancel()
            await asyncio.gather(slot.loading, return_exceptions=True)
        served, slot.served = slot.served, None
        if served is not None:
            slot.status = "unloading"
            await served.__aexit__(None, None, None)
            del served
            gc.collect()
        slot.status = "unloaded"

    async def _load(self, slot: _Slot) -> None:
        try:
            await asyncio.sleep(_HEAD_START)
            from puna.engine.serving import AsyncModel  # may fail too: torch wants a folder for temporary files

            model = await _in_thread(slot.load)
            slot.served = await AsyncModel(model, self.drain_seconds).__aenter__()
            slot.status = "ready"
        except Exception as error:
            slot.status, slot.error = "failed", " ".join(str(error).split()) or type(error).__name__
            _log.exception("The model %s cannot be loaded.", slot.name)

    def _slot(self, model: str) -> _Slot:
        slot = self._slots.get(model) or self._slots.get(model.removesuffix(_EMBEDDING))
        if slot is None:
            raise not_found("model", model, "model")
        return slot

    async def _ready(self, model: str) -> AsyncModel:
        """A model in memory; one that is loading is waited for."""
        slot = self._slot(model)
        if slot.status == "loading" and slot.loading is not None:
            await asyncio.wait({slot.loading}, timeout=self.patience)
        if slot.served is not None:
            return slot.served
        if slot.status == "loading":
            raise ApiError(
                503, f"The model {model!r} is still loading.", code="model_loading", headers={"Retry-After": "5"}
            )
        if slot.status == "failed":
            raise ApiError(503, f"The model {model!r} could not be loaded: {slot.error}", code="model_failed")
        raise ApiError(503, f"The model {model!r} is not in memory.", param="model", code="model_unloaded")

    async def models(self) -> Sequence[ModelInfo]:
        return [info for slot in self._slots.values() if slot.status != "failed" for info in _infos(slot)]

    async def health(self) -> Health:
        faults = [
            f"{slot.name}: {slot.error or slot.status}" for slot in self._slots.values() if slot.status != "ready"
        ]
        return Health(not faults, "; ".join(faults))

    # Answers ----------------------------------------------------------------------------------------------------------

    async def stream(self, ask: Ask) -> AsyncGenerator[StreamEvent, None]:
        served = await self._ready(ask.model)
        tools = () if ask.params.tool_choice == "none" else tuple(ask.tools)
        request = await asyncio.to_thread(_request, served.model, ask, tools)
        longest = served.model.engine.max_context
        if len(request.prompt) >= longest:
            raise ApiError(
                400,
                f"The prompt has {len(request.prompt):,} tokens, and the context of {ask.model!r} holds {longest:,}, "
                "of which the answer needs at least one. Shorten the conversation.",
                param="messages" if ask.messages else "prompt",
                code="context_length_exceeded",
            )
        tokenizer = served.model.tokenizer
        async with aclosing(settled(served.follow(request, tools))) as events:
            async for event in events:
                yield Done(_named(event.completion, tokenizer)) if isinstance(event, Done) else event

    async def embed(self, model: str, texts: Sequence[str]) -> list[list[float]]:
        served = await self._ready(model)
        async with self._embedding:
            return await asyncio.to_thread(served.model.embed, list(texts))

    async def count_tokens(self, model: str, messages: Sequence[Message], tools: Sequence[ToolSpec] = ()) -> int | None:
        chat = (await self._ready(model)).model.tokenizer.chat
        return len(await asyncio.to_thread(chat.render, messages, tools))

    # Its vocabulary ---------------------------------------------------------------------------------------------------

    async def _tokenizer(self, model: str) -> Tokenizer:
        return (await self._ready(model)).model.tokenizer

    async def encode(self, model: str, text: str, *, bos: bool = False, special: bool = False) -> list[int]:
        tokenizer = await self._tokenizer(model)
        return await asyncio.to_thread(tokenizer.encode, text, bos, allow_special=special)

    async def decode(self, model: str, ids: Sequence[int]) -> str:
        return (await self._tokenizer(model)).decode(ids)

    async def token_bytes(self, model: str, ids: Sequence[int]) -> list[bytes]:
        tokenizer = await self._tokenizer(model)
        return [tokenizer.token_bytes(id) for id in ids]

    async def special_tokens(self, model: str) -> Mapping[str, int]:
        return (await self._tokenizer(model)).special


def _infos(slot: _Slot) -> list[ModelInfo]:
    """The model, and its hidden states as vectors; little is known of one that is not in memory."""
    meta: dict[str, Any] = {"status": slot.status}
    if slot.served is None:
        return [ModelInfo(slot.name, meta=meta), ModelInfo(slot.name + _EMBEDDING, "embedding", meta=meta)]
    model = slot.served.model
    precision = precision_of(model)
    meta["parameters"] = sum(parameter.numel() for parameter in model.model.parameters())
    context = model.engine.max_context
    return [
        ModelInfo(slot.name, "llm", context, precision, features=_FEATURES, meta=meta),
        ModelInfo(slot.name + _EMBEDDING, "embedding", context, precision, model.config.hidden_size, meta=meta),
    ]


def precision_of(model: LocalModel) -> str:
    """How a model's matrices are stored: "bf16", "fp8", "int8", ..."""
    formats = {getattr(module, "format", None) for module in model.model.layers.modules()}
    names = {name for found in formats if isinstance(name := getattr(found, "name", None), str)}
    if names:
        return "+".join(sorted(names))
    dtype = str(model.model.embed_tokens.weight.dtype).removeprefix("torch.")
    return _PRECISIONS.get(dtype, dtype)


def _request(model: LocalModel, ask: Ask, tools: Sequence[ToolSpec]) -> Request:
    from puna.engine.sequence import Request

    if ask.messages:
        return model.request(ask.messages, ask.params, tools, tenant=ask.owner)
    ids = model.tokenizer.encode(ask.prompt, bos=True) if isinstance(ask.prompt, str) else ask.prompt
    params: SamplingParams = ask.params
    return Request(tuple(ids), params, tenant=ask.owner)


def _named(completion: Completion, tokenizer: Tokenizer) -> Completion:
    """An answer whose probabilities have their tokens' texts; the token that ended it is left out."""
    if not completion.logprobs:
        return completion
    items = completion.logprobs
    if items[-1].id in tokenizer.stop_ids:
        items = items[:-1]
    named = tuple(_with_names(item, tokenizer) for item in items)
    return replace(completion, logprobs=named, others=tuple(_named(o, tokenizer) for o in completion.others))


def _with_names(item: TokenLogprob, tokenizer: Tokenizer) -> NamedLogprob:
    names = tuple(tokenizer.token_bytes(id) for id, _ in item.top)
    return NamedLogprob(item.id, item.logprob, item.top, tokenizer.token_bytes(item.id), names)


async def _in_thread(work: Callable[[], T]) -> T:
    """`asyncio.to_thread`, in a thread that does not hold up the end of the program."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(set_: Callable[[Any], None], value: Any) -> None:
        if not done.done():
            set_(value)

    def run() -> None:
        try:
            value = work()
        except BaseException as error:
            told: tuple[Callable[[Any], None], Any] = (done.set_exception, error)
        else:
            told = (done.set_result, value)
        with suppress(RuntimeError):  # the loop has been closed: nobody waits any more
            loop.call_soon_threadsafe(settle, *told)

    threading.Thread(target=run, name="puna-load", daemon=True).start()
    return await done
