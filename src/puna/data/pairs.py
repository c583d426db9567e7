"""Batches of questions and passages for the contrastive objective, as a function of (seed, step) like every loader's.

A batch takes some questions, each with the passage that answers it and some that look as if they did. A passage that
several of them share is there once. What the arrays mean is said in `train/contrastive.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from puna.base.errors import InputError
from puna.core.tokens import Batch
from puna.data.loader import Order
from puna.data.packing import fill, pack
from puna.data.shards import TokenShards


@dataclass(frozen=True, slots=True)
class Pair:
    """A question and its passages, each the number of a segment.

    Attributes:
        question: of its own.
        passage: that answers it.
        others: that do not, though they look like it.
    """

    question: int
    passage: int
    others: tuple[int, ...] = ()


class PairLoader:
    """Shuffled questions with their passages.

    Args:
        shards: the segments.
        pairs: which of them belong together.
        context_length: tokens of a row; pairs with a longer segment are left out.
        batch_tokens: tokens of a step, on average.
        seed: of the order.
    """

    def __init__(
        self, shards: TokenShards, pairs: Sequence[Pair], context_length: int, batch_tokens: int, *, seed: int = 0
    ) -> None:
        lengths = shards.lengths
        fitting = [p for p in pairs if lengths[[p.question, p.passage, *p.others]].max() <= context_length]
        if len(fitting) < 2:
            raise InputError(
                f"{len(fitting)} of {len(pairs)} questions fit rows of {context_length} tokens with their passages; "
                "telling passages apart takes at least 2.",
                hint="Raise context_length.",
            )
        self.shards = shards
        self.pairs = fitting
        self.context_length = context_length
        self.tokens = int(sum(lengths[[p.question, p.passage, *p.others]].sum() for p in fitting))
        per_step = min(len(fitting), max(2, round(batch_tokens * len(fitting) / self.tokens)))
        self.order = Order(len(fitting), per_step, seed)

    def micro_batches(self, step: int) -> list[Batch[np.ndarray]]:
        """One batch: its passages are each other's negatives, so they are not taken apart."""
        return [self._batch([self.pairs[i] for i in self.order.of_step(step)])]

    def _batch(self, chosen: Sequence[Pair]) -> Batch[np.ndarray]:
        passages = list(dict.fromkeys(number for pair in chosen for number in (pair.passage, *pair.others)))
        segments = np.array([*passages, *(pair.question for pair in chosen)])
        place = {number: place for place, number in enumerate(passages)}
        numbers = np.array([*range(len(passages)), *(place[pair.passage] for pair in chosen)])
        packing = pack(self.shards.lengths[segments], self.context_length, split=False)
        which = packing.pieces[:, 0].copy()
        packing.pieces[:, 0] = segments[which]
        batch = fill(self.shards, packing, np.arange(packing.rows))
        targets, asks = np.full_like(batch.targets, -1), np.zeros_like(batch.loss_mask)
        for row in range(packing.rows):
            pieces = range(packing.first_piece[row], packing.first_piece[row + 1])
            for within, piece in enumerate(pieces):
                tokens = batch.document_ids[row] == within
                targets[row, tokens] = numbers[which[piece]]
                asks[row, tokens] = which[piece] >= len(passages)
        return Batch(batch.ids, targets, batch.positions, batch.document_ids, asks)
