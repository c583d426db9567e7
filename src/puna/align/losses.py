"""The losses of preference learning: each a formula over log-probabilities or rewards, and nothing else.

A pair loss is a small frozen object, called with a `Pairs`, that gives one number a pair. What makes the
log-probabilities, adds a loss of the chosen answers, and sums over a batch is `puna.align.objectives`. Where papers and
trl differ, the docstring says which is followed; the tests hold each against trl on equal tensors.

Shapes: P pairs, S answers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from puna.base.config import require


@dataclass(frozen=True, slots=True)
class Pairs:
    """Natural-log probabilities of both answers to each prompt, summed over the tokens that count, each (P,).

    Attributes:
        chosen: of the better answer, under the model that learns.
        rejected: of the worse one.
        chosen_tokens: how many tokens were summed.
        rejected_tokens: the same for the worse one.
        reference_chosen: under the model that is held still.
        reference_rejected: the same for the worse one.
    """

    chosen: Tensor
    rejected: Tensor
    chosen_tokens: Tensor
    rejected_tokens: Tensor
    reference_chosen: Tensor
    reference_rejected: Tensor

    @property
    def chosen_ratio(self) -> Tensor:
        return self.chosen - self.reference_chosen

    @property
    def rejected_ratio(self) -> Tensor:
        return self.rejected - self.reference_rejected

    @property
    def chosen_mean(self) -> Tensor:
        """Log-probability a token."""
        return self.chosen / self.chosen_tokens.clamp(min=1)

    @property
    def rejected_mean(self) -> Tensor:
        return self.rejected / self.rejected_tokens.clamp(min=1)


class PairLoss(Protocol):
    """One number a pair, (P,).

    Attributes:
        needs_reference: whether the log-probabilities of a reference model are read.
    """

    @property
    def needs_reference(self) -> bool: ...

    def __call__(self, pairs: Pairs) -> Tensor: ...


def _positive(name: str, value: float) -> None:
    require(value > 0, f"{name} is {value}; it must be above 0.")


@dataclass(frozen=True, slots=True)
class DPO:
    """Direct preference optimisation (arXiv 2305.18290).

    Attributes:
        beta: how dearly the distance from the reference is paid; Llama 3.1 has 0.1.
        label_smoothing: the share of labels that are taken to be wrong (conservative DPO, the note to that paper by
            E. Mitchell); below 0.5.
    """

    beta: float = 0.1
    label_smoothing: float = 0.0

    needs_reference = True

    def __post_init__(self) -> None:
        _positive("beta", self.beta)
        require(
            0 <= self.label_smoothing < 0.5,
            f"label_smoothing is {self.label_smoothing}; it must be at least 0 and below 0.5.",
        )

    def __call__(self, pairs: Pairs) -> Tensor:
        margin_P = self.beta * (pairs.chosen_ratio - pairs.rejected_ratio)
        return -(1 - self.label_smoothing) * F.logsigmoid(margin_P) - self.label_smoothing * F.logsigmoid(-margin_P)


@dataclass(frozen=True, slots=True)
class IPO:
    """Identity preference optimisation (arXiv 2310.12036, equation 17) on log-probabilities a token, as trl has it."""

    beta: float = 0.1

    needs_reference = True

    def __post_init__(self) -> None:
        _positive("beta", self.beta)

    def __call__(self, pairs: Pairs) -> Tensor:
        chosen_P = pairs.chosen_ratio / pairs.chosen_tokens.clamp(min=1)
        rejected_P = pairs.rejected_ratio / pairs.rejected_tokens.clamp(min=1)
        return (chosen_P - rejected_P - 1 / (2 * self.beta)) ** 2


@dataclass(frozen=True, slots=True)
class SimPO:
    """Simple preference optimisation (arXiv 2405.14734): log-probabilities a token, no reference, a margin.

    Attributes:
        beta: scale of the rewards.
        gamma: the margin by which a chosen answer's reward is to be above.
    """

    beta: float = 2.0
    gamma: float = 0.5

    needs_reference = False

    def __post_init__(self) -> None:
        _positive("beta", self.beta)
        require(self.gamma >= 0, f"gamma is {self.gamma}; it must be at least 0.")

    def __call__(self, pairs: Pairs) -> Tensor:
        return -F.logsigmoid(self.beta * (pairs.chosen_mean - pairs.rejected_mean) - self.gamma)


@dataclass(frozen=True, slots=True)
class ORPO:
    """The odds-ratio part of odds-ratio preference optimisation (arXiv 2403.07691), on log-probabilities a token.

    The paper's whole loss adds the chosen answer's own, which is the objective's `nll` at 1.
    """

    beta: float = 0.1

    needs_reference = False

    def __post_init__(self) -> None:
        _positive("beta", self.beta)

    def __call__(self, pairs: Pairs) -> Tensor:
        log_odds_P = _log_odds(pairs.chosen_mean) - _log_odds(pairs.rejected_mean)
        return -self.beta * F.logsigmoid(log_odds_P)


def _log_odds(logprob: Tensor) -> Tensor:
    """log(p / (1 - p)); the probability is held a rounding below 1, where the odds are endless."""
    logprob = logprob.clamp(max=-torch.finfo(logprob.dtype).eps)
    return logprob - torch.log(-torch.expm1(logprob))


@dataclass(frozen=True, slots=True)
class KTO:
    """Kahneman-Tversky optimisation (arXiv 2402.01306, equation 7): single answers that are good or not.

    Attributes:
        beta: aversion to risk.
        desirable_weight: of good answers; with `undesirable_weight` it evens out unequal numbers of both.
        undesirable_weight: of the others.
    """

    beta: float = 0.1
    desirable_weight: float = 1.0
    undesirable_weight: float = 1.0

    def __post_init__(self) -> None:
        for name in ("beta", "desirable_weight", "undesirable_weight"):
            _positive(name, getattr(self, name))

    def __call__(self, ratio_S: Tensor, desirable_S: Tensor, kl: Tensor) -> Tensor:
        """One number an answer.

        Args:
            ratio_S: log-probability less that of the reference.
            desirable_S: bool.
            kl: a scalar without a gradient, how far the model is from the reference; at least 0.
        """
        sign_S, weight_S = (
            torch.where(desirable_S, good, bad).to(ratio_S.dtype)
            for good, bad in ((1.0, -1.0), (self.desirable_weight, self.undesirable_weight))
        )
        return weight_S * (1 - torch.sigmoid(self.beta * sign_S * (ratio_S - kl)))


def bradley_terry(better_P: Tensor, worse_P: Tensor, margin_P: Tensor | float = 0.0) -> Tensor:
    """-log of the probability that the better answer wins, (P,) (arXiv 2203.02155).

    The margin is Llama 2's (arXiv 2307.09288, section 3.2.2); Llama 3 has none.
    """
    return -F.logsigmoid(better_P - worse_P - margin_P)


def outcome(reward_S: Tensor, correct_S: Tensor) -> Tensor:
    """Cross-entropy of a reward as the log-odds that an answer is correct, (S,) (arXiv 2110.14168)."""
    return F.binary_cross_entropy_with_logits(reward_S, correct_S.to(reward_S.dtype), reduction="none")
