"""Bits per byte: how well a model predicts a text, comparable across tokenizers and with file compressors.

A document longer than the context is scored in windows that overlap by half: each token is scored once, with at least
half a context before it (save at the document's beginning). The model pays for every byte of the text; the start token
is given.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from puna.base.config import require
from puna.base.errors import InputError
from puna.core.document import Document
from puna.core.protocols import LanguageModel


@dataclass(frozen=True, slots=True)
class BitsPerByte:
    """The cost of texts under a model.

    Attributes:
        value: bits for a byte of UTF-8.
        bits: for all texts.
        bytes: of all texts.
        tokens: scored.
    """

    value: float
    bits: float
    bytes: int
    tokens: int


def bits_per_byte(
    model: LanguageModel,
    encode: Callable[[str], Sequence[int]],
    documents: Iterable[Document],
    context_length: int,
    advance: Callable[[int], None] = lambda count: None,
) -> BitsPerByte:
    """Scores texts.

    Args:
        model: gives the log-probabilities.
        encode: text to ids, the start token included.
        documents: what to score.
        context_length: tokens of a window.
        advance: told how many tokens have been scored since it was last called.

    Raises:
        ConfigError: a context of no tokens.
        InputError: no text at all.
    """
    require(context_length >= 1, f"context_length is {context_length}; it must be at least 1.")
    nats, scored, size = 0.0, 0, 0
    pending: list[tuple[Sequence[int], int]] = []
    for document in documents:
        size += len(document.text.encode())
        pending.extend(windows(encode(document.text), context_length))
        if len(pending) >= 64:
            gained, count = _score(model, pending)
            nats, scored, pending = nats + gained, scored + count, []
            advance(count)
    gained, count = _score(model, pending)
    advance(count)
    if size == 0:
        raise InputError("There is no held-out text to score.", hint="Hold out more documents (split.held_out).")
    bits = -(nats + gained) / math.log(2)
    return BitsPerByte(bits / size, bits, size, scored + count)


def windows(ids: Sequence[int], context_length: int) -> Iterator[tuple[Sequence[int], int]]:
    """Overlapping windows of at most context_length + 1 ids, each with the first place in it that is to be scored."""
    stride = max(1, context_length // 2)
    start, first = 0, 1
    while first < len(ids):
        window = ids[start : start + context_length + 1]
        yield window, first - start
        first = start + len(window)
        start += stride


def _score(model: LanguageModel, pending: list[tuple[Sequence[int], int]]) -> tuple[float, int]:
    nats, count = 0.0, 0
    for logprobs, (_, first) in zip(model.token_logprobs([w for w, _ in pending]), pending, strict=True):
        nats += math.fsum(logprobs[first - 1 :])
        count += len(logprobs) - (first - 1)
    return nats, count
