from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pytest

from puna.core import protocols
from puna.core.chat import Message, ToolSpec
from puna.core.completion import Completion, Done, SamplingParams, StreamEvent
from puna.core.document import Document
from puna.core.verdict import Verdict


class Echo:
    """A chat model that says what it hears."""

    def chat(
        self, messages: Sequence[Message], params: SamplingParams | None = None, tools: Sequence[ToolSpec] = ()
    ) -> Completion:
        return Completion(Message("assistant", messages[-1].content))

    def stream(
        self, messages: Sequence[Message], params: SamplingParams | None = None, tools: Sequence[ToolSpec] = ()
    ) -> Iterator[StreamEvent]:
        yield Done(self.chat(messages))

    def chat_batch(
        self, conversations: Sequence[Sequence[Message]], params: SamplingParams | None = None
    ) -> list[Completion]:
        return [self.chat(messages) for messages in conversations]


class Allow:
    def check(self, messages: Sequence[Message]) -> Verdict:
        return Verdict(True)


class Shout:
    @property
    def spec(self) -> ToolSpec:
        return ToolSpec("shout")

    def __call__(self, arguments: Mapping[str, Any]) -> str:
        return str(arguments["text"]).upper()


class Ones:
    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        return [[1.0] for _ in texts]


class Uniform:
    def token_logprobs(self, sequences: Sequence[Sequence[int]]) -> list[list[float]]:
        return [[-1.0] * (len(sequence) - 1) for sequence in sequences]


class Kept:
    def add(self, documents: Iterable[Document]) -> None: ...

    def search(self, query: str, limit: int) -> list[tuple[Document, float]]:
        return []


class Count:
    def count(self, batch: Any) -> int:
        return 1

    def loss(self, model: Any, batch: Any) -> Any:
        return 0.0


class Look:
    """Knows a step before it has a loss."""

    def of_step(self, model: Any, batches: Sequence[Any]) -> Count:
        return Count()


def passes(documents: Iterable[Document]) -> Iterator[Document]:
    yield from documents


FITTING = {
    "ChatModel": Echo(),
    "Shield": Allow(),
    "Tool": Shout(),
    "Embedder": Ones(),
    "LanguageModel": Uniform(),
    "VectorStore": Kept(),
    "Objective": Count(),
    "StepWide": Look(),
    "Step": passes,
}


@pytest.mark.parametrize("name", FITTING)
def test_a_class_fits_by_having_the_methods(name: str) -> None:
    assert isinstance(FITTING[name], getattr(protocols, name))


@pytest.mark.parametrize("name", [name for name in FITTING if name != "Step"])
def test_a_class_of_another_kind_does_not_fit(name: str) -> None:
    protocol = getattr(protocols, name)
    for other, item in FITTING.items():
        assert isinstance(item, protocol) == (other == name), (name, other)


def test_one_missing_method_is_enough_not_to_fit() -> None:
    class NoStream:
        chat = Echo.chat
        chat_batch = Echo.chat_batch

    assert not isinstance(NoStream(), protocols.ChatModel)


def test_every_protocol_is_checked_here() -> None:
    drawn = {name for name, item in vars(protocols).items() if getattr(item, "_is_protocol", False)} - {"Protocol"}
    assert drawn == set(FITTING)
