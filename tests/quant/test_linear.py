"""`QuantLinear` against products of its stored values in float64, and how it behaves as a module."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from puna.base.errors import CheckpointError, ConfigError, InputError
from puna.kernels.linear import SMALL_M
from puna.quant.formats import FORMATS, FP8, WeightFormat, dequantize_weight, round_activations
from puna.quant.linear import QuantLinear

QUANTIZED = [name for name in FORMATS if name != "bf16"]


def layer(name: str, outputs: int = 80, inputs: int = 256) -> QuantLinear:
    weight = torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(0))
    weight[3] = 0
    weight[5, 7] = 40
    format = FORMATS[name]
    return QuantLinear.from_weight(weight, format, 0.02 if format.activations == "tensor" else None)


def inputs(rows: int, dtype: torch.dtype) -> Tensor:
    x = torch.randn(rows, 256, generator=torch.Generator().manual_seed(1))
    x[0, 9] = 30
    x[rows // 2] *= 100
    return x.to(dtype)


def rounded_inputs(x: Tensor, made: QuantLinear) -> Tensor:
    """Inputs as the definition of the format rounds them, float64 and written out."""
    format: WeightFormat = made.format
    wide = x.double()
    if format.activations == "none":
        return wide
    if format.activations == "group":
        return round_activations(x.float(), format).double()
    if format.activations == "tensor":
        steps, scale = wide / made.tensors["input_scale"].double(), made.tensors["input_scale"].double()
    else:
        scale = wide.abs().amax(1, keepdim=True).clamp(max=format.cap) / format.limit
        scale = torch.where(scale > 0, scale, 1.0)
        steps = wide / scale
    if format.is_float8:
        return steps.float().clamp(-448, 448).to(FP8).double() * scale
    return steps.float().round() * scale


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("rows", [1, 3, 16, 40])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_multiplies_its_stored_values(name: str, rows: int, dtype: torch.dtype) -> None:
    made, x = layer(name), inputs(rows, dtype)
    with torch.inference_mode():
        out = made(x)
    assert out.dtype == dtype
    expected = rounded_inputs(x, made) @ made.dequantized().double().T
    size = rounded_inputs(x, made).abs() @ made.dequantized().double().T.abs()  # what the sums are made of
    share = {torch.float32: 2e-5, torch.bfloat16: 6e-3}[dtype]
    bound = share * size + 1e-6
    if made.format.bits == 4 and rows <= SMALL_M["int4"]:
        # Blocks of 128 inputs are rounded to int8 on the way: half a step of the block for each weight.
        steps = x.double().abs().unflatten(1, (-1, 128)).amax(-1) / 127
        bound += steps / 2 @ made.dequantized().double().abs().unflatten(1, (-1, 128)).sum(-1).T
    error = (out.double() - expected).abs()
    if made.format.activations == "none" or dtype == torch.float32:
        assert bool((error <= bound).all()), float((error / bound).max())
    else:  # an input between two steps may go either way when its scale differs in the last bit
        assert float(error.norm() / expected.norm()) < share


@pytest.mark.parametrize("name", FORMATS)
def test_leading_axes_stay_and_other_dtypes_are_taken(name: str) -> None:
    made = layer(name)
    x = torch.randn(2, 5, 256, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        out = made(x)
        assert out.shape == (2, 5, 80)
        torch.testing.assert_close(out[1, 2], made(x[1, 2]), rtol=1e-4, atol=1e-4)
        assert made(x.double()).dtype == torch.float64
        assert made(x[:0]).shape == (0, 5, 80)


@pytest.mark.parametrize("name", FORMATS)
def test_gradients_pass_through_to_what_lies_before(name: str) -> None:
    made = layer(name)
    x = torch.randn(3, 256, requires_grad=True)
    made(x).sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, made.dequantized().sum(0).expand(3, -1), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", FORMATS)
def test_changing_a_models_dtype_leaves_the_numbers_alone(name: str) -> None:
    made = layer(name)
    before = {key: tensor.clone() for key, tensor in made.tensors.items()}
    model = nn.Sequential(made, nn.Linear(4, 4)).to(torch.bfloat16)
    assert model[1].weight.dtype == torch.bfloat16
    for key, tensor in made.half().double().tensors.items():
        assert tensor.dtype == before[key].dtype
        assert torch.equal(tensor.view(torch.uint8), before[key].view(torch.uint8))


@pytest.mark.parametrize("name", QUANTIZED)
def test_a_layer_on_the_meta_device_is_filled_with_stored_tensors(name: str) -> None:
    made = layer(name)
    empty = QuantLinear(256, 80, FORMATS[name], device="meta")
    assert {key: t.shape for key, t in empty.state_dict().items()} == {k: t.shape for k, t in made.state_dict().items()}
    empty.load_state_dict(made.state_dict(), assign=True)
    x = inputs(4, torch.float32)
    with torch.inference_mode():
        assert torch.equal(empty(x), made(x))
        assert torch.equal(copy.deepcopy(empty)(x), made(x))
    assert not list(empty.parameters())


def test_names_are_those_of_compressed_tensors() -> None:
    assert list(layer("int8").state_dict()) == ["weight", "weight_scale"]
    assert list(layer("fp8-tensor").state_dict()) == ["weight", "weight_scale", "input_scale"]
    assert list(layer("int4-g32").state_dict()) == ["weight_packed", "weight_scale", "weight_shape"]
    assert layer("int4-g32").tensors["weight_shape"].tolist() == [80, 256]


def test_a_static_format_needs_a_calibration() -> None:
    with pytest.raises(ConfigError, match=r"layers\.0\.x is to be fp8-tensor.*no calibration"):
        QuantLinear.from_weight(torch.randn(4, 32), FORMATS["fp8-tensor"], name="layers.0.x")


def test_stored_tensors_of_another_kind_are_refused() -> None:
    stored = layer("int8").tensors
    with pytest.raises(CheckpointError, match="is int4-g32 and has no matrix among weight, weight_scale"):
        QuantLinear.from_tensors(stored, FORMATS["int4-g32"], "x")
    with pytest.raises(CheckpointError, match=r"x\.weight is torch\.int8"):
        QuantLinear.from_tensors(stored, FORMATS["fp8"], "x")
    with pytest.raises(CheckpointError, match="not weight, weight_scale"):
        QuantLinear.from_tensors({"weight": stored["weight"]}, FORMATS["int8"], "x")
    with pytest.raises(CheckpointError, match=r"x\.weight_scale"):
        QuantLinear.from_tensors({**stored, "weight_scale": stored["weight_scale"][:5]}, FORMATS["int8"], "x")


def test_inputs_of_another_width_are_refused() -> None:
    with pytest.raises(InputError, match="takes 256 inputs and is given 128"):
        layer("int8")(torch.randn(2, 128))


def test_as_an_output_matrix_it_is_written_out_when_it_is_looked_at() -> None:
    made = layer("int8")
    hidden = torch.randn(3, 256)
    same, weight = made.for_head(hidden)
    assert same is hidden
    assert "tensor" not in vars(weight)
    out = torch.nn.functional.linear(hidden, weight)  # type: ignore[arg-type]
    torch.testing.assert_close(out, hidden @ made.dequantized().T)
    assert weight.shape == (80, 256)
    assert torch.equal(weight.to(torch.bfloat16), made.dequantized(torch.bfloat16))


def test_infinite_cap_and_capped_format_differ_only_for_outliers() -> None:
    plain, capped = layer("fp8"), layer("fp8-cap1200")
    x = inputs(2, torch.float32).clamp(-50, 50)
    with torch.inference_mode():
        assert torch.equal(plain(x), capped(x))
        x[0, 0] = 5000.0
        saturated = x.clone()
        saturated[0, 0] = 1200.0
        torch.testing.assert_close(capped(x), capped(saturated))
        assert not torch.allclose(plain(x), capped(x))
    assert math.isinf(plain.format.cap)
    assert torch.equal(dequantize_weight(plain.tensors, plain.format), capped.dequantized())
