"""A chat session: the conversation so far, its settings, and the documents that questions are answered from.

With a reader, a question about the documents is answered by a quotation and its place. With a look-up alone the model
writes an answer from the passage that was found. No terminal here: a session is driven by whoever has a user. It is
saved as JSON in the shape of `Conversation`, so a saved chat is also fine-tuning data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from puna.base.config import from_dict, override
from puna.base.errors import InputError
from puna.base.files import read_json, write_json
from puna.core.chat import Conversation, Message
from puna.core.completion import Completion, Done, SamplingParams, TextDelta
from puna.core.protocols import ChatModel
from puna.knowledge.chunk import Passage
from puna.knowledge.grounding import grounded_prompt
from puna.reader.reading import Answering, CitedAnswer

Lookup = Callable[[str], Sequence[Passage]]


@dataclass(slots=True)
class ChatSession:
    """A conversation with a model.

    Attributes:
        model: who answers.
        params: how it samples.
        lookup: finds the passages for a question; None answers from the weights alone.
        reader: quotes the documents; None lets the model write. It is asked first.
        messages: all turns so far, the system message first where there is one.
        shown: the passages that the last answered question was asked with.
        last: the last answer.
        cited: the last answer, where it is a quotation or says that there is none.
    """

    model: ChatModel
    params: SamplingParams = field(default_factory=SamplingParams)
    lookup: Lookup | None = None
    reader: Answering | None = None
    messages: list[Message] = field(default_factory=list)
    shown: Sequence[Passage] = ()
    last: Completion | None = None
    cited: CitedAnswer | None = None

    def ask(self, text: str) -> Iterator[str]:
        """Sends a user's turn; yields the answer as it comes. A turn that is broken off leaves no trace."""
        return self._reply(self.messages, text)

    def retry(self) -> Iterator[str]:
        """Answers the last question again."""
        if [message.role for message in self.messages[-2:]] != ["user", "assistant"]:
            raise InputError("There is no answer to try again.", hint="Ask something first.")
        if self.cited:
            return self._reply(self.messages[:-2], str(self.cited.trace["question"]))
        return self._answer(self.messages[:-2], self.messages[-2], self.shown)

    def _reply(self, before: Sequence[Message], text: str) -> Iterator[str]:
        """A quotation where the documents have something to say on a question, else what the model writes."""
        cited = self.reader.answer(text, before) if self.reader else None
        if cited is None or not cited.trace.get("passages"):
            passages = self.lookup(text) if self.lookup and not cited else ()
            yield from self._answer(before, Message("user", grounded_prompt(text, passages)), passages)
            return
        yield cited.text
        question = Message("user", grounded_prompt(text, cited.passages))
        answer = Message("assistant", cited.text)
        self.messages = [*before, question, answer]
        self.shown, self.last, self.cited = cited.passages, Completion(answer), cited

    def _answer(self, before: Sequence[Message], question: Message, passages: Sequence[Passage]) -> Iterator[str]:
        """Asks a question after the messages `before`; nothing of the session changes until the answer is whole."""
        # Only a question that was grounded begins anew: its passage is all the context that the model was taught with.
        context = self._system() if passages else before
        for event in self.model.stream([*context, question], self.params):
            if isinstance(event, TextDelta):
                yield event.text
            elif isinstance(event, Done):
                self.messages = [*before, question, event.completion.message]
                self.shown, self.last, self.cited = passages, event.completion, None

    def set_system(self, text: str) -> None:
        """Replaces the system message; an empty text removes it."""
        rest = [message for message in self.messages if message.role != "system"]
        self.messages = [Message("system", text), *rest] if text else rest

    def set(self, assignment: str) -> None:
        """Changes a sampling setting, written as `name=value` or `name value`."""
        name, _, value = assignment.replace("=", " ", 1).partition(" ")
        self.params = override(self.params, [f"{name}={value.strip()}"])

    def clear(self) -> None:
        self.messages, self.shown, self.last, self.cited = self._system(), (), None, None

    def save(self, path: Path) -> None:
        write_json(path, Conversation(tuple(self.messages)).to_json() | {"params": _settings(self.params)})

    def load(self, path: Path) -> None:
        data = read_json(path)
        conversation = Conversation.from_json(data)
        self.params = from_dict(SamplingParams, data.get("params", {}), at="params")
        self.messages, self.shown, self.last, self.cited = list(conversation.messages), (), None, None

    def _system(self) -> list[Message]:
        return [message for message in self.messages if message.role == "system"]


def _settings(params: SamplingParams) -> dict[str, Any]:
    """The settings that differ from the defaults."""
    return {
        f.name: getattr(params, f.name)
        for f in fields(params)
        if getattr(params, f.name) != getattr(SamplingParams(), f.name)
    }
