"""GPTQ against a plain column-by-column form in float64, and its error on the inputs that it saw."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from puna.base.errors import ConfigError, TrainingError
from puna.quant.calibrate import EVERY_PAIR, Inputs
from puna.quant.formats import FORMATS, dequantize_weight, expand_scale, quantize_weight, round_steps, weight_scale
from puna.quant.methods.gptq import Gptq, _factor


def problem(rows: int = 24, width: int = 96, tokens: int = 400) -> tuple[Tensor, Tensor]:
    """Weights, and inputs whose channels are correlated and of different sizes."""
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(width, width, generator=generator) * torch.logspace(-1, 1, width)
    x = torch.randn(tokens, width, generator=generator) @ mixing / width**0.5
    return torch.randn(rows, width, generator=generator), x


def seen(x: Tensor) -> Inputs:
    inputs = Inputs(EVERY_PAIR)
    inputs.add(x)
    return inputs


def rounded(weight: Tensor, x: Tensor, name: str, **settings: float) -> Tensor:
    method = Gptq(**settings)  # type: ignore[arg-type]
    order, factor = _factor(seen(x), method.dampening, "x")
    format = FORMATS[name]
    return dequantize_weight(method._round(weight, format, order, factor, "x"), format)


def reference(weight: Tensor, x: Tensor, name: str, dampening: float) -> Tensor:
    """One column after another; what is left is re-solved from the inverse of H over the columns still to come."""
    format = FORMATS[name]
    hessian = (x.double().T @ x.double()) / len(x)
    hessian += dampening * hessian.diagonal().mean() * torch.eye(len(hessian), dtype=torch.float64)
    scale = expand_scale(weight_scale(weight, format), format, *weight.shape).expand(weight.shape).double()
    left, out = weight.double().clone(), torch.zeros_like(weight, dtype=torch.float64)
    open_columns = (x.double().square().mean(0)).argsort(descending=True, stable=True).tolist()
    while open_columns:
        j, *open_columns = open_columns
        out[:, j] = round_steps((left[:, j] / scale[:, j]).float(), format).double() * scale[:, j]
        if open_columns:
            block = torch.linalg.inv(hessian[[j, *open_columns]][:, [j, *open_columns]])
            error = (left[:, j] - out[:, j]) / block[0, 0]
            left[:, open_columns] -= error[:, None] * block[0, 1:]
    return out.float()


@pytest.mark.parametrize("name", ["int4-g32", "int8", "fp8"])
@pytest.mark.parametrize("block", [128, 32])
def test_it_is_the_optimal_update_column_by_column(name: str, block: int) -> None:
    weight, x = problem()
    ours, expected = rounded(weight, x, name, block=block), reference(weight, x, name, 0.01)
    # A weight between two steps may fall either way in float32, and the columns after it then differ a little.
    assert float((ours != expected).float().mean()) < 0.02
    assert error(weight, ours, x) == pytest.approx(error(weight, expected, x), rel=0.03)


def error(weight: Tensor, back: Tensor, x: Tensor) -> float:
    return float((x @ (back - weight).T).norm())


@pytest.mark.parametrize(("name", "share"), [("int4-g32", 0.6), ("int8", 0.6), ("fp8", 0.7), ("fp8-block", 0.8)])
def test_outputs_are_nearer_than_with_round_to_nearest(name: str, share: float) -> None:
    weight, x = problem(width=128)
    nearest = dequantize_weight(quantize_weight(weight, FORMATS[name]), FORMATS[name])
    assert error(weight, rounded(weight, x, name), x) < share * error(weight, nearest, x)


def test_uncorrelated_inputs_give_round_to_nearest() -> None:
    weight, _ = problem()
    x = torch.eye(96).repeat(4, 1)
    nearest = dequantize_weight(quantize_weight(weight, FORMATS["int4-g32"]), FORMATS["int4-g32"])
    assert torch.equal(rounded(weight, x, "int4-g32"), nearest)


def test_channels_that_are_never_used_are_rounded_all_the_same() -> None:
    weight, x = problem()
    x[:, 10:20] = 0
    back = rounded(weight, x, "int4-g32")
    assert bool(back.isfinite().all())
    assert float((back - weight)[:, 10:20].abs().max()) < 0.5


def test_fewer_tokens_than_channels_are_enough() -> None:
    weight, x = problem(tokens=8)
    assert bool(rounded(weight, x, "int4-g32").isfinite().all())


def test_inputs_that_are_no_numbers_are_refused() -> None:
    weight, x = problem()
    x[3, 3] = torch.inf
    with pytest.raises(TrainingError, match="no usable covariance"):
        rounded(weight, x, "int4-g32")
    with pytest.raises(ConfigError, match="dampening is 0"):
        Gptq(0)
