"""What a model says of whole sequences: logits, log-probabilities of their tokens, and embeddings, with no cache.

Sequences of like length are padded on the right and computed together; in a causal model what comes after a token
changes nothing for it.

Shapes: B rows, T tokens, D hidden_size, V vocab_size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from puna.base.errors import InputError
from puna.model import heads
from puna.model.transformer import Transformer

_BATCH_ROWS = 32
_BATCH_TOKENS = 8192
_CHUNK_NUMBERS = 4 << 20  # of logits at a time


class Scorer:
    """Scores sequences with one model."""

    def __init__(self, model: Transformer) -> None:
        self.model = model

    def logits(self, ids_BT: Tensor) -> Tensor:
        """(B, T, V) float32."""
        head = getattr(self.model, "lm_head", None)
        if head is None:
            return self.model(ids_BT)
        return head(self.model(ids_BT, head=lambda hidden_BTD, _: hidden_BTD)).float()

    @torch.inference_mode()
    def token_logprobs(self, sequences: Sequence[Sequence[int]]) -> list[list[float]]:
        """For each sequence, the natural-log probability of each token after the first, given those before it.

        Raises:
            InputError: a sequence that the model's context does not hold, or with an id that it does not have.
        """
        results: list[list[float]] = [[] for _ in sequences]
        for sequence in sequences:
            self._check(sequence[-1:])  # it is a target only
        for group, ids_BT in self._groups([sequence[:-1] for sequence in sequences]):
            targets_BT = torch.full_like(ids_BT, -1)
            for b, i in enumerate(group):
                targets_BT[b, : max(0, len(sequences[i]) - 1)] = torch.as_tensor(sequences[i][1:], dtype=torch.int64)
            logprobs_BT = self._logprobs(ids_BT, targets_BT)
            for i, logprobs_T in zip(group, logprobs_BT, strict=True):
                results[i] = logprobs_T[: max(0, len(sequences[i]) - 1)].tolist()
        return results

    def embed(self, sequences: Sequence[Sequence[int]]) -> list[list[float]]:
        """`vectors` as lists."""
        return self.vectors(sequences).tolist()

    @torch.inference_mode()
    def vectors(self, sequences: Sequence[Sequence[int]]) -> Tensor:
        """The mean of each sequence's last hidden states, scaled to length 1; (sequences, D) float32 on the CPU.

        Raises:
            InputError: as `token_logprobs`, or a sequence without tokens.
        """
        if not all(len(sequence) for sequence in sequences):
            raise InputError("A text to embed has no tokens.", hint="Give at least one, such as the start token.")
        vectors_SD = torch.empty((len(sequences), self.model.config.hidden_size))
        for group, ids_BT in self._groups(sequences):
            hidden_BTD = self.model(ids_BT, head=lambda hidden_BTD, _: hidden_BTD).float()
            lengths_B = torch.tensor([len(sequences[i]) for i in group], device=ids_BT.device)
            kept_BT = torch.arange(ids_BT.shape[1], device=ids_BT.device) < lengths_B[:, None]
            means_BD = (hidden_BTD * kept_BT[..., None]).sum(1) / lengths_B[:, None]
            vectors_SD[group] = F.normalize(means_BD, dim=1).cpu()
        return vectors_SD

    def _groups(self, sequences: Sequence[Sequence[int]]) -> Iterator[tuple[list[int], Tensor]]:
        """Groups of like length: their places, and their ids padded with 0, (B, T) on the model's device."""
        for sequence in sequences:
            self._check(sequence)
        order = sorted(range(len(sequences)), key=lambda i: -len(sequences[i]))
        while order:
            longest = max(1, len(sequences[order[0]]))
            rows = max(1, min(_BATCH_ROWS, _BATCH_TOKENS // longest))
            group, order = order[:rows], order[rows:]
            ids_BT = torch.zeros((len(group), longest), dtype=torch.int64)
            for b, i in enumerate(group):
                ids_BT[b, : len(sequences[i])] = torch.as_tensor(sequences[i], dtype=torch.int64)
            yield group, ids_BT.to(self.model.embed_tokens.weight.device)

    def _check(self, sequence: Sequence[int]) -> None:
        config = self.model.config
        if len(sequence) > config.max_position_embeddings:
            raise InputError(
                f"A sequence has {len(sequence)} tokens to compute; the model's context holds "
                f"{config.max_position_embeddings}.",
                hint="Cut it into overlapping windows.",
            )
        if len(sequence) and not 0 <= min(sequence) <= max(sequence) < config.vocab_size:
            raise InputError(
                f"A sequence has ids from {min(sequence)} to {max(sequence)}; the model's are 0 to "
                f"{config.vocab_size - 1}.",
                hint="Encode it with the model's own tokenizer.",
            )

    def _logprobs(self, ids_BT: Tensor, targets_BT: Tensor) -> Tensor:
        """(B, T) float32, 0 where the target is negative."""
        head: nn.Module | None = getattr(self.model, "lm_head", None)
        if head is None or isinstance(head, nn.Linear):
            return self.model(ids_BT, head=lambda h, w: heads.token_logprobs(h, w, targets_BT))
        hidden_ND = self.model(ids_BT, head=lambda hidden_BTD, _: hidden_BTD).flatten(0, 1)
        targets_N = targets_BT.flatten()
        out_N = torch.zeros(targets_N.shape, dtype=torch.float32, device=hidden_ND.device)
        size = max(16, _CHUNK_NUMBERS // self.model.config.vocab_size)
        for start in range(0, len(targets_N), size):
            part = slice(start, start + size)
            logits_NV = head(hidden_ND[part]).float()
            chosen_N = logits_NV.gather(1, targets_N[part].clamp(min=0)[:, None]).squeeze(1)
            out_N[part] = (chosen_N - logits_NV.logsumexp(-1)).masked_fill(targets_N[part] < 0, 0.0)
        return out_N.view(targets_BT.shape)
