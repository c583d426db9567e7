"""Objectives of preference learning, over the one trainer.

Each sums one loss a pair (or an answer) over packed groups; the trainer divides by their number in the whole step, so
micro-batches and packing change nothing. What a pair is worth is a function of `puna.align.losses`. Meta's recipe for
Llama 3.1 is `meta_dpo`.

Shapes: S segments, P pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from puna.align.groups import GroupBatch
from puna.align.logprobs import sequence_logprobs
from puna.align.losses import DPO, IPO, KTO, ORPO, PairLoss, Pairs, SimPO
from puna.base.config import require
from puna.base.errors import InputError
from puna.core.protocols import Objective
from puna.model.transformer import Transformer
from puna.train.objectives import OBJECTIVES
from puna.train.optimizer import OptimizerConfig
from puna.train.segments import segment_numbers


@dataclass(frozen=True, slots=True)
class PairwisePreference:
    """A loss of pairs: the best answer of each group against its worst.

    Attributes:
        pair_loss: of one pair.
        nll: factor of the best answer's negative log-probability a token, which keeps the model from making both
            answers less likely; 0.2 for Llama 3.1 (arXiv 2407.21783, section 4.1.4, after 2404.19733).
        chunk_tokens: tokens whose logits are held at once; 0 for as many as suit the vocabulary.
    """

    pair_loss: PairLoss = field(default_factory=DPO)
    nll: float = 0.0
    chunk_tokens: int = 0

    def __post_init__(self) -> None:
        require(self.nll >= 0, f"nll is {self.nll}; it must be at least 0.")
        require(self.chunk_tokens >= 0, f"chunk_tokens is {self.chunk_tokens}; it must be at least 0.")

    def count(self, batch: GroupBatch[Tensor]) -> int:
        """Pairs."""
        return groups_of(batch)

    def loss(self, model: Transformer, batch: GroupBatch[Tensor]) -> Tensor:
        logprobs_S, tokens_S = sequence_logprobs(model, batch, self.chunk_tokens)
        pairs = pairs_of(batch, logprobs_S, tokens_S)
        loss_P = self.pair_loss(pairs)
        if self.nll:
            loss_P = loss_P - self.nll * pairs.chosen_mean
        return loss_P.sum()


def groups_of(batch: GroupBatch[Tensor]) -> int:
    return int((batch.rank_S == 0).sum())


def pairs_of(batch: GroupBatch[Tensor], logprobs_S: Tensor, tokens_S: Tensor) -> Pairs:
    """The first and the last answer of each group.

    Raises:
        InputError: a group with one answer.
    """
    best_P = (batch.rank_S == 0).nonzero().squeeze(1)
    following_P = torch.cat([best_P[1:], best_P.new_tensor([len(batch.rank_S)])])
    worst_P = following_P - 1
    if bool((worst_P == best_P).any()):
        raise InputError("A group has one answer; a preference needs two.", hint="Give ranked answers, best first.")
    reference_S = batch.reference_S
    return Pairs(
        logprobs_S[best_P],
        logprobs_S[worst_P],
        tokens_S[best_P],
        tokens_S[worst_P],
        reference_S[best_P],
        reference_S[worst_P],
    )


@dataclass(frozen=True, slots=True)
class UnpairedPreference:
    """KTO: each group is an answer with its label, and behind it the answer of another prompt to the same prompt.

    The second says how far the model has moved from its reference. Its mean is taken over the whole step, so it does
    not depend on how a step is cut into micro-batches (a batch of one would have an estimate of one). Groups
    without a second answer have a distance of 0.

    Attributes:
        kto: the loss of one answer.
        kl: how far the model is from its reference, an estimate at least 0; None until `of_step` has looked.
        chunk_tokens: see `PairwisePreference`.
    """

    kto: KTO = field(default_factory=KTO)
    kl: float | None = None
    chunk_tokens: int = 0

    def count(self, batch: GroupBatch[Tensor]) -> int:
        """Labelled answers."""
        return groups_of(batch)

    def of_step(self, model: Transformer, batches: Sequence[GroupBatch[Tensor]]) -> Objective:
        total, count = 0.0, 0
        for batch in batches:
            if bool((batch.rank_S == 1).any()):
                logprobs_S, _ = sequence_logprobs(model, batch, self.chunk_tokens)
                ratio_S = (logprobs_S - batch.reference_S)[batch.rank_S == 1]
                total, count = total + float(ratio_S.sum()), count + len(ratio_S)
        return replace(self, kl=max(0.0, total / max(1, count)))

    def loss(self, model: Transformer, batch: GroupBatch[Tensor]) -> Tensor:
        if self.kl is None:
            with torch.no_grad():
                objective = self.of_step(model, [batch])
            return objective.loss(model, batch)
        logprobs_S, _ = sequence_logprobs(model, _labelled(batch), self.chunk_tokens)
        ratio_S = (logprobs_S - batch.reference_S)[batch.rank_S == 0]
        desirable_S = batch.label_S[batch.rank_S == 0] > 0.5
        return self.kto(ratio_S, desirable_S, ratio_S.new_tensor(self.kl)).sum()


def _labelled(batch: GroupBatch[Tensor]) -> GroupBatch[Tensor]:
    """The batch with only the labelled answers' tokens marked: the others have no part in the loss."""
    kept, segment_N, _ = segment_numbers(batch)
    labelled = kept.masked_scatter(kept, batch.rank_S[segment_N] == 0)
    return replace(batch, loss_mask=batch.loss_mask & labelled.view_as(batch.loss_mask))


META_DPO = PairwisePreference(DPO(beta=0.1), nll=0.2)


def meta_dpo() -> tuple[Objective, OptimizerConfig]:
    """Llama 3.1's own: beta 0.1, the chosen answers' loss times 0.2, learning rate 1e-5 (section 4.1.4).

    The masks go with it: segments rendered with `render_answer(..., mask="content")`.
    """
    return META_DPO, OptimizerConfig(lr=1e-5)


OBJECTIVES.add("dpo", PairwisePreference(DPO()))
OBJECTIVES.add("dpo_meta", META_DPO)
OBJECTIVES.add("cdpo", PairwisePreference(DPO(label_smoothing=0.1)))
OBJECTIVES.add("ipo", PairwisePreference(IPO()))
OBJECTIVES.add("simpo", PairwisePreference(SimPO()))
OBJECTIVES.add("orpo", PairwisePreference(ORPO(), nll=1.0))
OBJECTIVES.add("kto", UnpairedPreference())
