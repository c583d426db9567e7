"""Fakes for the tests of whatever is built on Puna: a chat model with a script, a tokenizer of bytes, a tiny Llama.

Nothing here is trained and nothing is fetched; each is made in a moment. The script does not sample: settings such as
stop strings and `max_tokens` are noted, and change nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch

from puna.core.chat import Message, ToolSpec
from puna.core.completion import Completion, Done, SamplingParams, StreamEvent, TextDelta, ToolCallDelta
from puna.model.checkpoint import Checkpoint
from puna.model.config import ModelConfig
from puna.model.init import InitConfig, initialize
from puna.model.transformer import Transformer
from puna.tokenizer import Tokenizer
from puna.tokenizer.special import special_tokens

# A list is an answer in the very pieces that a stream gives; an exception is raised where its turn comes.
Answer = str | Message | Completion | BaseException | Sequence[str | BaseException]
_SPECIAL_TOKENS = 16


@dataclass(frozen=True, slots=True)
class Asked:
    """One request to a `ScriptedChatModel`."""

    messages: tuple[Message, ...]
    params: SamplingParams | None
    tools: tuple[ToolSpec, ...]


class ScriptedChatModel:
    """A `ChatModel` that says what it is told to say.

        model = ScriptedChatModel(["Yes.", ["Half of ", RemoteError("gone")]])
        model = ScriptedChatModel(lambda messages: messages[-1].content.upper())

    Args:
        answers: one for each request, in order; or a function from a conversation to its answer.

    Attributes:
        asked: every request so far.
    """

    def __init__(self, answers: Sequence[Answer] | Callable[[Sequence[Message]], Answer]) -> None:
        self.asked: list[Asked] = []
        self._answers = answers

    def chat(
        self, messages: Sequence[Message], params: SamplingParams | None = None, tools: Sequence[ToolSpec] = ()
    ) -> Completion:
        *_, done = self.stream(messages, params, tools)
        assert isinstance(done, Done)
        return done.completion

    def stream(
        self, messages: Sequence[Message], params: SamplingParams | None = None, tools: Sequence[ToolSpec] = ()
    ) -> Iterator[StreamEvent]:
        """Gives the text word by word, unless the script cuts it itself."""
        self.asked.append(Asked(tuple(messages), params, tuple(tools)))
        pieces, completion = _script(self._answer(messages))
        said = ""
        for piece in pieces:
            if isinstance(piece, BaseException):
                raise piece
            said += piece
            yield TextDelta(piece)
        completion = completion or Completion(Message("assistant", said))
        for call in completion.message.tool_calls:
            yield ToolCallDelta(call)
        yield Done(completion)

    def chat_batch(
        self, conversations: Sequence[Sequence[Message]], params: SamplingParams | None = None
    ) -> list[Completion]:
        return [self.chat(messages, params) for messages in conversations]

    def _answer(self, messages: Sequence[Message]) -> Answer:
        if callable(self._answers):
            return self._answers(messages)
        if len(self.asked) > len(self._answers):
            raise AssertionError(f"The script has {len(self._answers)} answers, and {len(self.asked)} are asked for.")
        return self._answers[len(self.asked) - 1]


def _script(answer: Answer) -> tuple[Sequence[str | BaseException], Completion | None]:
    """The pieces of a stream, and its end; None where that is what the pieces have said."""
    match answer:
        case str():
            return _words(answer), None
        case BaseException():
            return [answer], None
        case Message():
            return _words(answer.content), Completion(answer)
        case Completion():
            return _words(answer.message.content), answer
        case _:
            return answer, None


def _words(text: str) -> list[str]:
    """The words, each with the white space around it."""
    return re.findall(r"\s*\S+\s*|\s+", text)


@cache
def tiny_tokenizer() -> Tokenizer:
    """Llama 3's tokenizer with no merges: the ids of a text are its bytes of UTF-8. 16 special tokens follow them."""
    ranks = {bytes([byte]): byte for byte in range(256)}
    return Tokenizer(ranks, special_tokens(len(ranks), _SPECIAL_TOKENS))


def tiny_config(**changes: Any) -> ModelConfig:
    """The shape of `tiny_model`: two layers, grouped queries, a context of 2,048 tokens."""
    tokenizer = tiny_tokenizer()
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        bos_token_id=tokenizer.bos_id,
        eos_token_id=tokenizer.stop_ids,
    )
    return replace(config, **({"head_dim": 0} | changes))


def tiny_model(seed: int = 0, **changes: Any) -> Transformer:
    """A Llama of 35,000 random weights, all of which matter: none is zero, and no norm is one.

    Args:
        seed: of the weights; the same seed gives the same ones.
        changes: to the fields of `tiny_config`.
    """
    scales = InitConfig(embedding_std=1.0, linear_gain=1.0, zero_residual=False)
    model = initialize(Transformer(tiny_config(**changes)), seed, scales)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.uniform_(0.5, 1.5, generator=generator)
    return model.eval()


def tiny_checkpoint(folder: Path | str, seed: int = 0, dtype: str = "float32", **changes: Any) -> Path:
    """Saves a `tiny_model` with `tiny_tokenizer` as a checkpoint in Hugging Face's layout; returns the folder."""
    Checkpoint.of(tiny_model(seed, **changes), tiny_tokenizer()).save(folder, dtype=dtype)
    return Path(folder)
