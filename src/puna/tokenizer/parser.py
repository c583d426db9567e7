"""What a model says, as it says it: ids in, text and tool calls out, and the whole message at the end.

Text is handed on at once, except while it may still be a call. Three rules decide what is one:

1. After `<|python_tag|>` everything is, up to the message's end or the next tag: a call in any form, and else code.
   What opens as a call in JSON or in a tag and then breaks is text, and so is code that was cut off.
2. Where tools are on offer, a message that consists of JSON or pythonic calls alone, or of one call of an offered
   built-in tool, is these calls.
3. Where tools are on offer, a `<function=...>{...}</function>` is a call wherever it stands in a text.

Anything malformed is text, and no input raises. Ids of special tokens that mean nothing inside a message are left out.
These rules are ambiguous in their nature: where tools are on offer, an assistant's text that has the form of a call
(rules 2 and 3) is one, and code that has the form of another call, or opens as one (rule 1), is not code.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Protocol

from puna.base.errors import ToolCallError
from puna.core.chat import Message, ToolCall, ToolSpec
from puna.core.completion import TextDelta, ToolCallDelta
from puna.tokenizer.bpe import ByteLevelBPE
from puna.tokenizer.decoding import IncrementalDecoder
from puna.tokenizer.json_calls import JsonCalls
from puna.tokenizer.python_calls import PythonicCalls
from puna.tokenizer.tool_calls import (
    CODE_TOOL,
    SEARCH_TOOLS,
    FunctionTag,
    parse_tagged,
    parse_tool_calls,
)

Event = TextDelta | ToolCallDelta


class TurnParser:
    """Reads one assistant message from its ids.

    Feed it every new id, the one that ends the message included; then `finish`.

    Args:
        tokenizer: whose ids.
        tools: what was on offer; without any, only `<|python_tag|>` makes a call.

    Attributes:
        done: whether the message has ended; further ids are ignored.
    """

    def __init__(self, tokenizer: ByteLevelBPE, tools: Sequence[ToolSpec] = ()) -> None:
        self.done = False
        self._tokenizer = tokenizer
        self._decoder = IncrementalDecoder(tokenizer)
        self._reader: _Reader = _Opening([tool.name for tool in tools]) if tools else _Plain()
        self._text: list[str] = []
        self._calls: list[ToolCall] = []
        self._blanks: str | None = None  # since the last call, where only blanks have followed it
        self._end_of_turn = True

    def feed(self, ids: int | Iterable[int]) -> list[Event]:
        """The text and the calls that have become certain with `ids`; neighbouring texts come as one."""
        events: list[Event] = []
        for id in [ids] if isinstance(ids, int) else ids:
            for event in self._feed(id):
                last = events[-1] if events else None
                if isinstance(event, TextDelta) and isinstance(last, TextDelta):
                    events[-1] = TextDelta(last.text + event.text)
                else:
                    events.append(event)
        return events

    def close(self) -> list[Event]:
        """Ends a message that no stop id has ended, as at a limit of tokens; returns what was still held back.

        Code that was cut off is text: half a program must not run.
        """
        if self.done:
            return []
        self.done = True
        return self._emit([*self._reader.feed(self._decoder.finish()), *self._reader.end(_CUT)])

    def finish(self) -> Message:
        """The whole message. It ends the message first, where that has not happened."""
        self.close()
        return Message("assistant", "".join(self._text), tuple(self._calls), end_of_turn=self._end_of_turn)

    def _feed(self, id: int) -> list[Event]:
        tokenizer = self._tokenizer
        if self.done:
            return []
        if 0 <= id < tokenizer.base_size:
            return self._emit(self._reader.feed(self._decoder.feed(id)))
        if id == tokenizer.python_tag_id:
            items = [*self._reader.feed(self._decoder.finish()), *self._reader.end(_TAG)]
            self._reader = _Tagged()
            return self._emit(items)
        if id in tokenizer.stop_ids:
            self.done = True
            self._end_of_turn = id != tokenizer.eom_id
            return self._emit([*self._reader.feed(self._decoder.finish()), *self._reader.end(_STOP)])
        return []

    def _emit(self, items: Iterable[str | ToolCall]) -> list[Event]:
        """Records and returns the items; blanks after a call are kept back until text follows them."""
        events: list[Event] = []
        for item in items:
            if isinstance(item, ToolCall):
                self._calls.append(item)
                self._blanks = ""
                events.append(ToolCallDelta(item))
                continue
            if self._blanks is not None:
                item, self._blanks = self._blanks + item, None
                if not item.strip():
                    self._blanks = item
                    continue
            if item:
                self._text.append(item)
                events.append(TextDelta(item))
        return events


# How a stretch of text may end: at a stop id, at a `<|python_tag|>`, or cut off.
_STOP, _TAG, _CUT = "stop", "tag", "cut"


class _Reader(Protocol):
    """Takes a stretch of text, gives back text and calls in order."""

    def feed(self, text: str) -> list[str | ToolCall]: ...

    def end(self, how: str) -> list[str | ToolCall]: ...


class _Plain:
    """Text in which nothing is a call."""

    def feed(self, text: str) -> list[str | ToolCall]:
        return [text] if text else []

    def end(self, how: str) -> list[str | ToolCall]:
        del how
        return []


class _Tags:
    """Text in which function tags are calls. A tag that fails is text up to the character that it fails at."""

    def __init__(self) -> None:
        self._tag: FunctionTag | None = None
        self._held: list[str] = []

    def feed(self, text: str) -> list[str | ToolCall]:
        items: list[str | ToolCall] = []
        at = 0
        while at < len(text):
            if self._tag is None:
                start = text.find("<", at)
                start = len(text) if start < 0 else start
                if start > at:
                    items.append(text[at:start])
                at = start
                self._tag = FunctionTag() if at < len(text) else None
            elif self._tag.push(text[at]):
                self._held.append(text[at])
                at += 1
                if self._tag.complete and self._tag.call:
                    items.append(self._tag.call)
                    self._tag, self._held = None, []
            else:
                items.append("".join(self._held))
                self._tag, self._held = None, []
        return items

    def end(self, how: str) -> list[str | ToolCall]:
        del how
        held, tag = "".join(self._held), self._tag
        self._tag, self._held = None, []
        if tag is not None and tag.call is not None:
            return [tag.call]
        return [held] if held else []


class _Opening:
    """The text from a message's beginning: held back while the whole message may be calls."""

    def __init__(self, known: Collection[str]) -> None:
        self._known = known
        self._held: list[str] = []
        self._candidates: list[JsonCalls | PythonicCalls | _BuiltinOpening] = [JsonCalls(known), PythonicCalls()]
        self._candidates += [_BuiltinOpening(name) for name in SEARCH_TOOLS if name in known]
        self._tags = _Tags()

    def feed(self, text: str) -> list[str | ToolCall]:
        if not self._candidates:
            return self._tags.feed(text)
        for at, char in enumerate(text):
            self._candidates = [candidate for candidate in self._candidates if candidate.push(char)]
            if not self._candidates:
                return self._tags.feed(self._take() + text[at:])
            self._held.append(char)
        return []

    def end(self, how: str) -> list[str | ToolCall]:
        held = self._take()
        if self._candidates and how != _TAG:
            try:
                return [*parse_tool_calls(held, self._known)]
            except ToolCallError:
                self._candidates = []
        return [*self._tags.feed(held), *self._tags.end(how)]

    def _take(self) -> str:
        held, self._held = "".join(self._held), []
        return held


class _BuiltinOpening:
    """Whether a text may still be a call of one built-in tool: by its beginning, for its query may hold anything."""

    def __init__(self, name: str) -> None:
        self._opening = f"{name}.call("
        self._matched = 0

    def push(self, char: str) -> bool:
        if self._matched == len(self._opening) or (self._matched == 0 and char.isspace()):
            return True
        self._matched += 1
        return char == self._opening[self._matched - 1]


class _Tagged:
    """The text after a `<|python_tag|>`: what it is shows at its end."""

    def __init__(self) -> None:
        self._held: list[str] = []

    def feed(self, text: str) -> list[str | ToolCall]:
        self._held.append(text)
        return []

    def end(self, how: str) -> list[str | ToolCall]:
        text = "".join(self._held)
        try:
            calls = parse_tagged(text)
        except ToolCallError:
            return [text]
        half_code = how == _CUT and any(call.name == CODE_TOOL for call in calls)
        return [text] if half_code else [*calls]
