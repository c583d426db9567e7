"""Runs a step's batch through the model: hidden states of the wanted places, then their logits.

Shapes: N tokens of the step, W wanted places, D hidden_size, V vocab_size.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from puna.engine.adapters import Adapters
from puna.engine.batch import StepBatch
from puna.engine.graphs import StepGraphs
from puna.engine.paged_cache import PagedCache
from puna.kernels.linear import bf16_linear
from puna.model.transformer import Transformer


class Runner:
    """The model and its cache.

    Args:
        model: in eval mode.
        cache: its keys and values.
        vocab_size: the ids below it may be generated; the embedding may have more rows than the tokenizer has ids.
        adapters: the loaded LoRA adapters.
    """

    def __init__(self, model: Transformer, cache: PagedCache, vocab_size: int, adapters: Adapters) -> None:
        self.model = model
        self.vocab_size = vocab_size
        self.adapters = adapters
        self.cache = cache

    @property
    def cache(self) -> PagedCache:
        return self._cache

    @cache.setter
    def cache(self, cache: PagedCache) -> None:
        """Another cache has other addresses, so that no captured step fits it."""
        self._cache = cache
        self.graphs: StepGraphs | None = None
        if cache.device.type == "cuda":
            longest = min(self.model.config.max_position_embeddings, cache.pages * cache.page_tokens)
            self.graphs = StepGraphs(self.all_logits, longest)

    @torch.inference_mode()
    def run(self, batch: StepBatch) -> list[Tensor]:
        """For each slice of the batch the logits of its wanted places, (W, V) float32."""
        if self.graphs is not None and self.graphs.takes(batch):
            logits_QV = self.graphs.run(batch)
            return [logits_QV[places.start : places.stop] for places in batch.rows]
        self.cache.begin(batch)
        wanted = [place for places in batch.rows for place in places]
        index = torch.tensor(wanted, dtype=torch.int64, device=batch.ids_1N.device)
        with self.adapters.active((part.sequence.adapter, part.count) for part in batch.slices):
            hidden_WD = self.model(
                batch.ids_1N,
                batch.positions_1N,
                cache=self.cache,
                head=lambda hidden_1ND, _: hidden_1ND[0, index] if len(wanted) < hidden_1ND.shape[1] else hidden_1ND[0],
            )
        sizes = [len(places) for places in batch.rows]
        return list(self.logits(hidden_WD).split(sizes))

    @torch.inference_mode()
    def all_logits(self, batch: StepBatch) -> Tensor:
        """The logits of all tokens of a batch without adapters, (N, V) float32."""
        self.cache.begin(batch)
        hidden_ND = self.model(
            batch.ids_1N, batch.positions_1N, cache=self.cache, head=lambda hidden_1ND, _: hidden_1ND[0]
        )
        return self.logits(hidden_ND)

    def logits(self, hidden_WD: Tensor) -> Tensor:
        """(W, V) float32."""
        if hidden_WD.shape[0] == 0:
            return hidden_WD.new_empty((0, self.vocab_size), dtype=torch.float32)
        head: nn.Module | None = getattr(self.model, "lm_head", None)
        if head is not None:
            return head(hidden_WD)[:, : self.vocab_size].float()
        weight_VD = self.model.embed_tokens.weight[: self.vocab_size]
        if weight_VD.dtype == torch.bfloat16 and weight_VD.is_cpu:
            return bf16_linear(hidden_WD, weight_VD).float()
        return F.linear(hidden_WD, weight_VD).float()
