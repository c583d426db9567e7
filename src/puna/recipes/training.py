"""What the training stages have in common: how long, in what batches, with which optimizer, on which weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from puna.base.config import require
from puna.base.device import keep_freed_memory, peak_memory, resolve_device
from puna.core.protocols import Objective
from puna.data.loader import BatchSource
from puna.model import budget
from puna.model.checkpoint import Checkpoint
from puna.model.lora import LoraConfig, apply_lora, merge, save_adapter
from puna.model.transformer import Transformer
from puna.recipes.runner import StageContext
from puna.train.optimizer import OptimizerConfig
from puna.train.schedule import ScheduleConfig
from puna.train.trainer import TrainConfig, Trainer

STATE = "state"
ADAPTER = "adapter"


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """A stage's training.

    Attributes:
        tokens: to train on, all epochs together.
        max_epochs: passes over the data at most, however many tokens are asked for: beyond some ten passes a model
            learns the text by heart (arXiv 2305.16264).
        context_length: tokens of a row.
        batch_tokens: tokens of an optimizer step.
        micro_batch_tokens: tokens of one forward pass.
        lora: trains adapters beside frozen weights instead of all weights, and merges them at the end.
        optimizer: see `OptimizerConfig`.
        schedule: see `ScheduleConfig`.
        grad_clip: largest norm of the gradient; 0 for none.
        dtype: of the computation; "auto" is bfloat16 where the hardware has it.
        recompute: activation checkpointing.
        compile: torch.compile.
        validate_every: steps between looks at the held-out loss; 0 for the last only.
        checkpoint_seconds: time between saved states.
    """

    tokens: int = 1_000_000
    max_epochs: float = 10.0
    context_length: int = 512
    batch_tokens: int = 8192
    micro_batch_tokens: int = 2048
    lora: LoraConfig | None = None
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    grad_clip: float = 1.0
    dtype: str = "auto"
    recompute: bool = False
    compile: bool = False
    validate_every: int = 0
    checkpoint_seconds: float = 60.0

    def __post_init__(self) -> None:
        require(self.tokens >= 1, f"tokens is {self.tokens}; it must be at least 1.")
        require(self.max_epochs > 0, f"max_epochs is {self.max_epochs}; it must be above 0.")
        require(
            2 <= self.context_length <= self.batch_tokens,
            f"context_length is {self.context_length}; it must be at least 2 and at most batch_tokens, "
            f"{self.batch_tokens}.",
        )

    def steps(self, tokens_per_epoch: int) -> int:
        """Optimizer steps for data of this size."""
        return max(1, round(min(self.tokens, self.max_epochs * tokens_per_epoch) / self.batch_tokens))

    def train_config(self, steps: int) -> TrainConfig:
        return TrainConfig(
            steps=steps,
            optimizer=self.optimizer,
            schedule=self.schedule,
            grad_clip=self.grad_clip,
            dtype=self.dtype,
            recompute=self.recompute,
            compile=self.compile,
            validate_every=self.validate_every,
            checkpoint_seconds=self.checkpoint_seconds,
        )


@dataclass(frozen=True, slots=True)
class Lesson:
    """One training of one model.

    Attributes:
        name: of the stage.
        objective: what to minimise.
        source: the batches.
        steps: how many.
        validate: gives the held-out loss, if there is one.
    """

    name: str
    objective: Objective
    source: BatchSource
    steps: int
    validate: Callable[[Transformer], dict[str, float]] | None = None


def load_for_training(checkpoint: Checkpoint, config: TrainingConfig, device: str) -> Transformer:
    """The checkpoint's model on the device, with adapters where the config asks for them.

    Trained weights are float32; weights that an adapter leaves frozen are bfloat16.
    """
    keep_freed_memory()
    dtype = "float32" if config.lora is None else "bfloat16"
    model = checkpoint.model(dtype=dtype, device=str(resolve_device(device)))
    return model if config.lora is None else apply_lora(model, config.lora)


def teach(context: StageContext, model: Transformer, lesson: Lesson, config: TrainingConfig) -> dict[str, Any]:
    """Trains `model` in the stage's folder, resuming what was cut off; returns the metrics for the card."""
    trainer = Trainer(
        model,
        lesson.objective,
        lesson.source,
        config.train_config(lesson.steps),
        state_folder=context.folder / STATE,
        name=lesson.name,
        metrics=context.metrics,
        progress=context.progress,
        validate=lesson.validate,
    )
    counts = trainer.fit()
    if config.lora is not None:
        save_adapter(model, context.folder / ADAPTER)
        merge(model)
    flops = budget.training_flops_per_token(model.config, config.context_length)
    rate = counts.tokens / max(counts.seconds, 1e-9)
    return {
        "parameters": budget.parameters(model.config),
        "steps": counts.step,
        "tokens": counts.tokens,
        "training_seconds": round(counts.seconds, 1),
        "tokens_per_second": round(rate, 1),
        "flops_per_second": round(rate * flops),
        "peak_memory": peak_memory(trainer.device),
        "device": str(trainer.device),
        "dtype": str(trainer.dtype).removeprefix("torch."),
        "rows": _last_row(context, lesson.name),
    }


def _last_row(context: StageContext, name: str) -> dict[str, float]:
    """The last losses that the stage has logged."""
    rows = [row for row in context.metrics.read() if row.get("stage") == name]
    return {key: rows[-1][key] for key in ("loss", "held_out_loss") if rows and key in rows[-1]}


def held_out_loss(objective: Objective, source: BatchSource, steps: int) -> Callable[[Transformer], dict[str, float]]:
    """A validation: the objective's loss per token on the first `steps` batches of `source`."""

    def validate(model: Transformer) -> dict[str, float]:
        device = model.embed_tokens.weight.device
        total, count = 0.0, 0
        for step in range(steps):
            for batch in source.micro_batches(step):
                total += float(objective.loss(model, batch.map(lambda a: torch.from_numpy(a).to(device))))
                count += objective.count(batch)
        return {"held_out_loss": total / max(1, count)}

    return validate
