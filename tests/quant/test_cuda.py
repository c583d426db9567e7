"""Products on CUDA: what runs without one is checked everywhere, the tensor cores where there are some."""

from __future__ import annotations

import pytest
import torch

from puna.quant import cuda
from puna.quant.formats import FORMATS
from puna.quant.linear import QuantLinear

QUANTIZED = [name for name in FORMATS if name != "bf16"]
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")


def layer(name: str) -> QuantLinear:
    weight = torch.randn(64, 256, generator=torch.Generator().manual_seed(0))
    format = FORMATS[name]
    return QuantLinear.from_weight(weight, format, 0.02 if format.activations == "tensor" else None)


def expected(made: QuantLinear, x: torch.Tensor) -> torch.Tensor:
    return made.round_inputs(x.float()).double() @ made.dequantized().double().T


@pytest.mark.parametrize("name", QUANTIZED)
@pytest.mark.parametrize("rows", [1, 40])
def test_without_tensor_cores_the_matrix_is_written_out(name: str, rows: int) -> None:
    made, x = layer(name), torch.randn(rows, 256, generator=torch.Generator().manual_seed(1))
    out = cuda.product(x, made.tensors, made.format)
    torch.testing.assert_close(out.double(), expected(made, x), rtol=1e-4, atol=1e-4)
    assert not cuda.has_kernel(x.device, made.format, 64, 256)


@pytest.mark.parametrize("rows", [1, 16, 17, 40])
def test_int8_products_of_few_rows_are_filled_up(rows: int) -> None:
    made, x = layer("int8"), torch.randn(rows, 256, generator=torch.Generator().manual_seed(1))
    out = cuda.int8_product(x, made.tensors["weight"], made.tensors["weight_scale"])
    assert out.shape == (rows, 64)
    torch.testing.assert_close(out.double(), expected(made, x), rtol=1e-4, atol=1e-4)


@needs_cuda
@pytest.mark.parametrize("name", QUANTIZED)
@pytest.mark.parametrize("rows", [1, 7, 40])
def test_a_cuda_device_gives_the_numbers_of_the_cpu(name: str, rows: int) -> None:
    made, x = layer(name), torch.randn(rows, 256, generator=torch.Generator().manual_seed(1)).bfloat16()
    wanted = expected(made, x)
    with torch.inference_mode():
        out = made.cuda()(x.cuda()).cpu()
    assert out.dtype == torch.bfloat16
    assert float((out.double() - wanted).norm() / wanted.norm()) < 0.01


@needs_cuda
def test_hopper_multiplies_e4m3_itself() -> None:
    if torch.cuda.get_device_capability() < (9, 0):
        pytest.skip("this device has no row-wise E4M3 products")
    assert cuda.has_kernel(torch.device("cuda:0"), FORMATS["fp8"], 64, 256)
    assert not cuda.has_kernel(torch.device("cuda:0"), FORMATS["fp8"], 64, 250)
