"""`Batch`: token ids on their way from packing to a loss.

The arrays are numpy's when they leave a loader and torch's when they reach an objective, so the noun is generic
in its array type and imports neither. Shapes: B rows, T tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Generic, TypeVar

A = TypeVar("A")
C = TypeVar("C")


@dataclass(frozen=True, slots=True)
class Batch(Generic[A]):
    """Packed rows of one or more segments each.

    A segment is a document, a piece of one, or a conversation. Segments do not see each other: attention is masked
    by `document_ids` and positions begin again at 0.

    Attributes:
        ids: (B, T) int64 input tokens.
        targets: (B, T) int64, the token that follows each input within its segment; -1 where none does.
        positions: (B, T) int64, counted from 0 within the segment.
        document_ids: (B, T) int64, the segment's number within its row, not falling from left to right;
            -1 marks padding.
        loss_mask: (B, T) bool, True where `targets` is to be learnt.
    """

    ids: A
    targets: A
    positions: A
    document_ids: A
    loss_mask: A

    def map(self, function: Callable[[Any], C]) -> Batch[C]:
        """The same batch with `function` applied to each array (to move it to a device, or to slice rows)."""
        kind: Any = type(self)
        return kind(**{f.name: function(getattr(self, f.name)) for f in fields(self)})
