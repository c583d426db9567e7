"""The key-value cache of generation: a protocol, and the contiguous cache of one batch.

Keys are stored after rotation, so a cached token is never turned again. A paged cache can stand behind the same
protocol: the model only ever calls `extend`.

Shapes: B rows, S cached tokens, G key/value heads, K channels of a head.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from puna.base.errors import ResourceError
from puna.model.config import ModelConfig


class KVCache(Protocol):
    """Where a model keeps the keys and values of the tokens it has seen."""

    @property
    def length(self) -> int:
        """Tokens held in each row."""
        ...

    def admit(self, document_ids_BT: Tensor) -> Tensor:
        """Takes in the document ids of T new tokens; returns those of all S tokens held now, (B, S)."""
        ...

    def extend(self, layer: int, k_BGTK: Tensor, v_BGTK: Tensor) -> tuple[Tensor, Tensor]:
        """Stores a layer's new keys and values; returns all that it holds, (B, G, S, K) each."""
        ...


class ContiguousCache:
    """One block of memory for each layer, sized for `capacity` tokens a row."""

    def __init__(self, config: ModelConfig, rows: int, capacity: int, dtype: torch.dtype, device: torch.device) -> None:
        shape = (config.num_hidden_layers, rows, config.num_key_value_heads, capacity, config.head_dim)
        self.k_LBGSK = torch.empty(shape, dtype=dtype, device=device)
        self.v_LBGSK = torch.empty(shape, dtype=dtype, device=device)
        self.document_ids_BS = torch.empty((rows, capacity), dtype=torch.int64, device=device)
        self.length = 0

    def admit(self, document_ids_BT: Tensor) -> Tensor:
        end = self.length + document_ids_BT.shape[1]
        if end > self.document_ids_BS.shape[1]:
            raise ResourceError(
                f"The cache holds {self.document_ids_BS.shape[1]} tokens a row; {end} are asked for.",
                hint="Shorten the prompt, lower max_tokens, or make the cache larger.",
            )
        self.document_ids_BS[:, self.length : end] = document_ids_BT
        self.length = end
        return self.document_ids_BS[:, :end]

    def extend(self, layer: int, k_BGTK: Tensor, v_BGTK: Tensor) -> tuple[Tensor, Tensor]:
        start = self.length - k_BGTK.shape[2]
        self.k_LBGSK[layer, :, :, start : self.length] = k_BGTK
        self.v_LBGSK[layer, :, :, start : self.length] = v_BGTK
        return self.k_LBGSK[layer, :, :, : self.length], self.v_LBGSK[layer, :, :, : self.length]

    def rewind(self, length: int) -> None:
        """Forgets the tokens after the first `length`: a conversation that shares its beginning goes on from there."""
        self.length = min(self.length, length)

    def keep_rows(self, rows: Tensor) -> None:
        """Keeps only these rows, when others have ended."""
        self.k_LBGSK = self.k_LBGSK[:, rows]
        self.v_LBGSK = self.v_LBGSK[:, rows]
        self.document_ids_BS = self.document_ids_BS[rows]
