"""Supervised fine-tuning: the model learns to answer, on the assistant's tokens of the run's conversations."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from puna.base.errors import CheckpointError, InputError
from puna.core.chat import Conversation
from puna.data.conversations import read_conversations
from puna.data.loader import Loader
from puna.data.shards import Segment, write_shards
from puna.model.checkpoint import Checkpoint
from puna.recipes.run_folder import CHECKPOINT
from puna.recipes.runner import StageContext
from puna.recipes.stages.questions import CONVERSATIONS
from puna.recipes.training import Lesson, TrainingConfig, load_for_training, teach
from puna.tokenizer import Tokenizer
from puna.train.objectives import OBJECTIVES

TOKENS = "tokens"


@dataclass(frozen=True, slots=True)
class FinetuneConfig(TrainingConfig):
    """Supervised fine-tuning.

    Attributes:
        seed: of the order of the conversations.
    """

    seed: int = 0


def finetune(context: StageContext, config: FinetuneConfig, device: str) -> Mapping[str, Any]:
    """Trains the run's pre-trained model on the run's conversations."""
    checkpoint = Checkpoint.load(context.inputs["pretrain"] / CHECKPOINT)
    conversations = read_conversations(context.inputs["questions"] / CONVERSATIONS)
    if not conversations:
        raise InputError(
            "The documents gave no conversation to learn from.",
            hint="Add documents with headings, definitions or docstrings, or end the run before: --until pretrain.",
        )
    return tune(context, checkpoint, conversations, config, device)


def tune(
    context: StageContext,
    checkpoint: Checkpoint,
    conversations: Sequence[Conversation],
    config: FinetuneConfig,
    device: str,
) -> Mapping[str, Any]:
    """Trains a checkpoint on conversations, packed whole into rows, and saves the new checkpoint in the folder."""
    tokenizer = checkpoint.tokenizer
    if tokenizer is None:
        raise CheckpointError("The checkpoint has no tokenizer.", hint="Put its tokenizer.json into its folder.")
    shards = write_shards(context.folder / TOKENS, _rendered(conversations, tokenizer), checkpoint.config.vocab_size)
    loader = Loader(
        shards, config.context_length, config.batch_tokens, config.micro_batch_tokens, seed=config.seed, split=False
    )
    model = load_for_training(checkpoint, config, device)
    steps = config.steps(loader.packing.tokens)
    metrics = teach(context, model, Lesson("sft", OBJECTIVES.get("sft"), loader, steps), config)
    Checkpoint.of(model, tokenizer).save(context.folder / CHECKPOINT)
    return metrics | {
        "conversations": len(conversations),
        "too_long": loader.packing.left_out,
        "padding": loader.packing.padding,
        "epochs": metrics["tokens"] / loader.packing.tokens,
    }


def _rendered(conversations: Iterable[Conversation], tokenizer: Tokenizer) -> Iterator[Segment]:
    for conversation in conversations:
        ids, mask = tokenizer.chat.render_for_training(conversation)
        yield np.asarray(ids), np.asarray(mask, dtype=np.bool_)
