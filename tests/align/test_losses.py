"""The formulas by hand; that trl computes the same is tested in `test_trl.py`."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from puna.align.losses import DPO, IPO, KTO, ORPO, PairLoss, Pairs, SimPO, bradley_terry, outcome
from puna.base.errors import ConfigError


def pairs(chosen: float, rejected: float, reference: tuple[float, float] = (0.0, 0.0)) -> Pairs:
    """One pair; ten tokens were chosen and five rejected."""
    return Pairs(*(torch.tensor([float(x)]) for x in (chosen, rejected, 10, 5, *reference)))


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (DPO(0.5), math.log1p(math.exp(-0.5 * (-20 + 22 + 15 - 16)))),
        (DPO(0.5, 0.2), 0.8 * math.log1p(math.exp(-0.5)) + 0.2 * math.log1p(math.exp(0.5))),
        (IPO(0.25), ((-20 + 22) / 10 - (-15 + 16) / 5 - 2) ** 2),
        (SimPO(2.0, 0.5), math.log1p(math.exp(-(2.0 * (-2 + 3) - 0.5)))),
    ],
)
def test_a_pair_has_the_loss_of_the_paper(loss: PairLoss, expected: float) -> None:
    assert float(loss(pairs(-20, -15, (-22, -16)))) == pytest.approx(expected, rel=1e-5)


def test_orpo_is_the_logistic_loss_of_the_odds_ratio() -> None:
    chosen, rejected = (p / (1 - p) for p in (math.exp(-2.0), math.exp(-3.0)))
    expected = 0.3 * math.log1p(rejected / chosen)
    assert float(ORPO(0.3)(pairs(-20, -15))) == pytest.approx(expected, rel=1e-5)


def test_orpo_of_a_certain_answer_has_a_gradient() -> None:
    sure = torch.zeros(1, requires_grad=True)
    other = pairs(0, -15)
    loss = ORPO()(Pairs(sure, other.rejected, other.chosen_tokens, other.rejected_tokens, sure.detach(), sure.detach()))
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    assert sure.grad is not None
    assert torch.isfinite(sure.grad).all()


@pytest.mark.parametrize("loss", [DPO(), DPO(label_smoothing=0.1), SimPO(), ORPO(), IPO()])
def test_a_more_likely_chosen_answer_is_a_smaller_loss(loss: PairLoss) -> None:
    assert float(loss(pairs(-10, -15))) < float(loss(pairs(-20, -15)))
    assert float(loss(pairs(-20, -30))) < float(loss(pairs(-20, -15)))


def test_kto_pulls_good_answers_up_and_pushes_others_down() -> None:
    ratio = torch.tensor([1.0, 1.0], requires_grad=True)
    loss = KTO(0.5, 2.0, 3.0)(ratio, torch.tensor([True, False]), torch.tensor(0.4))
    sigmoid = 1 / (1 + math.exp(-0.5 * 0.6))
    assert loss.tolist() == pytest.approx([2 * (1 - sigmoid), 3 * sigmoid], rel=1e-5)
    loss.sum().backward()
    assert ratio.grad is not None
    assert ratio.grad[0] < 0 < ratio.grad[1]


def test_rewards_are_log_odds() -> None:
    better, worse = torch.tensor([2.0]), torch.tensor([0.5])
    assert float(bradley_terry(better, worse)) == pytest.approx(math.log1p(math.exp(-1.5)), rel=1e-6)
    assert float(bradley_terry(better, worse, 1.0)) == pytest.approx(math.log1p(math.exp(-0.5)), rel=1e-6)
    rewards: Tensor = outcome(torch.tensor([2.0, 2.0]), torch.tensor([1.0, 0.0]))
    assert rewards.tolist() == pytest.approx([math.log1p(math.exp(-2)), math.log1p(math.exp(2))], rel=1e-6)


@pytest.mark.parametrize(
    ("kind", "settings", "complaint"),
    [
        (DPO, {"beta": 0.0}, "beta is 0.0"),
        (DPO, {"label_smoothing": 0.5}, "label_smoothing is 0.5"),
        (IPO, {"beta": -1.0}, "beta is -1.0"),
        (SimPO, {"gamma": -0.1}, "gamma is -0.1"),
        (ORPO, {"beta": 0.0}, "beta is 0.0"),
        (KTO, {"desirable_weight": 0.0}, "desirable_weight is 0.0"),
    ],
)
def test_settings_out_of_range_are_refused(kind: Any, settings: dict[str, float], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        kind(**settings)
