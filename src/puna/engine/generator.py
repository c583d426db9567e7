"""Generation of a batch of prompts over one contiguous cache.

Prompts are padded on the left, so that all rows end at the same place and each step adds one column; padding is a
document of its own that no token sees. Rows that have ended leave the batch. Continuous batching, paging and shared
prefixes are left to a scheduler that can stand in this module's place.

Shapes: B rows, T tokens, V vocab_size.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from puna.base.errors import InputError
from puna.core.completion import SamplingParams, StopReason, TokenLogprob
from puna.engine.sampler import Sampler, logprob_of
from puna.model import heads
from puna.model.cache import ContiguousCache
from puna.model.transformer import Transformer

_PADDING = -1


@dataclass(slots=True)
class Row:
    """One prompt and what has been generated for it.

    Attributes:
        index: its place among the prompts.
        prompt: token ids.
        params: how to sample, and when to stop.
        sampler: the state of its sampling.
        ids: the new tokens, a stop token included.
        logprobs: one per new token, when asked for.
        stop_reason: None while it runs; whoever consumes the tokens may set it to end the row.
    """

    index: int
    prompt: Sequence[int]
    params: SamplingParams
    sampler: Sampler
    ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    stop_reason: StopReason | None = None


class Generator:
    """Generates token by token.

    Args:
        model: in eval mode.
        stop_ids: token id -> why generation ends there.
        vocab_size: the ids below it are generated; the embedding may have more rows than the tokenizer has ids.
    """

    def __init__(self, model: Transformer, stop_ids: Mapping[int, StopReason], vocab_size: int) -> None:
        self.model = model
        self.stop_ids = stop_ids
        self.vocab_size = vocab_size

    def rows(self, prompts: Sequence[Sequence[int]], params: SamplingParams) -> list[Row]:
        """Checks prompts and makes rows of them.

        Raises:
            InputError: a prompt without tokens, without room for one more, or with an id that the model does not have.
        """
        limit = self.model.config.max_position_embeddings
        for prompt in prompts:
            if not prompt:
                raise InputError("The prompt has no tokens.", hint="Give at least one character, or the start token.")
            if len(prompt) >= limit:
                raise InputError(
                    f"The prompt has {len(prompt)} tokens; the model's context holds {limit}.",
                    hint=f"Shorten it to at most {limit - 1} tokens.",
                )
            if not 0 <= min(prompt) <= max(prompt) < self.model.config.vocab_size:
                raise InputError(
                    f"The prompt has ids from {min(prompt)} to {max(prompt)}; the model's are 0 to "
                    f"{self.model.config.vocab_size - 1}.",
                    hint="Encode it with the model's own tokenizer.",
                )
        return [Row(i, prompt, params, Sampler(params, prompt)) for i, prompt in enumerate(prompts)]

    @torch.inference_mode()
    def run(self, rows: list[Row]) -> Iterator[list[Row]]:
        """Advances all rows to their ends; after each step gives those that have gained a token."""
        if not rows:
            return
        longest = max(len(row.prompt) for row in rows)
        limit = self.model.config.max_position_embeddings
        budget = [min(row.params.max_tokens, limit - len(row.prompt)) for row in rows]
        weight = self.model.embed_tokens.weight
        cache = ContiguousCache(self.model.config, len(rows), longest + max(budget), weight.dtype, weight.device)
        ids_BT, positions_BT, documents_BT = self._padded(rows, longest)
        running = list(rows)
        while True:
            logits_BV = self._last_logits(ids_BT, positions_BT, documents_BT, cache)
            for row, logits_V in zip(running, logits_BV, strict=True):
                self._extend(row, logits_V, budget[row.index])
            yield running
            staying = [i for i, row in enumerate(running) if row.stop_reason is None]
            if not staying:
                return
            if len(staying) < len(running):
                keep = torch.tensor(staying, device=weight.device)
                cache.keep_rows(keep)
                positions_BT = positions_BT[keep]
                running = [running[i] for i in staying]
            ids_BT = torch.tensor([[row.ids[-1]] for row in running], device=weight.device)
            positions_BT = positions_BT[:, -1:] + 1
            documents_BT = torch.zeros_like(ids_BT)

    def _last_logits(
        self, ids_BT: Tensor, positions_BT: Tensor, documents_BT: Tensor, cache: ContiguousCache
    ) -> Tensor:
        """Logits of the last column, (B, V) float32."""
        return self.model(
            ids_BT,
            positions_BT,
            documents_BT,
            cache,
            head=lambda hidden_BTD, weight_VD: heads.logits(hidden_BTD[:, -1], weight_VD[: self.vocab_size]),
        )

    def _extend(self, row: Row, logits_V: Tensor, budget: int) -> None:
        token = row.sampler.choose(logits_V)
        row.ids.append(token)
        if row.params.logprobs is not None:
            row.logprobs.append(logprob_of(logits_V, token, row.params.logprobs))
        if token in self.stop_ids:
            row.stop_reason = self.stop_ids[token]
        elif len(row.ids) >= budget:
            row.stop_reason = "length"

    def _padded(self, rows: Collection[Row], longest: int) -> tuple[Tensor, Tensor, Tensor]:
        """Ids, positions and document ids of the prompts, padded on the left, (B, T) each."""
        ids, positions, documents = [], [], []
        for row in rows:
            gap = longest - len(row.prompt)
            ids.append([0] * gap + list(row.prompt))
            positions.append([0] * gap + list(range(len(row.prompt))))
            documents.append([_PADDING] * gap + [0] * len(row.prompt))
        device = self.model.embed_tokens.weight.device
        made = (torch.tensor(values, dtype=torch.int64, device=device) for values in (ids, positions, documents))
        return next(made), next(made), next(made)
