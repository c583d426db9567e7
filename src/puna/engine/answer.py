"""From tokens to an answer: the text and tool calls of one row, as they become certain.

A chat's answer is read by the chat format's parser, a raw continuation by the decoder alone; stop strings act on the
text of both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from puna.core.chat import Message, ToolCall
from puna.core.completion import TextDelta, ToolCallDelta
from puna.engine.stopping import StopStrings
from puna.tokenizer import Tokenizer

Event = TextDelta | ToolCallDelta


class Reader(Protocol):
    """Reads ids; `puna.tokenizer.TurnParser` is one."""

    def feed(self, ids: int) -> Sequence[Event]: ...

    def close(self) -> Sequence[Event]: ...

    def finish(self) -> Message: ...


class Answer:
    """One row's answer under construction.

    Args:
        reader: reads its ids.
        stop: strings that end it.
    """

    def __init__(self, reader: Reader, stop: Sequence[str]) -> None:
        self._reader = reader
        self._stop = StopStrings(stop)
        self._calls: list[ToolCall] = []

    @property
    def stopped(self) -> bool:
        """Whether a stop string has appeared."""
        return self._stop.found

    def take(self, token: int) -> list[Event]:
        """What has become certain with one more token."""
        return self._pass(self._reader.feed(token))

    def close(self) -> list[Event]:
        """What was held back until the end."""
        events = self._pass(self._reader.close())
        rest = self._stop.flush()
        return [*events, TextDelta(rest)] if rest else events

    def message(self) -> Message:
        """The whole answer, once it is closed: what has been passed on."""
        return replace(self._reader.finish(), content=self._stop.text, tool_calls=tuple(self._calls))

    def _pass(self, events: Sequence[Event]) -> list[Event]:
        passed: list[Event] = []
        for event in events:
            if isinstance(event, TextDelta):
                if text := self._stop.feed(event.text):
                    passed.append(TextDelta(text))
            elif not self.stopped:
                self._calls.append(event.call)
                passed.append(event)
        return passed


class Continuation:
    """Reads a raw continuation: all its tokens are text, and a stop token ends it."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._decoder = tokenizer.decoder(skip_special=True)
        self._text = ""

    def feed(self, ids: int) -> Sequence[Event]:
        return self._emit(self._decoder.feed(ids))

    def close(self) -> Sequence[Event]:
        return self._emit(self._decoder.finish())

    def finish(self) -> Message:
        return Message("assistant", self._text)

    def _emit(self, text: str) -> Sequence[Event]:
        self._text += text
        return [TextDelta(text)] if text else []
