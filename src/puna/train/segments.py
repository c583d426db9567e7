"""Segments of packed rows, told from a batch's arrays: which token belongs to which, and sums over each.

A segment begins where its position is 0; padding, whose document id is negative, belongs to none.

Shapes: B rows, T tokens, N the B*T tokens that are no padding, S segments in the order of the rows.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from puna.core.tokens import Batch


def segment_numbers(batch: Batch[Any]) -> tuple[Tensor, Tensor, Tensor]:
    """(B*T,) bool, which tokens belong to a segment; (N,) int64, to which; and (S,) int64, where the first of each is
    among all B*T.
    """
    kept = (batch.document_ids >= 0).flatten()
    begins = (batch.positions == 0).flatten() & kept
    return kept, begins.cumsum(0)[kept] - 1, begins.nonzero().squeeze(1)


def segment_sums(values: Tensor, batch: Batch[Any]) -> Tensor:
    """The sum over each segment's tokens: of (B, T) numbers (S,), of (B, T, D) vectors (S, D)."""
    kept, segment_N, first_S = segment_numbers(batch)
    values = values.flatten(0, 1)[kept]
    return values.new_zeros(len(first_S), *values.shape[1:]).index_add(0, segment_N, values)


def segment_lengths(batch: Batch[Any]) -> Tensor:
    """(S,) int64, the tokens of each segment."""
    _, segment_N, first_S = segment_numbers(batch)
    return segment_N.bincount(minlength=len(first_S))
