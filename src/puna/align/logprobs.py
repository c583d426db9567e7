"""What a model says of each packed answer: its log-probability, summed over the tokens that count.

The logits are made and dropped chunk by chunk (`model/heads.py`), forward and backward: a vocabulary of 128,256
never meets all the tokens at once.

Shapes: B rows, T tokens, D hidden_size, S segments in the order of the rows.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from puna.core.tokens import Batch
from puna.model.heads import token_logprobs
from puna.model.transformer import Transformer


def sequence_logprobs(model: Transformer, batch: Batch[Tensor], chunk_tokens: int = 0) -> tuple[Tensor, Tensor]:
    """For each segment the sum of its marked targets' natural-log probabilities, and their number.

    Args:
        model: which is asked.
        batch: packed segments.
        chunk_tokens: tokens whose logits are held at once; 0 for as many as suit the vocabulary.

    Returns:
        (S,) float32 with its gradient, and (S,) float32.
    """
    targets_BT = batch.targets.masked_fill(~batch.loss_mask, -1)
    head = partial(token_logprobs, targets_BT=targets_BT, chunk_tokens=chunk_tokens)
    logprobs_BT = model(batch.ids, batch.positions, batch.document_ids, head=head)
    return segment_sums(logprobs_BT, batch), segment_sums(batch.loss_mask.float(), batch)


def segment_sums(values_BT: Tensor, batch: Batch[Tensor]) -> Tensor:
    """(S,), the sum of the values of each segment's tokens; padding belongs to none."""
    kept_N = (batch.document_ids >= 0).flatten()
    begins_N = (batch.positions == 0).flatten() & kept_N
    segment_N = begins_N.cumsum(0)[kept_N] - 1
    values_N = values_BT.flatten()[kept_N]
    return values_N.new_zeros(int(begins_N.sum())).index_add(0, segment_N, values_N)


def last_tokens(batch: Batch[Tensor]) -> Tensor:
    """(S,) int64, where each segment's last token stands among all B*T."""
    kept_BT = batch.document_ids >= 0
    following_BT = torch.full_like(batch.document_ids, -1)
    following_BT[:, :-1] = batch.document_ids[:, 1:]
    return (kept_BT & (following_BT != batch.document_ids)).flatten().nonzero().squeeze(1)
