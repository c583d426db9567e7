"""What a model asks of a key-value cache: to take in the new tokens of a layer and to attend to all it holds.

Where keys and values lie (pages, number formats, which sequence owns what) is the cache's own affair: `engine` has the
paged one. The model only ever calls `attend`.

Shapes: B rows, T new tokens, H query heads, G key/value heads, K channels of a head.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Cache(Protocol):
    """Keys and values of the tokens that a model has seen."""

    @property
    def longest(self) -> int:
        """A bound of the positions of the coming tokens: all are below it."""
        ...

    def attend(self, layer: int, q_BHTK: Tensor, k_BGTK: Tensor, v_BGTK: Tensor) -> Tensor:
        """Stores a layer's new keys and values, both after rotation; returns the queries' attention, (B, H, T, K)."""
        ...
