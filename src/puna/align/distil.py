"""Distillation: a student learns the teacher's distribution over the next token, on the tokens that are marked.

The divergence is the generalised Jensen-Shannon of GKD (arXiv 2306.13649, equation 1) as trl has it: at `beta` 0 the
Kullback-Leibler divergence from the teacher to the student, at 1 that from the student to the teacher, between them a
mixture. Whose texts the batch holds, a data set's or the student's own, is the loader's affair.

Both models' logits are made chunk by chunk, and again in the backward pass, so neither is ever held whole.

Shapes: N tokens, D hidden_size of the student, E of the teacher, V vocab_size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from puna.base.config import require
from puna.base.errors import InputError
from puna.core.tokens import Batch
from puna.model.transformer import Transformer

_CHUNK_NUMBERS = 4 << 20  # of one chunk's logits: 16 MiB of float32 for each model


@dataclass(frozen=True, slots=True, eq=False)
class Distillation:
    """The sum over marked tokens of the divergence between teacher and student.

    Attributes:
        teacher: with the student's vocabulary, on its device; it is not trained.
        beta: the mixture's share of the teacher, from 0 to 1.
        temperature: by which both logits are divided.
        chunk_tokens: tokens whose logits are held at once; 0 for as many as suit the vocabulary.
    """

    teacher: Transformer
    beta: float = 0.5
    temperature: float = 1.0
    chunk_tokens: int = 0

    def __post_init__(self) -> None:
        require(0 <= self.beta <= 1, f"beta is {self.beta}; it must be between 0 and 1.")
        require(self.temperature > 0, f"temperature is {self.temperature}; it must be above 0.")
        require(self.chunk_tokens >= 0, f"chunk_tokens is {self.chunk_tokens}; it must be at least 0.")

    def count(self, batch: Batch[Any]) -> int:
        """Marked tokens."""
        return int(batch.loss_mask.sum())

    def loss(self, model: Transformer, batch: Batch[Tensor]) -> Tensor:
        if (ours := model.config.vocab_size) != (theirs := self.teacher.config.vocab_size):
            raise InputError(
                f"The student's vocabulary has {ours} ids, the teacher's {theirs}.",
                hint="Distil from a teacher with the same tokenizer.",
            )
        index_N = batch.loss_mask.flatten().nonzero().squeeze(1)

        def marked(hidden_BTD: Tensor, weight_VD: Tensor) -> tuple[Tensor, Tensor]:
            return hidden_BTD.flatten(0, 1)[index_N], weight_VD

        arrays = batch.ids, batch.positions, batch.document_ids
        with torch.no_grad():
            teacher_NE, teacher_VE = (x.detach() for x in self.teacher(*arrays, head=marked))
        student_ND, student_VD = model(*arrays, head=marked)
        size = self.chunk_tokens or max(16, _CHUNK_NUMBERS // ours)
        total = student_ND.sum() * 0.0  # so that a batch with nothing marked has a gradient too
        for start in range(0, len(index_N), size):
            part = slice(start, start + size)
            total = total + checkpoint(
                self._chunk,
                student_ND[part],
                student_VD,
                teacher_NE[part],
                teacher_VE,
                use_reentrant=False,
                preserve_rng_state=False,
            )
        return total.float()

    def _chunk(self, student_ND: Tensor, student_VD: Tensor, teacher_NE: Tensor, teacher_VE: Tensor) -> Tensor:
        student_NV = F.linear(student_ND, student_VD.to(student_ND.dtype)).float()
        teacher_NV = F.linear(teacher_NE, teacher_VE.to(teacher_NE.dtype)).float()
        return generalised_jsd(student_NV / self.temperature, teacher_NV / self.temperature, self.beta).sum()


def generalised_jsd(student_NV: Tensor, teacher_NV: Tensor, beta: float) -> Tensor:
    """The divergence at each token, (N,), from logits."""
    student_NV, teacher_NV = student_NV.log_softmax(-1), teacher_NV.log_softmax(-1)
    if beta == 0:
        return _kl(teacher_NV, student_NV)
    if beta == 1:
        return _kl(student_NV, teacher_NV)
    mixture_NV = torch.logaddexp(teacher_NV + math.log(beta), student_NV + math.log1p(-beta))
    return beta * _kl(teacher_NV, mixture_NV) + (1 - beta) * _kl(student_NV, mixture_NV)


def _kl(p_NV: Tensor, q_NV: Tensor) -> Tensor:
    """Kullback-Leibler divergence from log-probabilities, (N,)."""
    return (p_NV.exp() * (p_NV - q_NV)).sum(-1)
