"""What a provider is: something with models, that answers as a stream.

The engine in this process, vLLM elsewhere and a paid service are all a `Provider`; routes and agents never know which.
Everything is asynchronous, and an answer that nobody reads any more is ended by closing its stream.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from puna.core.chat import Message, ToolSpec
from puna.core.completion import SamplingParams, StreamEvent
from puna.core.verdict import Price

ModelType = Literal["llm", "embedding", "rerank"]


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model that a provider offers.

    Attributes:
        id: as the provider calls it; the server's id is "provider/id".
        type: what it is for.
        context_length: tokens; 0 where nobody says.
        precision: "bf16", "fp8", "int8", ...; "" where nobody says.
        dimensions: of an embedding.
        price: of a million tokens.
        features: of "tools", "json_schema", "logprobs", "seed", "images".
        meta: JSON values more.
    """

    id: str
    type: ModelType = "llm"
    context_length: int = 0
    precision: str = ""
    dimensions: int = 0
    price: Price = field(default_factory=Price)
    features: frozenset[str] = frozenset()
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Health:
    """Whether a provider can be used; `message` says why not."""

    ok: bool
    message: str = ""


@dataclass(frozen=True, slots=True)
class Ask:
    """A request to a model.

    Attributes:
        model: as the provider calls it.
        messages: the conversation; empty where `prompt` is given.
        params: how to answer.
        tools: on offer.
        prompt: text, or token ids, to be continued in place of a conversation.
        owner: whose request it is; prompts share cached beginnings with those of the same owner alone.
        key: the owner's own key for the provider, where the request brought one.
        routing: for a router: OpenRouter's provider object, and "keys", the caller's own by provider.
    """

    model: str
    messages: Sequence[Message] = ()
    params: SamplingParams = field(default_factory=SamplingParams)
    tools: Sequence[ToolSpec] = ()
    prompt: str | Sequence[int] = ""
    owner: str = ""
    key: str = ""
    routing: Mapping[str, Any] = field(default_factory=dict)


class Provider(Protocol):
    """A source of answers.

    Attributes:
        id: its name in this server.
        type: "inline::engine", "remote::openai", ...
    """

    id: str
    type: str

    async def start(self) -> None:
        """Makes it ready; a model may load in the background."""
        ...

    async def stop(self) -> None:
        """Lets the requests under way finish, and gives back what it holds."""
        ...

    async def models(self) -> Sequence[ModelInfo]: ...

    async def health(self) -> Health: ...

    def stream(self, ask: Ask) -> AsyncIterator[StreamEvent]:
        """The answer piece by piece; the last event is `Done` with the whole of it.

        Raises:
            InputError, ConfigError: what was asked cannot be.
            RemoteError: another server failed.
        """
        ...

    async def embed(self, model: str, texts: Sequence[str]) -> list[list[float]]: ...

    async def count_tokens(self, model: str, messages: Sequence[Message], tools: Sequence[ToolSpec] = ()) -> int | None:
        """Tokens of a conversation as the model would read it; None where nobody here knows its tokenizer."""
        ...
