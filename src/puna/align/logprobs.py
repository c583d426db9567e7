"""What a model says of each packed answer: its log-probability, summed over the tokens that count.

The logits are made and dropped chunk by chunk (`model/heads.py`), forward and backward: a vocabulary of 128,256
never meets all the tokens at once.

Shapes: B rows, T tokens, D hidden_size, S segments in the order of the rows.
"""

from __future__ import annotations

from functools import partial

from torch import Tensor

from puna.core.tokens import Batch
from puna.model.heads import token_logprobs
from puna.model.transformer import Transformer
from puna.train.segments import segment_lengths, segment_numbers, segment_sums


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


def last_tokens(batch: Batch[Tensor]) -> Tensor:
    """(S,) int64, where each segment's last token stands among all B*T."""
    _, _, first_S = segment_numbers(batch)
    return first_S + segment_lengths(batch) - 1
