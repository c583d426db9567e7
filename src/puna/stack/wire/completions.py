"""Raw completions, tokens and infilling on the wire: bodies, and answers in the form that OpenAI had before chat."""

from __future__ import annotations

import codecs
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import Field

from puna.core.completion import Completion, TokenLogprob
from puna.stack.conversion import NamedLogprob
from puna.stack.wire.base import Wire
from puna.stack.wire.chat import Frame, StreamOptions, name_of

SAMPLING = (
    *("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty"),
    *("seed", "stop", "logit_bias"),
)
_DEFAULT_TOKENS = 16


class CompletionRequest(Wire):
    """The body of POST /v1/completions."""

    model: str
    prompt: str | list[str] | list[int] | list[list[int]] | None = None
    best_of: int | None = Field(None, ge=0, le=20)
    echo: bool | None = None
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    logit_bias: dict[str, float] | None = None
    logprobs: int | None = Field(None, ge=0, le=20)
    max_tokens: int | None = Field(None, ge=0, description=f"{_DEFAULT_TOKENS} where it is not said.")
    n: int | None = Field(None, ge=1, le=128)
    seed: int | None = None
    stop: str | list[str] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    suffix: str | None = Field(None, description="Refused: POST /infill is for that.")
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    top_k: int | None = Field(None, ge=0)
    min_p: float | None = Field(None, ge=0, lt=1)
    repetition_penalty: float | None = Field(None, gt=0)
    structured_outputs: dict[str, Any] | None = None

    @property
    def limit(self) -> int:
        return _DEFAULT_TOKENS if self.max_tokens is None else self.max_tokens

    def sampling(self) -> dict[str, Any]:
        """The fields that `params_of` reads and that mean the same here."""
        return {name: getattr(self, name) for name in SAMPLING}


class TokenizeRequest(Wire):
    """The body of POST /tokenize: a text, or a conversation."""

    model: str | None = None
    content: str | None = Field(None, description="The text, as llama.cpp calls it.")
    prompt: str | None = Field(None, description="The text, as vLLM calls it.")
    messages: list[dict[str, Any]] | None = Field(None, description="A conversation, of which the count is given.")
    tools: list[dict[str, Any]] | None = None
    add_special: bool = Field(False, description="Put the start token before the text.")
    parse_special: bool = Field(True, description="Read special tokens where their names stand.")
    with_pieces: bool = Field(False, description="Give the text of each token too.")


class DetokenizeRequest(Wire):
    """The body of POST /detokenize."""

    model: str | None = None
    tokens: list[int]


class InfillRequest(Wire):
    """The body of POST /infill."""

    model: str | None = None
    input_prefix: str = ""
    input_suffix: str = ""
    input_extra: list[dict[str, Any]] | None = Field(None, description="Other files: filename and text.")
    prompt: str = Field("", description="What is added after the prefix.")
    n_predict: int = -1
    temperature: float | None = Field(None, ge=0, le=2)
    top_k: int | None = Field(None, ge=0)
    top_p: float | None = Field(None, ge=0, le=1)
    min_p: float | None = Field(None, ge=0, lt=1)
    seed: int | None = None
    stop: list[str] | None = None
    stream: bool = False


@dataclass(frozen=True, slots=True)
class Echo:
    """A prompt that is said again before its answers.

    Attributes:
        text: of it.
        tokens: their bytes; empty where no probabilities were asked for.
        logprobs: one per token, None for the first where nothing comes before it.
    """

    text: str = ""
    tokens: tuple[bytes, ...] = ()
    logprobs: tuple[float | None, ...] = ()


def text_completion(frame: Frame, choices: list[dict[str, Any]], usage: dict[str, Any] | None) -> dict[str, Any]:
    """A whole answer, or a chunk of a stream."""
    data: dict[str, Any] = {
        "id": frame.id,
        "object": "text_completion",
        "created": frame.created,
        "model": frame.model,
        "choices": choices,
        "system_fingerprint": frame.fingerprint,
    }
    return data | ({"usage": usage} if usage is not None else {})


def choice_json(
    index: int, text: str, logprobs: dict[str, Any] | None = None, finish: str | None = None
) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish}


def logprobs_json(echo: Echo, logprobs: Sequence[TokenLogprob]) -> dict[str, Any]:
    """The four lists of the old form: tokens, their probabilities, the alternatives, and where each token begins.

    Alternatives to the tokens of a prompt are not computed, and are null.
    """
    tokens = [*echo.tokens, *(_token(item) for item in logprobs)]
    tops: list[dict[str, float] | None] = [None] * len(echo.tokens)
    for item in logprobs:
        names = item.names if isinstance(item, NamedLogprob) else [name_of(id) for id, _ in item.top]
        top = {_text(name): max(value, -9999.0) for name, (_, value) in zip(names, item.top, strict=True)}
        tops.append({**top, _text(_token(item)): max(item.logprob, -9999.0)})
    return {
        "tokens": [_text(token) for token in tokens],
        "token_logprobs": [
            value if value is None else max(value, -9999.0)
            for value in (*echo.logprobs, *(item.logprob for item in logprobs))
        ],
        "top_logprobs": tops,
        "text_offset": _offsets(tokens),
    }


def _token(item: TokenLogprob) -> bytes:
    return item.token if isinstance(item, NamedLogprob) else name_of(item.id)


def _text(token: bytes) -> str:
    return token.decode(errors="replace")


def _offsets(tokens: Sequence[bytes]) -> list[int]:
    """How many characters are complete before each token; a token may hold half of one."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    offsets, length = [], 0
    for token in tokens:
        offsets.append(length)
        length += len(decoder.decode(token))
    return offsets


class TextChunkWriter:
    """The chunks of a streamed answer, as events."""

    def __init__(self, frame: Frame, include_usage: bool) -> None:
        self.include_usage = include_usage
        head = text_completion(frame, [], None)
        del head["choices"]
        self._head = f"data: {_dump(head)[:-1]}," + ('"usage":null,' if include_usage else "")

    def choice(self, index: int, text: str, logprobs: dict[str, Any] | None = None, finish: str | None = None) -> bytes:
        choice = _dump(choice_json(index, text, logprobs, finish))
        return f'{self._head}"choices":[{choice}]}}\n\n'.encode(errors="replace")

    def usage(self, usage: dict[str, Any]) -> bytes:
        head = self._head.removesuffix('"usage":null,')
        return f'{head}"choices":[],"usage":{_dump(usage)}}}\n\n'.encode()


def finish_of(completion: Completion) -> str:
    return "length" if completion.stop_reason == "length" else "stop"


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
