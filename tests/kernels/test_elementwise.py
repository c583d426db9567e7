"""The fused steps against the model's own operations; `test_build` runs this file for every instruction set."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from puna.base.errors import InputError
from puna.kernels.elementwise import causal_softmax, rms_norm, rotate, silu_mul
from puna.model.rope import rotate as model_rotate
from puna.model.transformer import RMSNorm

FLOATS = (torch.float32, torch.bfloat16)
every_float = pytest.mark.parametrize("dtype", FLOATS)


def assert_close(got: Tensor, expected: Tensor) -> None:
    """To the last bit or two: sums in another order and another exponential may round the other way."""
    assert got.dtype == expected.dtype
    step = 2.0**-7 if got.dtype == torch.bfloat16 else 1e-6
    torch.testing.assert_close(got, expected, rtol=step, atol=step * 1e-3, equal_nan=True)


@every_float
@pytest.mark.parametrize("shape", [(1,), (3, 7), (2, 3, 64), (1, 100), (40, 2048), (0, 16)])
def test_rms_norm_is_the_models(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x = (torch.randn(shape) * 3).to(dtype)
    norm = RMSNorm(shape[-1], 1e-5)
    norm.weight.data = torch.randn(shape[-1]).to(dtype)
    with torch.no_grad():
        assert_close(rms_norm(x, norm.weight, 1e-5), norm(x))
        assert_close(rms_norm(x, norm.weight.float(), 1e-5), norm(x))


@every_float
def test_rms_norm_of_zeros_outliers_and_nan(dtype: torch.dtype) -> None:
    x = torch.randn(4, 96).to(dtype)
    x[0], x[1, 3], x[2, 5], x[3] = 0, 1e4, float("nan"), x[3] * 1e-3
    weight = torch.ones(96, dtype=dtype)
    got = rms_norm(x, weight, 1e-5)
    assert_close(got, F.rms_norm(x.float(), (96,), eps=1e-5).to(dtype))
    assert not got[0].any()
    assert got[2].isnan().all()


@every_float
@pytest.mark.parametrize("shape", [(1,), (5, 7), (2, 8192), (33, 4100), (0, 8)])
def test_silu_mul_is_swiglu_s_middle(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    gate, up = (torch.randn(shape) * 4).to(dtype), torch.randn(shape).to(dtype)
    assert_close(silu_mul(gate, up), F.silu(gate) * up)


@every_float
def test_silu_mul_far_from_zero(dtype: torch.dtype) -> None:
    gate = torch.tensor([-1e4, -300.0, -88.0, -20.0, 0.0, 20.0, 300.0, 1e4, float("nan")]).to(dtype)
    up = torch.full_like(gate, 2.0)
    torch.testing.assert_close(silu_mul(gate, up), F.silu(gate) * up, rtol=1e-2, atol=1e-6, equal_nan=True)


@every_float
@pytest.mark.parametrize(("N", "H", "K"), [(1, 1, 2), (3, 2, 6), (5, 4, 64), (2, 32, 128), (40, 8, 80), (0, 2, 8)])
def test_rotate_is_the_models(N: int, H: int, K: int, dtype: torch.dtype) -> None:
    torch.manual_seed(2)
    x = torch.randn(N, H, K).to(dtype)
    angle = torch.rand(N, K // 2) * 6
    cos, sin = angle.cos(), angle.sin()
    assert_close(rotate(x, cos, sin), model_rotate(x, cos.unsqueeze(1), sin.unsqueeze(1)))


def test_views_and_other_dtypes_are_taken() -> None:
    wide = torch.randn(4, 64)
    assert_close(rms_norm(wide[:, ::2], torch.ones(32), 1e-5), F.rms_norm(wide[:, ::2], (32,), eps=1e-5))
    assert_close(silu_mul(wide[:, :32], wide[:, 32:]), F.silu(wide[:, :32]) * wide[:, 32:])
    half = wide.double()
    assert torch.equal(silu_mul(half, half), F.silu(half) * half)
    angle = torch.rand(4, 4)
    x = torch.randn(4, 16, 2).transpose(1, 2).unflatten(2, (2, 8)).flatten(1, 2)
    assert_close(rotate(x, angle.cos(), angle.sin()), rotate(x.contiguous(), angle.cos(), angle.sin()))


def test_gradients_flow() -> None:
    x, weight = torch.randn(3, 16, requires_grad=True), torch.ones(16)
    (rms_norm(x, weight, 1e-5).sum() + silu_mul(x, x).sum()).backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0


@pytest.mark.parametrize(
    "call",
    [
        lambda: rms_norm(torch.ones(2, 8), torch.ones(7), 1e-5),
        lambda: silu_mul(torch.ones(2, 8), torch.ones(2, 7)),
        lambda: silu_mul(torch.ones(2, 8), torch.ones(2, 8).bfloat16()),
        lambda: rotate(torch.ones(2, 1, 8), torch.ones(2, 8), torch.ones(2, 8)),
        lambda: rotate(torch.ones(2, 1, 8), torch.ones(3, 4), torch.ones(3, 4)),
        lambda: rotate(torch.ones(2, 1, 7), torch.ones(2, 3), torch.ones(2, 3)),
    ],
)
def test_shapes_that_do_not_fit_are_refused(call) -> None:
    with pytest.raises(InputError, match=r"shape|is \("):
        call()


@every_float
@pytest.mark.parametrize(
    ("T", "L", "past"),
    [(1, 1, 0), (1, 7, 6), (3, 3, 0), (5, 21, 16), (16, 16, 0), (17, 40, 23), (256, 700, 444), (4, 32, 3), (8, 20, 18)],
)
def test_a_causal_softmax_sees_no_future(T: int, L: int, past: int, dtype: torch.dtype) -> None:
    torch.manual_seed(T)
    scores = (torch.randn(2, 3, T, L) * 20).to(dtype)
    future = torch.ones(T, L, dtype=torch.bool).triu(past + 1)
    expected = (scores.double() * 0.3).masked_fill(future, float("-inf")).softmax(-1)
    got = causal_softmax(scores.clone(), 0.3, past)
    assert got.dtype == dtype
    torch.testing.assert_close(got.double(), expected, rtol=2.0**-7 if dtype == torch.bfloat16 else 1e-5, atol=1e-7)
    assert not got[..., future].any()
    apart = scores.transpose(0, 1).contiguous().transpose(0, 1)  # not in order of memory: torch's operations
    torch.testing.assert_close(causal_softmax(apart, 0.3, past), got, rtol=2.0**-6, atol=1e-6)


def test_a_causal_softmax_has_no_negative_past() -> None:
    with pytest.raises(InputError, match="past is -1"):
        causal_softmax(torch.zeros(4, 3), 1.0, -1)
