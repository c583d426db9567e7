"""The trainer: one loop for every stage. What is learnt is the objective's affair, in what order the loader's.

The loss of a step is the sum of its token losses divided by the number of its tokens, counted before the first
forward pass: micro-batches of unequal size, gradient accumulation and later the number of ranks never change it.
The state is written every `checkpoint_seconds` and when the user interrupts; since the loader is a function of the
step, a run killed at any moment continues as if nothing had happened, to the last bit.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from puna.base.config import require
from puna.base.device import fast_dtype, memory_used, resolve_dtype
from puna.base.errors import CheckpointError, TrainingError
from puna.base.interrupt import Interruption, deferred
from puna.base.progress import MetricsLog, Progress, Silent, Task
from puna.core.protocols import Objective, StepWide
from puna.core.tokens import Batch
from puna.data.loader import BatchSource
from puna.model.transformer import Transformer
from puna.train.checkpointing import TrainingState, load_state, random_states, restore_random_states, save_state
from puna.train.optimizer import OptimizerConfig
from puna.train.recompute import recompute_layers
from puna.train.schedule import ScheduleConfig

DTYPES = ("auto", "float32", "bfloat16")


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """How to train.

    Attributes:
        steps: optimizer steps.
        optimizer: who moves the parameters.
        schedule: the learning rate's curve.
        grad_clip: largest norm of the gradient of all parameters; 0 leaves it alone.
        dtype: of the computation: "float32", "bfloat16", or "auto" for bfloat16 where the hardware has it. Weights
            stay in float32.
        recompute: whether layers compute their activations again in the backward pass instead of keeping them.
        compile: whether torch.compile fuses the model (worth its minutes of compilation on a GPU).
        log_every: steps between rows of metrics.jsonl.
        validate_every: steps between looks at the held-out loss; 0 for none but the last.
        checkpoint_seconds: time between saved states.
    """

    steps: int = 1000
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    grad_clip: float = 1.0
    dtype: str = "auto"
    recompute: bool = False
    compile: bool = False
    log_every: int = 10
    validate_every: int = 0
    checkpoint_seconds: float = 60.0

    def __post_init__(self) -> None:
        require(self.steps >= 1, f"steps is {self.steps}; it must be at least 1.")
        require(self.log_every >= 1, f"log_every is {self.log_every}; it must be at least 1.")
        require(self.grad_clip >= 0, f"grad_clip is {self.grad_clip}; it must be at least 0 (0 for none).")
        # float16 would need its loss scaled, and autocast does not know float64.
        require(self.dtype in DTYPES, f"dtype is {self.dtype!r}; training knows {', '.join(DTYPES)}.")


@dataclass(slots=True)
class Counts:
    """What a run has done so far; saved with its state."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0


class Trainer:
    """Trains a model.

    Args:
        model: on its device, parameters in float32.
        objective: what to minimise.
        source: the batches of each step.
        config: how.
        state_folder: where the resumable state lives; None keeps none.
        name: of the stage, in metrics and messages.
        metrics: where rows go.
        progress: who watches.
        validate: called with the model in eval mode; its numbers join the metrics.
    """

    def __init__(
        self,
        model: Transformer,
        objective: Objective,
        source: BatchSource,
        config: TrainConfig,
        *,
        state_folder: Path | None = None,
        name: str = "train",
        metrics: MetricsLog | None = None,
        progress: Progress | None = None,
        validate: Callable[[Transformer], dict[str, float]] | None = None,
    ) -> None:
        self.model = model
        self.objective = objective
        self.source = source
        self.config = config
        self.state_folder = state_folder
        self.name = name
        self.metrics = metrics
        self.progress = progress or Silent()
        self.validate = validate
        self.device = next(model.parameters()).device
        self.dtype = fast_dtype(self.device) if config.dtype == "auto" else resolve_dtype(config.dtype)
        self.trained = [p for p in model.parameters() if p.requires_grad]
        self.optimizers = config.optimizer.build(model)
        self.counts = Counts()
        if config.recompute:
            recompute_layers(model)
        if config.compile:
            model.compile()

    def fit(self) -> Counts:
        """Trains to the last step, going on from a saved state where there is one.

        Raises:
            TrainingError: the loss or its gradient is no longer a number; the last saved state is kept.
            KeyboardInterrupt: after the state has been saved.
        """
        self.resume()
        self.model.train()
        total = self.config.steps
        with self.progress.task(self.name, total, "steps", done=self.counts.step) as bar, deferred() as interruption:
            self._loop(bar, interruption)
        self.model.eval()
        return self.counts

    def _loop(self, bar: Task, interruption: Interruption) -> None:
        pending: list[tuple[Tensor, Tensor]] = []
        tokens_before, window, saved = self.counts.tokens, time.monotonic(), time.monotonic()
        while self.counts.step < self.config.steps:
            pending.append(self.train_step(self.counts.step))
            self.counts.step += 1
            last, stop = self.counts.step == self.config.steps, interruption.requested
            if last or stop or self.counts.step % self.config.log_every == 0 or self._validates_now(last):
                now = time.monotonic()
                self.counts.seconds += now - window
                rate = (self.counts.tokens - tokens_before) / max(now - window, 1e-9)
                row = self._row(pending, rate)
                if self._validates_now(last):
                    row |= self._validated()
                self._report(bar, row, len(pending))
                pending, tokens_before, window = [], self.counts.tokens, time.monotonic()
                if last or stop or now - saved >= self.config.checkpoint_seconds:
                    self.save()
                    saved = window = time.monotonic()
            if stop:
                break
        interruption.check()

    def train_step(self, step: int) -> tuple[Tensor, Tensor]:
        """One optimizer step; returns the loss per token and the norm of the gradient, both still on the device."""
        batches = self.source.micro_batches(step)
        objective = self._of_step(batches)
        count = sum(objective.count(batch) for batch in batches)
        loss = torch.zeros((), device=self.device)
        for batch in batches:
            with self._autocast():
                part = objective.loss(self.model, batch.map(self._to_device)) / max(1, count)
            part.backward()
            loss += part.detach()
            self.counts.tokens += int((batch.document_ids >= 0).sum())
        norm = torch.nn.utils.clip_grad_norm_(self.trained, self.config.grad_clip or math.inf)
        self.optimizers.set_factor(self.config.schedule.factor(step, self.config.steps))
        self.optimizers.step()
        self.optimizers.zero_grad()
        return loss, norm

    def _of_step(self, batches: Sequence[Batch[np.ndarray]]) -> Objective:
        if not isinstance(self.objective, StepWide):
            return self.objective
        with torch.no_grad(), self._autocast():
            return self.objective.of_step(self.model, [batch.map(self._to_device) for batch in batches])

    def save(self) -> None:
        """Writes the state, when there is a folder for it."""
        if self.state_folder is None:
            return
        tensors = {f"model/{name}": p.detach() for name, p in self.model.named_parameters() if p.requires_grad}
        tensors |= {f"optimizer/{name}": value for name, value in self.optimizers.state_dict().items()}
        counts = {"step": self.counts.step, "tokens": self.counts.tokens, "seconds": self.counts.seconds}
        save_state(self.state_folder, TrainingState(tensors | random_states(), counts))

    def resume(self) -> bool:
        """Takes up the saved state, when there is one; returns whether there was.

        Rows of the metrics that were written after that state are dropped: their steps come again.
        """
        state = load_state(self.state_folder) if self.state_folder else None
        if state is not None:
            self._restore(state)
        if self.metrics:
            self.metrics.keep(lambda row: row.get("stage") != self.name or row.get("step", 0) <= self.counts.step)
        return state is not None

    def _restore(self, state: TrainingState) -> None:
        named = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        kept = {name.removeprefix("model/"): t for name, t in state.tensors.items() if name.startswith("model/")}
        if {n: t.shape for n, t in kept.items()} != {n: p.shape for n, p in named.items()}:
            raise CheckpointError(
                f"The training state in {self.state_folder} is of another model.",
                hint="Delete that folder to start this stage anew.",
            )
        prefix = "optimizer/"
        self.optimizers.load_state_dict(
            {name.removeprefix(prefix): t for name, t in state.tensors.items() if name.startswith(prefix)}
        )
        with torch.no_grad():
            for name, parameter in named.items():
                parameter.copy_(kept[name])
        restore_random_states({name: t for name, t in state.tensors.items() if name.startswith("random/")})
        self.counts = Counts(**state.values)

    def _validates_now(self, last: bool) -> bool:
        every = self.config.validate_every
        return self.validate is not None and (last or (every > 0 and self.counts.step % every == 0))

    def _validated(self) -> dict[str, float]:
        assert self.validate is not None
        self.model.eval()
        with torch.no_grad(), self._autocast():
            values = self.validate(self.model)
        self.model.train()
        return values

    def _row(self, pending: list[tuple[Tensor, Tensor]], rate: float) -> dict[str, Any]:
        steps = [(float(loss), float(norm)) for loss, norm in pending]
        for step, (loss, norm) in enumerate(steps, self.counts.step - len(steps) + 1):
            if not (math.isfinite(loss) and math.isfinite(norm)):
                raise TrainingError(
                    f"{self.name}: at step {step} the loss is {loss} and the norm of its gradient {norm}.",
                    hint="Lower optimizer.lr or optimizer.muon_lr, or lengthen schedule.warmup_steps.",
                )
        return {
            "stage": self.name,
            "step": self.counts.step,
            "loss": sum(loss for loss, _ in steps) / len(steps),
            "grad_norm": steps[-1][1],
            "lr_factor": self.config.schedule.factor(self.counts.step - 1, self.config.steps),
            "tokens": self.counts.tokens,
            "seconds": round(self.counts.seconds, 3),
            "tokens_per_second": round(rate, 1),
            "memory": memory_used(self.device),
        }

    def _report(self, bar: Task, row: dict[str, Any], steps: int) -> None:
        if self.metrics:
            self.metrics.write(**row)
        shown = {"loss": row["loss"], "tokens/s": row["tokens_per_second"], "GiB": row["memory"] / 2**30}
        bar.advance(steps, **shown, **({"held-out": row["held_out_loss"]} if "held_out_loss" in row else {}))

    def _autocast(self) -> Any:
        return nullcontext() if self.dtype == torch.float32 else torch.autocast(self.device.type, self.dtype)

    def _to_device(self, array: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(array)
        if self.device.type == "cuda":
            return tensor.pin_memory().to(self.device, non_blocking=True)
        return tensor
