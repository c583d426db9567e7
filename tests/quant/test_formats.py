"""Formats: errors within their bounds, packing, and inputs that cannot be."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from puna.base.errors import ConfigError, InputError
from puna.quant.formats import (
    FORMATS,
    FP8,
    dequantize_weight,
    error_bound,
    named_format,
    pack_int4,
    quantize_weight,
    round_activations,
    round_steps,
    token_scale,
    unpack_int4,
    weight_scale,
)

QUANTIZED = [name for name in FORMATS if name != "bf16"]


def weights(seed: int, rows: int, columns: int, spread: float, outliers: int) -> Tensor:
    """Rows of very different sizes, some all zero, with single weights that are a thousand times larger."""
    generator = torch.Generator().manual_seed(seed)
    size = torch.exp(spread * torch.randn(rows, 1, generator=generator))
    weight = torch.randn(rows, columns, generator=generator) * size
    weight[torch.rand(rows, generator=generator) < 0.2] = 0
    places = torch.randint(0, rows * columns, (outliers,), generator=generator)
    weight.view(-1)[places] *= 1000
    return weight


@pytest.mark.parametrize("name", FORMATS)
@given(
    seed=st.integers(0, 10**6),
    rows=st.integers(1, 200),
    groups=st.integers(1, 3),
    spread=st.sampled_from([0.0, 1.0, 5.0]),
    outliers=st.integers(0, 5),
)
@settings(max_examples=15)
def test_no_weight_is_further_away_than_the_bound(
    name: str, seed: int, rows: int, groups: int, spread: float, outliers: int
) -> None:
    format = FORMATS[name]
    weight = weights(seed, rows, groups * (format.group_size or 40), spread, outliers)
    back = dequantize_weight(quantize_weight(weight, format), format)
    error, bound = (back - weight).abs(), error_bound(weight, format)
    assert bool((error <= bound * (1 + 1e-5) + 1e-37).all()), float((error - bound).max())
    assert bool((back[weight.abs().amax(1) == 0] == 0).all())


@pytest.mark.parametrize("name", FORMATS)
def test_the_bound_is_reached_and_no_larger_than_the_share_that_is_promised(name: str) -> None:
    format = FORMATS[name]
    weight = torch.randn(64, 256, generator=torch.Generator().manual_seed(0)).double()
    back = dequantize_weight(quantize_weight(weight, format), format).double()
    assert float(((back - weight).abs() / error_bound(weight, format)).max()) > 0.9
    shared = {"group": weight.unflatten(1, (-1, format.group_size or 1)).abs().amax(-1), "tensor": weight.abs().max()}
    largest = shared.get(format.strategy, weight.abs().amax(1, keepdim=True))
    if format.strategy == "group":
        largest = largest.repeat_interleave(format.group_size, 1)
    elif format.strategy == "block":
        largest = weight.abs().max()
    # A scale in bfloat16 is up to a 128th larger than the weights ask for.
    assert bool(((back - weight).abs() <= format.max_relative_error * largest * (1 + 2.0**-7)).all())


@pytest.mark.parametrize("name", QUANTIZED)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_rounding_what_is_rounded_changes_nothing(name: str, dtype: torch.dtype) -> None:
    weight = torch.randn(130, 256, generator=torch.Generator().manual_seed(0)).to(dtype)
    format = FORMATS[name]
    first = quantize_weight(weight, format)
    again = quantize_weight(dequantize_weight(first, format), format)
    if name.startswith("int4"):  # a group whose largest weight was rounded to 7 of 7.5 steps has a smaller scale now
        return assert_values_near(first, again, format.max_relative_error)
    assert torch.equal(first["weight"].view(torch.int8), again["weight"].view(torch.int8))
    return None


def assert_values_near(first: dict[str, Tensor], again: dict[str, Tensor], share: float) -> None:
    format = named_format("int4-g32" if first["weight_scale"].shape[1] == 8 else "int4-g128")
    a, b = dequantize_weight(first, format), dequantize_weight(again, format)
    assert float((a - b).abs().max()) <= 2 * share * float(a.abs().max())


@pytest.mark.parametrize("name", QUANTIZED)
def test_stored_tensors_are_what_the_format_says(name: str) -> None:
    format = FORMATS[name]
    stored = quantize_weight(torch.randn(200, 256), format)
    specs = {key: spec for key, spec in format.specs(200, 256).items() if key != "input_scale"}
    assert {key: (tuple(t.shape), t.dtype) for key, t in stored.items()} == specs
    assert format.bytes(200, 256) == sum(math.prod(s) * d.itemsize for s, d in format.specs(200, 256).values())


def test_sizes_of_the_formats() -> None:
    assert {name: round(format.bytes_per_weight, 4) for name, format in FORMATS.items()} == {
        "bf16": 2.0,
        "fp8": 1.0,
        "fp8-cap1200": 1.0,
        "fp8-tensor": 1.0,
        "fp8-block": 1.0002,
        "int8": 1.0,
        "int8-wo": 1.0,
        "int4-g32": 0.5625,
        "int4-g128": 0.5156,
    }


def test_each_strategy_shares_scales_as_it_says() -> None:
    weight = torch.ones(256, 256)
    weight[0, 0] = 1000
    raised = {
        name: int((weight_scale(weight, FORMATS[name]) > 10 / FORMATS[name].limit).sum())
        for name in ("fp8", "fp8-tensor", "fp8-block", "int4-g32")
    }
    assert raised == dict.fromkeys(raised, 1)
    shapes = {name: tuple(weight_scale(weight, FORMATS[name]).shape) for name in raised}
    assert shapes == {"fp8": (256, 1), "fp8-tensor": (1,), "fp8-block": (2, 2), "int4-g32": (256, 8)}


def test_one_outlier_spoils_a_tensor_scale_and_not_a_row_scale() -> None:
    weight = 0.01 * torch.randn(128, 256, generator=torch.Generator().manual_seed(0))
    weight[0, 0] = 5000.0
    rest = slice(1, None)

    def error(name: str) -> float:
        back = dequantize_weight(quantize_weight(weight, FORMATS[name]), FORMATS[name])
        return float((back - weight)[rest].norm() / weight[rest].norm())

    assert error("fp8-tensor") > 0.2
    assert error("fp8") < 0.04


def test_large_matrices_go_through_tiles() -> None:
    weight = torch.randn(5000, 512, generator=torch.Generator().manual_seed(0))
    for name in QUANTIZED:
        format = FORMATS[name]
        stored = quantize_weight(weight, format)
        cut = {key: t[:128] for key, t in quantize_weight(weight[2560:2688], format).items() if key != "weight_shape"}
        if format.strategy != "tensor":
            key = "weight_packed" if format.bits == 4 else "weight"
            assert torch.equal(stored[key][2560:2688].view(torch.int8), cut[key].view(torch.int8))
        whole = dequantize_weight(stored, format)
        assert float((whole - weight).norm() / weight.norm()) < (0.13 if format.bits == 4 else 0.04)


# E4M3 -----------------------------------------------------------------------------------------------------------------


def test_e4m3_is_rounded_to_the_nearest_of_its_numbers_and_saturates() -> None:
    codes = torch.arange(256, dtype=torch.uint8).view(FP8).float()
    numbers = codes[codes.isfinite()].unique()
    x = torch.cat((torch.linspace(-600, 600, 997), torch.logspace(-4, 3, 500), torch.tensor([0.0, 1e-9, math.inf])))
    expected = numbers[(x.clamp(-448, 448)[:, None] - numbers).abs().argmin(1)]
    rounded = round_steps(x, FORMATS["fp8"])
    assert torch.equal((rounded - x.clamp(-448, 448)).abs(), (expected - x.clamp(-448, 448)).abs())
    assert rounded.abs().max() == 448


# INT4 -----------------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(-8, 7), min_size=8, max_size=64).filter(lambda numbers: len(numbers) % 8 == 0))
def test_packed_numbers_come_back(numbers: list[int]) -> None:
    q = torch.tensor([numbers, numbers[::-1]])
    assert torch.equal(unpack_int4(pack_int4(q)), q.to(torch.int8))


def test_the_first_number_is_the_lowest_nibble() -> None:
    packed = pack_int4(torch.tensor([[-8, -7, -6, -5, -4, -3, -2, 7]]))
    assert packed.item() & 0xFFFFFFFF == 0xF6543210


def test_both_ends_of_a_group_are_half_a_step_away() -> None:
    weight = torch.zeros(1, 32)
    weight[0, :2] = torch.tensor([1.0, -1.0])
    back = dequantize_weight(quantize_weight(weight, FORMATS["int4-g32"]), FORMATS["int4-g32"])
    assert float((back - weight).abs().max()) <= 0.5 / 7.5 * (1 + 2.0**-7)


# What cannot be -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", QUANTIZED)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_weights_that_are_no_numbers_are_refused_with_their_count(name: str, bad: float) -> None:
    weight = torch.randn(4, 128)
    weight[1, 5] = weight[2, 7] = bad
    with pytest.raises(InputError, match=r"layers\.0\.x has 2 of 512 weights that are not finite"):
        quantize_weight(weight, FORMATS[name], "layers.0.x")


def test_rows_must_be_whole_groups() -> None:
    with pytest.raises(ConfigError, match="192 inputs are no multiple of 128") as caught:
        quantize_weight(torch.randn(4, 192), FORMATS["int4-g128"])
    assert "int4-g32" in caught.value.hint


def test_an_unknown_format_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="int4-g64") as caught:
        named_format("int4-g64")
    assert "int4-g32" in str(caught.value) or "int4-g128" in str(caught.value)


# Inputs ---------------------------------------------------------------------------------------------------------------


def test_a_tokens_scale_is_capped_at_1200_and_larger_inputs_saturate() -> None:
    # model.md, section G: m = clip(max|x|, eps, 1200), scale m / 448, values saturate.
    x = torch.tensor([[3.0, -2400.0, 0.02, 1.0], [3.0, -600.0, 0.02, 1.0], [0.0, 0.0, 0.0, 0.0]])
    format = FORMATS["fp8-cap1200"]
    assert token_scale(x, format).flatten().tolist() == pytest.approx([1200 / 448, 600 / 448, 1.0])
    rounded = round_activations(x, format)
    assert rounded[0, 1] == -1200
    assert float((rounded[0, 0] - 3).abs()) <= 3 / 16
    uncapped = round_activations(x, FORMATS["fp8"])
    assert uncapped[0, 1] == -2400
    assert torch.equal(rounded[1:], uncapped[1:])


def test_the_cap_keeps_small_inputs_beside_an_outlier() -> None:
    x = torch.full((1, 64), 0.05)
    x[0, 0] = 400_000.0
    assert float(round_activations(x, FORMATS["fp8"])[0, 1]) == 0
    assert float(round_activations(x, FORMATS["fp8-cap1200"])[0, 1]) == pytest.approx(0.05, rel=0.1)


@pytest.mark.parametrize("name", ["fp8", "int8", "fp8-block"])
def test_each_token_has_its_own_scale(name: str) -> None:
    x = torch.randn(3, 5, 192, generator=torch.Generator().manual_seed(0)) * torch.logspace(-3, 3, 15).view(3, 5, 1)
    relative = (round_activations(x, FORMATS[name]) - x).norm(dim=-1) / x.norm(dim=-1)
    assert float(relative.max()) < 0.04


def test_groups_of_inputs_have_their_own_scale_and_the_last_may_be_short() -> None:
    x = torch.full((1, 192), 0.01)
    x[0, 5] = 1e6
    rounded = round_activations(x, FORMATS["fp8-block"])
    assert bool((rounded[0, :5] == 0).all())
    assert rounded[0, 128:].tolist() == pytest.approx([0.01] * 64, rel=0.05)


def test_static_inputs_saturate_at_the_calibrated_scale() -> None:
    x = torch.tensor([[1.0, 10.0, -30.0]])
    rounded = round_activations(x, FORMATS["fp8-tensor"], torch.tensor([10 / 448]))
    assert rounded.tolist() == [pytest.approx([1.0, 10.0, -10.0], rel=0.04)]
