"""Chains of methods as they are written."""

from __future__ import annotations

import pytest

from puna.base.errors import ConfigError
from puna.quant.methods.awq import ActivationAware
from puna.quant.methods.gptq import Gptq
from puna.quant.methods.registry import parse
from puna.quant.methods.rotate import Rotate
from puna.quant.methods.rtn import RoundToNearest
from puna.quant.methods.smoothquant import SmoothQuant


def test_a_chain_ends_by_rounding() -> None:
    assert [type(step) for step in parse("rtn")] == [RoundToNearest]
    assert [type(step) for step in parse("rotate+awq")] == [Rotate, ActivationAware, RoundToNearest]
    assert [type(step) for step in parse("smoothquant + gptq")] == [SmoothQuant, Gptq]


def test_numbers_after_a_colon_are_settings() -> None:
    smooth, gptq = parse("smoothquant:0.85+gptq:0.1")
    assert isinstance(smooth, SmoothQuant)
    assert isinstance(gptq, Gptq)
    assert (smooth.alpha, gptq.dampening) == (0.85, 0.1)
    awq, rotate = parse("awq:5")[0], parse("rotate:7")[0]
    assert isinstance(awq, ActivationAware)
    assert isinstance(rotate, Rotate)
    assert (awq.grid, rotate.seed) == (5, 7)


def test_weights_are_clipped_for_round_to_nearest_alone() -> None:
    first = [parse(chain)[0] for chain in ("awq", "awq+rtn", "awq+gptq")]
    assert [step.clip for step in first if isinstance(step, ActivationAware)] == [True, True, False]


@pytest.mark.parametrize(
    ("chain", "message"),
    [
        ("gptp", "no quantisation method 'gptp'"),
        ("rtn+gptq", "rounds before its end"),
        ("gptq+awq", "rounds before its end"),
        ("smoothquant:much", "'much' is not a number"),
        ("rtn:3", "rtn takes no number"),
        ("smoothquant:3", "alpha is 3"),
        ("", "no quantisation method ''"),
    ],
)
def test_chains_that_cannot_be(chain: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(chain)
