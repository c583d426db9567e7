"""Llama 3's chat format: conversations to ids, and ids back to conversations.

A message is a header with its role, a blank line, its content, and a token that ends it: `<|eot_id|>`, or `<|eom_id|>`
where the assistant waits for a tool's result. Header, content and calls are encoded each by itself, as Meta's code
does, and never with special tokens: a user who writes `<|eot_id|>` has written ten characters.

`parse(render(messages, tools), tools)` gives the messages back, with these exceptions. The format carries no ids of
calls, and of a tool's result neither its name nor the call it answers: these come back empty. Lone surrogates come
back as U+FFFD, and arguments as plain JSON values (a tuple as a list). A message with calls comes back with
`end_of_turn` False where the format ends such a message with `<|eom_id|>`. Texts that have the form of a call are read
as one, by the three rules in `puna.tokenizer.parser`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from puna.base.errors import InputError
from puna.core.chat import Conversation, Message, Role, ToolSpec
from puna.tokenizer.bpe import ByteLevelBPE
from puna.tokenizer.parser import TurnParser
from puna.tokenizer.preamble import ChatStyle, Preamble
from puna.tokenizer.tool_calls import write_calls

_SEPARATOR = "\n\n"


class Piece(NamedTuple):
    """A part of a rendered conversation.

    Attributes:
        text: ordinary text, or the name of a special token.
        special: the id of that special token; None for text.
        learn: whether the assistant must produce it.
    """

    text: str
    special: int | None
    learn: bool = False


class ChatFormat:
    """The chat format of one tokenizer.

    Args:
        tokenizer: what encodes.
        style: the choices that the format leaves open.
    """

    def __init__(self, tokenizer: ByteLevelBPE, style: ChatStyle | None = None) -> None:
        self.tokenizer = tokenizer
        self.style = style or ChatStyle()

    def render(
        self, messages: Sequence[Message], tools: Sequence[ToolSpec] | None = None, add_generation_prompt: bool = True
    ) -> list[int]:
        """Ids of a conversation, the start token first.

        Args:
            messages: in order; a system message at the beginning is joined with what tools and dates put there.
            tools: what is on offer.
            add_generation_prompt: end with the header of the assistant's next message.

        Raises:
            InputError: calls in a message that is not the assistant's, or calls that the format cannot write.
        """
        return [id for piece in self._pieces(messages, tools or (), add_generation_prompt) for id in self._ids(piece)]

    def render_text(
        self, messages: Sequence[Message], tools: Sequence[ToolSpec] | None = None, add_generation_prompt: bool = True
    ) -> str:
        """`render` for reading, special tokens by name. Not for encoding: names inside contents look the same."""
        return "".join(piece.text for piece in self._pieces(messages, tools or (), add_generation_prompt))

    def render_for_training(self, conversation: Conversation) -> tuple[list[int], list[bool]]:
        """Ids of a whole conversation, and for each whether it is to be learnt.

        True are the tokens that the assistant must produce: its content, `<|python_tag|>`, its calls and the token
        that ends its message. Headers are not among them, nor is anything that others say.
        """
        ids: list[int] = []
        mask: list[bool] = []
        for piece in self._pieces(conversation.messages, conversation.tools, add_generation_prompt=False):
            new = self._ids(piece)
            ids += new
            mask += [piece.learn] * len(new)
        return ids, mask

    def parser(self, tools: Sequence[ToolSpec] | None = None) -> TurnParser:
        """Reads the message that a model answers a `render` with, id by id. `tools` as they were given there."""
        return TurnParser(self.tokenizer, tools or ())

    def parse(self, ids: Iterable[int], tools: Sequence[ToolSpec] | None = None) -> list[Message]:
        """The messages of a rendered conversation.

        Args:
            ids: whole; an open header at the end (a generation prompt) is no message, and a message that lacks its
                last token is one.
            tools: as they were given to `render`; what they put before the conversation is taken out again.

        Raises:
            InputError: ids that are no conversation, or a role that Llama's format does not have.
        """
        messages = [self._message(role, body, tools or ()) for role, body in self._split(list(ids))]
        return Preamble(self.style, tools or ()).strip([message for message in messages if message is not None])

    def _ids(self, piece: Piece) -> list[int]:
        return self.tokenizer.encode(piece.text) if piece.special is None else [piece.special]

    def _special(self, id: int, learn: bool = False) -> Piece:
        return Piece(self.tokenizer.special_name(id), id, learn)

    def _pieces(
        self, messages: Sequence[Message], tools: Sequence[ToolSpec], add_generation_prompt: bool
    ) -> Iterator[Piece]:
        preamble = Preamble(self.style, tools)
        yield self._special(self.tokenizer.bos_id)
        for message in preamble.add(messages):
            if message.role == "assistant":
                yield from self._header("assistant")
                yield from self._assistant(message, preamble.environment, bool(tools))
                continue
            if message.tool_calls:
                raise InputError(f"A message of role {message.role!r} has tool calls; only the assistant's may.")
            yield from self._header(self.style.tool_role if message.role == "tool" else message.role)
            yield Piece(message.content, None)
            yield self._special(self.tokenizer.eot_id if message.end_of_turn else self.tokenizer.eom_id)
        if add_generation_prompt:
            yield from self._header("assistant")

    def _header(self, role: str) -> Iterator[Piece]:
        yield self._special(self.tokenizer.start_header_id)
        yield Piece(role, None)
        yield self._special(self.tokenizer.end_header_id)
        yield Piece(_SEPARATOR, None)

    def _assistant(self, message: Message, environment: bool, offered: bool) -> Iterator[Piece]:
        """What the assistant says. A tag stands before calls wherever a reader could not tell them from text."""
        if message.content:
            yield Piece(message.content, None, learn=True)
        segments = write_calls(message.tool_calls, self.style.tool_format)
        in_json = self.style.tool_format == "json"
        tagged = bool(message.content) or len(segments) > 1 or not offered or (environment and in_json)
        for segment in segments:
            if tagged or segment.builtin:
                yield self._special(self.tokenizer.python_tag_id, learn=True)
            yield Piece(segment.text, None, learn=True)
        waits = any(segment.builtin or (environment and in_json) for segment in segments)
        ends = self.tokenizer.eom_id if waits or not message.end_of_turn else self.tokenizer.eot_id
        yield self._special(ends, learn=True)

    def _split(self, ids: list[int]) -> Iterator[tuple[str, list[int]]]:
        """Role and body of each message; the body ends with its stop id, where there is one."""
        tokenizer = self.tokenizer
        at = int(ids[:1] == [tokenizer.bos_id])
        while at < len(ids):
            if ids[at] == tokenizer.pad_id:
                at += 1
                continue
            try:
                begin = ids.index(tokenizer.end_header_id, at) + 1
            except ValueError:
                begin = 0
            if not begin or ids[at] != tokenizer.start_header_id:
                raise InputError(
                    f"The ids are no conversation: at {at}, where a message's header must stand, is {ids[at]}.",
                    hint="Parse what ChatFormat.render gave, from its first id on.",
                )
            role = tokenizer.decode(ids[at + 1 : begin - 1])
            at = begin
            while at < len(ids) and ids[at] not in (*tokenizer.stop_ids, tokenizer.start_header_id):
                at += 1
            at += at < len(ids) and ids[at] in tokenizer.stop_ids
            yield role, ids[begin:at]

    def _message(self, name: str, body: list[int], tools: Sequence[ToolSpec]) -> Message | None:
        roles: dict[str, Role] = {"system": "system", "user": "user", "assistant": "assistant"}
        roles |= {"ipython": "tool", "tool": "tool", self.style.tool_role: "tool"}
        if name not in roles:
            raise InputError(f"A message has the role {name!r}; Llama's roles are {', '.join(roles)}.")
        body, stop = (body[:-1], body[-1:]) if body and body[-1] in self.tokenizer.stop_ids else (body, [])
        separator = self.tokenizer.encode(_SEPARATOR)
        if body[: len(separator)] == separator:
            body = body[len(separator) :]
        elif self.tokenizer.decode(body[:1]).startswith(_SEPARATOR):  # one token with the content's first characters
            first = self.tokenizer.decode(body[:1]).removeprefix(_SEPARATOR)
            body = [*self.tokenizer.encode(first), *body[1:]]
        if not body and not stop:
            return None
        if roles[name] == "assistant":
            parser = TurnParser(self.tokenizer, tools)
            parser.feed([*body, *stop])
            return parser.finish()
        return Message(roles[name], self.tokenizer.decode(body), end_of_turn=stop != [self.tokenizer.eom_id])
