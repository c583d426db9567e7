"""Pre-training: from fresh weights, or continued from a base model, on next tokens of the training documents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from puna.base.config import require
from puna.base.device import resolve_device
from puna.data.loader import Curriculum, Loader
from puna.data.shards import TokenShards
from puna.model.checkpoint import Checkpoint
from puna.model.config import ModelConfig
from puna.model.init import InitConfig, initialize
from puna.model.transformer import Transformer
from puna.recipes.run_folder import CHECKPOINT
from puna.recipes.runner import StageContext
from puna.recipes.stages.split import HELD_OUT, TRAIN
from puna.recipes.stages.tokenize import load_tokenizer
from puna.recipes.training import Lesson, TrainingConfig, held_out_loss, load_for_training, teach
from puna.tokenizer import Tokenizer
from puna.train.objectives import OBJECTIVES

_VALIDATION_TOKENS = 32_768


@dataclass(frozen=True, slots=True)
class PretrainConfig(TrainingConfig):
    """Pre-training.

    Attributes:
        final_context_length: tokens of a row in the last part of the training; 0 keeps context_length.
        final_context_share: how large that last part is.
        init: the first weights of a model from scratch.
        seed: of the weights and of the order of the data.
    """

    final_context_length: int = 0
    final_context_share: float = 0.2
    init: InitConfig = field(default_factory=InitConfig)
    seed: int = 0

    def __post_init__(self) -> None:
        TrainingConfig.__post_init__(self)
        require(
            self.final_context_length == 0 or self.context_length <= self.final_context_length <= self.batch_tokens,
            f"final_context_length is {self.final_context_length}; it must be 0, or between context_length, "
            f"{self.context_length}, and batch_tokens, {self.batch_tokens}.",
        )

    @property
    def longest_context(self) -> int:
        return max(self.context_length, self.final_context_length)


def from_scratch(context: StageContext, shape: ModelConfig, config: PretrainConfig, device: str) -> Mapping[str, Any]:
    """Trains a model of this shape, with the vocabulary of the run's tokenizer, from fresh weights."""
    tokenizer = load_tokenizer(context)
    shape = shape.with_vocabulary(tokenizer.vocab_size, tokenizer.bos_id, tuple(tokenizer.stop_ids))
    model = initialize(Transformer(shape).to(resolve_device(device)), config.seed, config.init)
    return _pretrain(context, model, tokenizer, config)


def continued(context: StageContext, base: Path, config: PretrainConfig, device: str) -> Mapping[str, Any]:
    """Trains a base model on."""
    model = load_for_training(Checkpoint.load(base), config, device)
    return _pretrain(context, model, load_tokenizer(context), config)


def _pretrain(
    context: StageContext, model: Transformer, tokenizer: Tokenizer, config: PretrainConfig
) -> Mapping[str, Any]:
    shards = TokenShards(context.inputs["tokens"] / TRAIN)
    steps = config.steps(shards.tokens)
    objective = OBJECTIVES.get("next_token")
    validate = None
    if (context.inputs["tokens"] / HELD_OUT).exists():
        held_out = TokenShards(context.inputs["tokens"] / HELD_OUT)
        source = _loader(held_out, config.context_length, config)
        batches = min(_VALIDATION_TOKENS, held_out.tokens) // config.batch_tokens
        validate = held_out_loss(objective, source, max(1, batches))
    lesson = Lesson("pretrain", objective, _curriculum(shards, steps, config), steps, validate)
    metrics = teach(context, model, lesson, config)
    Checkpoint.of(model, tokenizer).save(context.folder / CHECKPOINT)
    return metrics | {"epochs": metrics["tokens"] / shards.tokens}


def _curriculum(shards: TokenShards, steps: int, config: PretrainConfig) -> Curriculum:
    phases = [(0, _loader(shards, config.context_length, config))]
    switch = round(steps * (1 - config.final_context_share))
    if config.final_context_length and 0 < switch < steps:
        phases.append((switch, _loader(shards, config.final_context_length, config)))
    return Curriculum(phases)


def _loader(shards: TokenShards, context_length: int, config: PretrainConfig) -> Loader:
    # Another order for each length, or the second phase would repeat the documents of the first one's start.
    seed = config.seed + context_length
    return Loader(shards, context_length, config.batch_tokens, config.micro_batch_tokens, seed=seed)
