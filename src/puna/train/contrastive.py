"""The contrastive objective: texts that belong together get vectors alike (InfoNCE, arXiv 1807.03748).

A batch holds questions and passages as segments. Each question is told from all passages of its batch which one answers
it; what else is in the batch is what it must be told from (arXiv 2004.04906). The loss is taken over several prefixes
of the vectors too, so that a vector may be cut short and scaled anew (Matryoshka, arXiv 2205.13147).

Batches are those of every other objective: `targets` holds the number of a passage, on the tokens of the passage and on
those of the questions that it answers, and `loss_mask` marks the tokens of questions. All of a step's passages must be
in one batch, since they are each other's negatives.

Shapes: B rows, T tokens, D hidden_size, S segments, Q questions, P passages.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from puna.base.config import require
from puna.core.tokens import Batch
from puna.model.transformer import Transformer
from puna.train.segments import segment_lengths, segment_numbers, segment_sums


@dataclass(frozen=True, slots=True)
class Contrastive:
    """Cross-entropy of each question's passage among all passages of the batch.

    Attributes:
        temperature: by which cosines are divided: the lower, the more the nearest wrong passages count.
        dimensions: prefixes of the vectors that must do by themselves, beside the whole.
    """

    temperature: float = 0.05
    dimensions: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        require(self.temperature > 0, f"temperature is {self.temperature}; it must be above 0.")
        for size in self.dimensions:
            require(size >= 1, f"dimensions has {size}; a prefix holds at least 1 number.")

    def count(self, batch: Batch[Tensor]) -> int:
        return int(((batch.positions == 0) & batch.loss_mask).sum())

    def loss(self, model: Transformer, batch: Batch[Tensor]) -> Tensor:
        hidden_BTD = model(batch.ids, batch.positions, batch.document_ids, head=lambda hidden_BTD, _: hidden_BTD)
        means_SD = segment_sums(hidden_BTD.float(), batch) / segment_lengths(batch).unsqueeze(1)
        _, _, first_S = segment_numbers(batch)
        number_S, asks_S = batch.targets.flatten()[first_S], batch.loss_mask.flatten()[first_S]
        passages_PD, place_P = means_SD[~asks_S], number_S[~asks_S]
        place = torch.full((int(place_P.max()) + 1,), -1, dtype=torch.int64, device=place_P.device)
        place[place_P] = torch.arange(len(place_P), device=place_P.device)
        answer_Q, questions_QD = place[number_S[asks_S]], means_SD[asks_S]
        sizes = {*(size for size in self.dimensions if size < means_SD.shape[1]), means_SD.shape[1]}
        losses = []
        for size in sorted(sizes):
            cosines_QP = F.normalize(questions_QD[:, :size], dim=1) @ F.normalize(passages_PD[:, :size], dim=1).T
            losses.append(F.cross_entropy(cosines_QP / self.temperature, answer_Q, reduction="sum"))
        return torch.stack(losses).mean()
