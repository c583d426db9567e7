"""Best-fit packing with split: segments into rows of one length, no token lost and none duplicated.

A segment longer than a row is cut into whole rows and a remainder (arXiv 2404.10830); remainders and short segments
are placed, longest first, each into the row whose free space fits it best. What is cut keeps its learning signal: the
last token of a piece still learns the first token of the next one as its target, so every token except a segment's
first is a target exactly once, and every token is an input exactly once.

Conversations must not be cut (an answer would lose its question): with `split=False` those that are too long are left
out, and counted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from puna.base.errors import InputError
from puna.core.tokens import Batch
from puna.data.shards import TokenShards

PADDING = -1


@dataclass(frozen=True, slots=True)
class Packing:
    """Which pieces make up which row.

    Attributes:
        context_length: tokens of a row.
        pieces: (P, 3) int64: segment, start, end; the pieces of a row are neighbours.
        first_piece: (R + 1,) int64: row r holds pieces [first_piece[r], first_piece[r + 1]).
        left_out: segments that did not fit into a row.
    """

    context_length: int
    pieces: np.ndarray
    first_piece: np.ndarray
    left_out: int = 0

    @property
    def rows(self) -> int:
        return len(self.first_piece) - 1

    @property
    def tokens(self) -> int:
        return int((self.pieces[:, 2] - self.pieces[:, 1]).sum())

    @property
    def padding(self) -> float:
        """Share of the rows' places that hold no token."""
        return 1 - self.tokens / max(1, self.rows * self.context_length)


def pack(lengths: np.ndarray, context_length: int, *, split: bool = True) -> Packing:
    """Plans the rows for segments of these lengths.

    Args:
        lengths: (N,) int64, tokens of each segment.
        context_length: tokens of a row.
        split: whether a segment longer than a row is cut; else it is left out.
    """
    if context_length < 2:
        raise InputError(f"context_length is {context_length}; it must be at least 2.")
    lengths = np.asarray(lengths, dtype=np.int64)
    whole, rest = np.divmod(lengths, context_length)
    left_out = 0
    if not split:
        too_long = lengths > context_length
        left_out = int(too_long.sum())
        whole, rest = np.where(too_long, 0, whole), np.where(too_long, 0, rest)
    segments = np.repeat(np.arange(len(lengths)), whole)
    starts = _ranges(whole) * context_length
    full = np.stack([segments, starts, starts + context_length], axis=1)
    short = np.flatnonzero(rest)
    rows = _best_fit(rest[short], context_length)
    order = np.argsort(rows, kind="stable")
    short, rows = short[order], rows[order]
    remainders = np.stack([short, lengths[short] - rest[short], lengths[short]], axis=1)
    counts = np.bincount(rows) if len(rows) else np.zeros(0, dtype=np.int64)
    first_piece = np.concatenate([[0], np.cumsum(np.concatenate([np.ones(len(full), dtype=np.int64), counts]))])
    packing = Packing(context_length, np.concatenate([full, remainders]), first_piece, left_out)
    if packing.rows == 0:
        raise InputError(
            f"No segment fits a context of {context_length} tokens: all {len(lengths)} are longer or empty.",
            hint="Raise context_length.",
        )
    return packing


def _ranges(counts: np.ndarray) -> np.ndarray:
    """[0..counts[0]), [0..counts[1]), ... in one array."""
    ends = np.cumsum(counts)
    return np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - counts, counts)


def _best_fit(sizes: np.ndarray, capacity: int) -> np.ndarray:
    """The row of each size, best-fit decreasing.

    Open rows wait in stacks by their free space. A big integer has bit c set where some row has c places free, so the
    best fit for a size is its lowest set bit at or above that size: constant work whatever the number of rows.
    """
    rows = np.empty(len(sizes), dtype=np.int64)
    waiting: dict[int, list[int]] = {}
    free_bits, opened = 0, 0
    for i in np.argsort(-sizes, kind="stable").tolist():
        size = int(sizes[i])
        fitting = free_bits >> size
        if fitting:
            free = size + (fitting & -fitting).bit_length() - 1
            row = waiting[free].pop()
            if not waiting[free]:
                free_bits &= ~(1 << free)
        else:
            row, free, opened = opened, capacity, opened + 1
        rows[i] = row
        if free > size:
            waiting.setdefault(free - size, []).append(row)
            free_bits |= 1 << (free - size)
    return rows


def fill(shards: TokenShards, packing: Packing, rows: np.ndarray) -> Batch[np.ndarray]:
    """The batch of these rows.

    Padding takes id 0, document id -1 and no target.
    """
    shape = (len(rows), packing.context_length)
    ids, targets = np.zeros(shape, dtype=np.int64), np.full(shape, PADDING, dtype=np.int64)
    positions, document_ids = np.zeros(shape, dtype=np.int64), np.full(shape, PADDING, dtype=np.int64)
    loss_mask = np.zeros(shape, dtype=np.bool_)
    for b, row in enumerate(rows):
        at = 0
        pieces = packing.pieces[packing.first_piece[row] : packing.first_piece[row + 1]]
        for number, (segment, start, end) in enumerate(pieces):
            here = slice(at, at + end - start)
            ids[b, here] = shards.ids(segment, start, end)
            following = shards.ids(segment, start + 1, end + 1)
            targets[b, at : at + len(following)] = following
            loss_mask[b, at : at + len(following)] = shards.mask(segment, start + 1, end + 1)
            positions[b, here] = np.arange(end - start)
            document_ids[b, here] = number
            at = here.stop
    return Batch(ids, targets, positions, document_ids, loss_mask)
