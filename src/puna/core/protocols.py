"""The seams of the house. A room that needs another's work names one of these, and never the other room.

They are structural: a class fits by having the methods. Tensors are `Any` here because this floor knows no torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from puna.core.chat import Message, ToolSpec
from puna.core.completion import Completion, SamplingParams, StreamEvent
from puna.core.document import Document
from puna.core.verdict import Verdict


@runtime_checkable
class ChatModel(Protocol):
    """Answers conversations: the engine on this machine, or a provider elsewhere."""

    def chat(
        self, messages: Sequence[Message], params: SamplingParams | None = None, tools: Sequence[ToolSpec] = ()
    ) -> Completion: ...

    def stream(
        self, messages: Sequence[Message], params: SamplingParams | None = None, tools: Sequence[ToolSpec] = ()
    ) -> Iterator[StreamEvent]: ...

    def chat_batch(
        self, conversations: Sequence[Sequence[Message]], params: SamplingParams | None = None
    ) -> list[Completion]:
        """Answers many conversations, in their order; faster than one by one."""
        ...


@runtime_checkable
class LanguageModel(Protocol):
    """Gives the likelihood of token sequences, which is what perplexity and bits per byte need."""

    def token_logprobs(self, sequences: Sequence[Sequence[int]]) -> list[list[float]]:
        """For each sequence, the natural-log probability of each token after the first, given those before it."""
        ...


@runtime_checkable
class Embedder(Protocol):
    """Turns texts into vectors of one length."""

    def embed(self, texts: Sequence[str]) -> list[list[float]]: ...


@runtime_checkable
class Shield(Protocol):
    """Judges a conversation's last message."""

    def check(self, messages: Sequence[Message]) -> Verdict: ...


@runtime_checkable
class Tool(Protocol):
    """Something a model may call."""

    @property
    def spec(self) -> ToolSpec: ...

    def __call__(self, arguments: Mapping[str, Any]) -> str: ...


@runtime_checkable
class VectorStore(Protocol):
    """Keeps passages and finds those nearest in meaning; results are (document, score), best first."""

    def add(self, documents: Iterable[Document]) -> None: ...

    def search(self, query: str, limit: int) -> list[tuple[Document, float]]: ...


@runtime_checkable
class Step(Protocol):
    """One step of a data pipeline: documents in, documents out."""

    def __call__(self, documents: Iterable[Document]) -> Iterator[Document]: ...


@runtime_checkable
class Objective(Protocol):
    """What a training step minimises.

    The trainer divides the sum of `loss` over all micro-batches and ranks by the sum of `count` over the same,
    so that neither gradient accumulation nor the number of ranks changes the loss. A batch is a `Batch`, of the kind
    that the objective's loader makes.
    """

    def count(self, batch: Any) -> int:
        """How many terms `loss` sums for this batch: for token losses, the number of tokens to be learnt."""
        ...

    def loss(self, model: Any, batch: Any) -> Any:
        """The sum of the terms, a scalar float32 tensor with its gradient."""
        ...


@runtime_checkable
class StepWide(Protocol):
    """An objective that must know something of the whole step before any of its micro-batches has a loss."""

    def of_step(self, model: Any, batches: Sequence[Any]) -> Objective:
        """The objective of this one step. Called without gradients, with all of the step's micro-batches."""
        ...
