"""Groups of answers on their way to a loss: packed whole into rows, each row a few comparisons.

A group is what one term of a loss needs at once: the two or three ranked answers to a prompt, or an answer with its
label. Its segments stand side by side in one row, as Llama 3 trained its reward models (arXiv 2407.21783, section
4.1.2), and rows are filled best-fit, so any rows make a micro-batch and a step has the same number of tokens whatever
the lengths are. A group is never cut: one that is longer than a row is left out, and counted.

Each answer has the prompt's tokens to itself; sharing them would need a mask that is a tree.
Shapes: B rows, T tokens, S segments in the order of the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from puna.base.errors import InputError
from puna.core.tokens import A, Batch
from puna.data.loader import PackedLoader
from puna.data.packing import Packing, fill, pack
from puna.data.shards import TokenShards

C = TypeVar("C")


@dataclass(frozen=True, slots=True)
class Group:
    """Segments that belong together.

    Attributes:
        segments: their numbers in the shards; ranked answers stand best first.
        label: what is known of the group: a margin, or 1 and 0 for an answer that is good or not.
    """

    segments: tuple[int, ...]
    label: float = 0.0


@dataclass(frozen=True, slots=True)
class GroupBatch(Batch[A]):
    """A batch with what is known of its segments.

    Attributes:
        group_S: int64, the number of the segment's group within the batch, from 0 without a gap.
        rank_S: int64, the segment's place in its group, 0 the best.
        reference_S: float32, the log-probability of the segment's marked tokens under a reference model; 0 where the
            loss has no use for it.
        label_S: float32, the label of the segment's group.
    """

    group_S: A
    rank_S: A
    reference_S: A
    label_S: A

    def map(self, function: Callable[[Any], C]) -> GroupBatch[C]:
        return Batch.map(self, function)  # pyright: ignore[reportReturnType]


class GroupLoader(PackedLoader):
    """Shuffled rows of packed groups, as a function of (seed, step).

    Args:
        shards: the segments.
        groups: which of them belong together.
        context_length: tokens of a row; groups with more are left out.
        batch_tokens: tokens of a step.
        micro_batch_tokens: tokens of one forward pass.
        references: log-probability of each of the shards' segments; None for zeros.
        seed: of the order.

    Attributes:
        packing: the rows; `left_out` counts groups, `padding` is the share of places that hold nothing.
    """

    def __init__(
        self,
        shards: TokenShards,
        groups: Sequence[Group],
        context_length: int,
        batch_tokens: int,
        micro_batch_tokens: int,
        *,
        references: np.ndarray | None = None,
        seed: int = 0,
    ) -> None:
        self.shards = shards
        self.groups = list(groups)
        self.references = np.zeros(len(shards), dtype=np.float32) if references is None else references
        if len(self.references) != len(shards):
            raise InputError(f"There are {len(self.references)} references for {len(shards)} segments.")
        packing, self.group_P = pack_groups(shards.lengths, self.groups, context_length)
        super().__init__(packing, batch_tokens, micro_batch_tokens, seed)

    def batch(self, rows: np.ndarray) -> GroupBatch[np.ndarray]:
        tokens = fill(self.shards, self.packing, rows)
        pieces = np.concatenate([np.arange(*self.packing.first_piece[row : row + 2]) for row in rows])
        segments, groups = self.packing.pieces[pieces, 0], self.group_P[pieces]
        begins = np.concatenate([[True], groups[1:] != groups[:-1]])
        # A group may come twice where a step reaches into the next epoch; its segments are neighbours all the same.
        begins |= np.array([self.groups[g].segments[0] for g in groups]) == segments
        number = np.cumsum(begins) - 1
        rank = np.arange(len(pieces)) - np.flatnonzero(begins)[number]
        return GroupBatch(
            tokens.ids,
            tokens.targets,
            tokens.positions,
            tokens.document_ids,
            tokens.loss_mask,
            group_S=number,
            rank_S=rank,
            reference_S=self.references[segments].astype(np.float32),
            label_S=np.array([self.groups[g].label for g in groups], dtype=np.float32),
        )


def pack_groups(lengths: np.ndarray, groups: Sequence[Group], context_length: int) -> tuple[Packing, np.ndarray]:
    """Rows of whole groups.

    Args:
        lengths: (N,) int64, tokens of each segment.
        groups: of segments, none empty and none twice.
        context_length: tokens of a row.

    Returns:
        The packing, whose pieces are segments and whose `left_out` counts groups; and the group of each piece, (P,).

    Raises:
        InputError: no group fits a row.
    """
    if not all(group.segments for group in groups):
        raise InputError("A group has no segments.")
    sizes = np.array([lengths[list(group.segments)].sum() for group in groups], dtype=np.int64)
    if not (sizes <= context_length).any():
        shortest = f"; the shortest has {sizes.min()}" if len(sizes) else ""
        raise InputError(
            f"None of {len(groups)} groups of answers fits a row of {context_length} tokens{shortest}.",
            hint="Raise context_length.",
        )
    packing = pack(sizes, context_length, split=False)
    order = packing.pieces[:, 0]
    counts = np.array([len(groups[g].segments) for g in order], dtype=np.int64)
    segments = np.array([segment for g in order for segment in groups[g].segments], dtype=np.int64)
    pieces = np.stack([segments, np.zeros_like(segments), lengths[segments]], axis=1)
    ends = np.concatenate([[0], np.cumsum(counts)])
    return (
        Packing(context_length, pieces, ends[packing.first_piece], packing.left_out),
        np.repeat(order, counts),
    )
