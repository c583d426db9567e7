"""Public fakes for tests of the server: a provider that says what it is told to, a stack that keeps all in a folder."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from pathlib import Path

from puna.core.chat import Message, ToolSpec
from puna.core.completion import Completion, Done, StreamEvent, TextDelta, ToolCallDelta, Usage
from puna.stack.context import Stack
from puna.stack.providers.provider import Ask, Health, ModelInfo, Provider
from puna.stack.state.files import FileStore
from puna.stack.state.sqlite import SqliteStore

MODELS = (ModelInfo("tiny", context_length=4096), ModelInfo("letters", "embedding", dimensions=26))


class ScriptedProvider:
    """Answers from a list, in turn; when the list is at its end it says the last user's words again.

    Args:
        id: of the provider.
        answers: texts, whole completions, or errors to raise.
        models: that it offers.
        pause: seconds between two words.

    Attributes:
        asked: all requests, in order.
        closed: how many streams were closed before their end.
    """

    type = "inline::scripted"

    def __init__(
        self,
        id: str = "scripted",
        answers: Iterable[str | Completion | Exception] = (),
        models: Sequence[ModelInfo] = (
            ModelInfo("tiny", context_length=4096),
            ModelInfo("letters", "embedding", dimensions=26),
        ),
        pause: float = 0.0,
    ) -> None:
        self.id, self.pause = id, pause
        self._answers, self._models = list(answers), tuple(models)
        self.asked: list[Ask] = []
        self.closed = 0

    async def start(self) -> None:
        return

    async def stop(self) -> None:
        return

    async def models(self) -> Sequence[ModelInfo]:
        return self._models

    async def health(self) -> Health:
        return Health(True)

    async def stream(self, ask: Ask) -> AsyncIterator[StreamEvent]:
        self.asked.append(ask)
        answer = self._answers.pop(0) if self._answers else _last_words(ask)
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, str):
            prompt = sum(len(message.content.split()) for message in ask.messages) or len(ask.prompt)
            answer = Completion(Message("assistant", answer), Usage(prompt, len(answer.split())))
        try:
            for word in _words(answer.message.content):
                await asyncio.sleep(self.pause)
                yield TextDelta(word)
            for call in answer.message.tool_calls:
                yield ToolCallDelta(call)
            yield Done(answer)
        except (GeneratorExit, asyncio.CancelledError):
            self.closed += 1
            raise

    async def embed(self, model: str, texts: Sequence[str]) -> list[list[float]]:
        """How often each letter stands in a text, as a vector of length 1."""
        del model
        counts = [[float(text.lower().count(letter)) for letter in "abcdefghijklmnopqrstuvwxyz"] for text in texts]
        return [[n / (sum(m * m for m in row) ** 0.5 or 1.0) for n in row] for row in counts]

    async def count_tokens(self, model: str, messages: Sequence[Message], tools: Sequence[ToolSpec] = ()) -> int | None:
        del model, tools
        return sum(len(message.content.split()) for message in messages)


def _last_words(ask: Ask) -> str:
    if not ask.messages:
        return ask.prompt if isinstance(ask.prompt, str) else " ".join(map(str, ask.prompt))
    return next((message.content for message in reversed(ask.messages) if message.role == "user"), "")


def _words(text: str) -> list[str]:
    words = text.split(" ")
    return [word if i == 0 else f" {word}" for i, word in enumerate(words)] if text else []


def make_stack(folder: Path, *providers: Provider) -> Stack:
    """A stack that keeps its records and files in a folder."""
    found: Mapping[str, Provider] = {provider.id: provider for provider in providers or (ScriptedProvider(),)}
    return Stack(SqliteStore(folder / "stack.db"), FileStore(folder / "files"), found)
