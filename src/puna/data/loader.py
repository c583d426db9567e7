"""The loader: which rows a training step sees, as a pure function of (seed, step).

There is no iterator to save: a resumed run asks for step 1,234 and gets what it would have got. Rows are shuffled anew
in each epoch. A `Curriculum` lets the context length change on the way, as Llama 3.1 was trained: short rows first,
where a batch holds many documents, and long ones at the end.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Protocol

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


class Order:
    """Which of `count` things each step takes: all of them in turn, shuffled anew in each epoch."""

    def __init__(self, count: int, per_step: int, seed: int) -> None:
        self.count, self.per_step, self.seed = count, per_step, seed
        self._last: tuple[int, np.ndarray] = (-1, np.empty(0, dtype=np.int64))

    def of_step(self, step: int) -> np.ndarray:
        """(per_step,) int64; a step may reach into the next epoch."""
        places = step * self.per_step + np.arange(self.per_step)
        epochs, within = np.divmod(places, self.count)
        return np.concatenate([self._epoch(int(e))[within[epochs == e]] for e in np.unique(epochs)])

    def _epoch(self, epoch: int) -> np.ndarray:
        if self._last[0] != epoch:
            self._last = epoch, np.random.default_rng([self.seed, epoch]).permutation(self.count)
        return self._last[1]


class PackedLoader(ABC):
    """Shuffled rows of a packing; a subclass says what a batch of some rows is.

    Args:
        packing: the rows.
        batch_tokens: tokens of a step; what is left over a whole number of rows is not used.
        micro_batch_tokens: tokens of one forward pass.
        seed: of the order.

    Attributes:
        order: of the rows.
    """

    def __init__(self, packing: Packing, batch_tokens: int, micro_batch_tokens: int, seed: int) -> None:
        context_length = packing.context_length
        if batch_tokens < context_length:
            raise ConfigError(
                f"batch_tokens is {batch_tokens}; it must hold one row of context_length {context_length}."
            )
        self.packing = packing
        self.order = Order(packing.rows, batch_tokens // context_length, seed)
        self.rows_per_micro_batch = max(1, micro_batch_tokens // context_length)

    @property
    def steps_per_epoch(self) -> float:
        return self.packing.rows / self.order.per_step

    def micro_batches(self, step: int) -> list[Any]:
        rows = self.order.of_step(step)
        parts = range(0, len(rows), self.rows_per_micro_batch)
        return [self.batch(rows[i : i + self.rows_per_micro_batch]) for i in parts]

    @abstractmethod
    def batch(self, rows: np.ndarray) -> Batch[np.ndarray]:
        """The batch of these rows."""


class Loader(PackedLoader):
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
        super().__init__(pack(shards.lengths, context_length, split=split), batch_tokens, micro_batch_tokens, seed)

    def batch(self, rows: np.ndarray) -> Batch[np.ndarray]:
        return fill(self.shards, self.packing, rows)


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
