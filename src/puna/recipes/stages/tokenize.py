"""The tokenizer, trained on the training documents or taken from the base model; and the documents as token shards."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from puna.core.document import Document
from puna.data import corpus
from puna.data.shards import Segment, write_shards
from puna.recipes.runner import StageContext
from puna.recipes.stages.split import HELD_OUT, TRAIN
from puna.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class TokenizerConfig:
    """A tokenizer to train.

    Attributes:
        vocab_size: all ids, the 256 special ones included; a small corpus may give fewer.
    """

    vocab_size: int = 2304


def train_tokenizer(context: StageContext, config: TokenizerConfig) -> Mapping[str, Any]:
    documents = corpus.read(context.inputs["split"] / TRAIN)
    tokenizer = Tokenizer.train((document.text for document in documents), config.vocab_size)
    return _keep(context, tokenizer)


def take_tokenizer(context: StageContext, base: Path) -> Mapping[str, Any]:
    """The base model's own."""
    return _keep(context, Tokenizer.load(base))


def _keep(context: StageContext, tokenizer: Tokenizer) -> Mapping[str, Any]:
    tokenizer.save(context.folder / "tokenizer")
    metrics: dict[str, Any] = {"vocab_size": tokenizer.vocab_size}
    held_out = corpus.read(context.inputs["split"] / HELD_OUT)
    if tokens := sum(len(tokenizer.encode(document.text)) for document in held_out):
        metrics["held_out_bytes_per_token"] = sum(len(d.text.encode()) for d in held_out) / tokens
    return metrics


def load_tokenizer(context: StageContext) -> Tokenizer:
    return Tokenizer.load(context.inputs["tokenizer"] / "tokenizer")


def write_tokens(context: StageContext) -> Mapping[str, Any]:
    """Training and held-out documents as shards, each between its start and end tokens."""
    tokenizer = load_tokenizer(context)
    metrics = {}
    for part in (TRAIN, HELD_OUT):
        documents = corpus.read(context.inputs["split"] / part)
        if not documents:
            continue
        with context.progress.task(f"tokens, {part}", len(documents), "documents") as bar:
            shards = write_shards(
                context.folder / part, _counted(_encoded(documents, tokenizer), bar.advance), tokenizer.vocab_size
            )
        metrics[f"{part}_tokens"] = shards.tokens
    return metrics


def _encoded(documents: Iterable[Document], tokenizer: Tokenizer) -> Iterator[Segment]:
    for document in documents:
        yield np.asarray(tokenizer.encode(document.text, bos=True, eos=True)), None


def _counted(segments: Iterable[Segment], advance: Any) -> Iterator[Segment]:
    for segment in segments:
        yield segment
        advance()
