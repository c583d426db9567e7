"""Reward models: a Llama whose head is one number an answer, and the two ways to teach it.

`RewardModel` is the transformer with a matrix of one row in place of the output matrix; the reward is read at an
answer's last token, which has seen all of it. `Ranking` learns it from ranked answers, every better one against every
worse one of its group, edited > chosen > rejected (arXiv 2407.21783, section 4.1.2, without a margin; Llama 2's margins
are optional). `OutcomeReward` learns it from answers that are correct or not. A reward for each step of an answer is
left out: it needs labels of steps.

Shapes: B rows, T tokens, D hidden_size, S segments, P pairs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from puna.align.groups import GroupBatch
from puna.align.logprobs import last_tokens
from puna.align.losses import bradley_terry, outcome
from puna.core.tokens import Batch
from puna.model.config import ModelConfig
from puna.model.transformer import Transformer
from puna.train.objectives import OBJECTIVES

# arXiv 2307.09288, table 27, the small margins, by the level of strength that `rendering.STRENGTH_LABELS` gives.
LLAMA2_MARGINS = {4.0: 1.0, 3.0: 2 / 3, 2.0: 1 / 3, 1.0: 0.0}


class RewardModel(Transformer):
    """A transformer with `score` (1, D), which has the name and shape of Hugging Face's sequence classifier."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.score = nn.Linear(config.hidden_size, 1, bias=False)
        if not config.tie_word_embeddings:
            del self.lm_head

    @property
    def head_weight_VD(self) -> Tensor:
        return self.score.weight

    @classmethod
    def of(cls, model: Transformer, seed: int = 0) -> RewardModel:
        """A reward model with copies of a language model's weights; the score is drawn as a head's would be."""
        reward = cls(model.config).to(model.embed_tokens.weight.device, model.embed_tokens.weight.dtype)
        kept = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("lm_head")}
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randn(reward.score.weight.shape, generator=generator) * model.config.hidden_size**-0.5
        reward.load_state_dict(kept | {"score.weight": drawn})
        return reward


def rewards(model: RewardModel, batch: Batch[Tensor]) -> Tensor:
    """The reward of each segment, (S,) float32."""
    last_S = last_tokens(batch)

    def head(hidden_BTD: Tensor, weight_1D: Tensor) -> Tensor:
        return (hidden_BTD.flatten(0, 1)[last_S] @ weight_1D.to(hidden_BTD.dtype).T).squeeze(1).float()

    return model(batch.ids, batch.positions, batch.document_ids, head=head)


@dataclass(frozen=True, slots=True)
class Ranking:
    """Bradley-Terry over all pairs of each group of ranked answers.

    Attributes:
        margins: by the group's label, how far above the better reward is to be; empty for none, as Llama 3.
    """

    margins: Mapping[float, float] = field(default_factory=dict)

    def count(self, batch: GroupBatch[Tensor]) -> int:
        """Pairs: a group of n answers has n (n - 1) / 2, one for each answer and each that is better."""
        return int(batch.rank_S.sum())

    def loss(self, model: RewardModel, batch: GroupBatch[Tensor]) -> Tensor:
        reward_S = rewards(model, batch)
        group_S, rank_S = batch.group_S, batch.rank_S
        better_P, worse_P = ((group_S[:, None] == group_S) & (rank_S[:, None] < rank_S)).nonzero(as_tuple=True)
        margin_S = torch.zeros_like(reward_S)
        for label, margin in self.margins.items():
            margin_S = margin_S.masked_fill(batch.label_S == label, margin)
        return bradley_terry(reward_S[better_P], reward_S[worse_P], margin_S[better_P]).sum()


@dataclass(frozen=True, slots=True)
class OutcomeReward:
    """The log-odds that an answer is correct: a group's label is 1 where it is, 0 where not."""

    def count(self, batch: GroupBatch[Tensor]) -> int:
        """Answers."""
        return len(batch.rank_S)

    def loss(self, model: RewardModel, batch: GroupBatch[Tensor]) -> Tensor:
        return outcome(rewards(model, batch), batch.label_S).sum()


OBJECTIVES.add("reward", Ranking())
OBJECTIVES.add("reward_margins", Ranking(LLAMA2_MARGINS))
OBJECTIVES.add("outcome_reward", OutcomeReward())
