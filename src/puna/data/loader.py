"""The loader: which rows a training step sees, as a pure function of (seed, step).

There is no iterator to save: a resumed run asks for step 1,234 and gets what it would have got. Rows are shuffled anew
in each epoch. A `Curriculum` lets the context length change on the way, as Llama 3.1 was trained: short rows first,
where a batch holds many documents, and long ones at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from puna.base.errors import ConfigError
from puna.core.tokens import Batch
from puna.data.packing import Packing, fill, pack
from puna.data.shards import TokenShards


class BatchSource(Protocol):
    """What a trainer reads from."""

    def micro_batches(self, step: int) -> list[Batch[np.ndarray]]:
        """The batch of a step, in pieces small enough for one forward pass."""
        ...


class Loader:
    """Shuffled rows of packed shards.

    Args:
        shards: the segments.
        context_length: tokens of a row.
        batch_tokens: tokens of a step, a multiple of context_length.
        micro_batch_tokens: tokens of one forward pass.
        seed: of the order.
        split: whether segments longer than a row are cut (pre-training) or left out (conversations).
    """

    def __init__(
        self,
        shards: TokenShards,
        context_length: int,
        batch_tokens: int,
        micro_batch_tokens: int,
        *,
        seed: int = 0,
        split: bool = True,
    ) -> None:
        self.shards = shards
        self.packing: Packing = pack(shards.lengths, context_length, split=split)
        self.rows_per_step = batch_tokens // context_length
        self.rows_per_micro_batch = max(1, micro_batch_tokens // context_length)
        self.seed = seed
        if self.rows_per_step < 1:
            raise ConfigError(
                f"batch_tokens is {batch_tokens}; it must hold one row of context_length {context_length}."
            )
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0, dtype=np.int64))

    @property
    def steps_per_epoch(self) -> float:
        return self.packing.rows / self.rows_per_step

    def micro_batches(self, step: int) -> list[Batch[np.ndarray]]:
        rows = self.rows(step)
        parts = range(0, len(rows), self.rows_per_micro_batch)
        return [fill(self.shards, self.packing, rows[i : i + self.rows_per_micro_batch]) for i in parts]

    def rows(self, step: int) -> np.ndarray:
        """(rows_per_step,) int64, the rows of a step; a step may reach into the next epoch."""
        places = step * self.rows_per_step + np.arange(self.rows_per_step)
        epochs, within = np.divmod(places, self.packing.rows)
        return np.concatenate([self._epoch(int(e))[within[epochs == e]] for e in np.unique(epochs)])

    def _epoch(self, epoch: int) -> np.ndarray:
        if self._order[0] != epoch:
            generator = np.random.default_rng([self.seed, epoch])
            self._order = epoch, generator.permutation(self.packing.rows)
        return self._order[1]


class Curriculum:
    """Loaders one after another.

    Args:
        phases: (first step, loader) pairs in order; the first begins at step 0.
    """

    def __init__(self, phases: Sequence[tuple[int, Loader]]) -> None:
        firsts = [first for first, _ in phases]
        if not phases or firsts[0] != 0 or firsts != sorted(set(firsts)):
            raise ConfigError(f"The phases of a curriculum begin at steps {firsts}; they must rise from 0.")
        self.phases = list(phases)

    def micro_batches(self, step: int) -> list[Batch[np.ndarray]]:
        first, loader = next(phase for phase in reversed(self.phases) if phase[0] <= step)
        return loader.micro_batches(step - first)
