"""Objectives: what a training step minimises, each a few lines over the one trainer.

An objective sums a loss over a micro-batch; the trainer divides by the count of the whole step. Fine-tuning on
conversations is `NextToken` too: what is learnt is what the batch's `loss_mask` marks, which `chat.render_for_training`
sets on the assistant's tokens alone.
"""

from __future__ import annotations

from functools import partial

from torch import Tensor

from puna.base.registry import Registry
from puna.core.protocols import Objective
from puna.core.tokens import Batch
from puna.model.heads import cross_entropy
from puna.model.transformer import Transformer

OBJECTIVES: Registry[Objective] = Registry("objective", "puna.objectives")


class NextToken:
    """Cross-entropy of each marked token, given those before it in its segment."""

    def count(self, batch: Batch[Tensor]) -> int:
        return int(batch.loss_mask.sum())

    def loss(self, model: Transformer, batch: Batch[Tensor]) -> Tensor:
        head = partial(cross_entropy, targets_BT=batch.targets, mask_BT=batch.loss_mask)
        return model(batch.ids, batch.positions, batch.document_ids, head=head)


OBJECTIVES.add("next_token", NextToken())
OBJECTIVES.add("sft", NextToken())
