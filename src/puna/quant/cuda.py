"""Products with quantised matrices on CUDA: E4M3 and int8 by the tensor cores, all else by writing the matrix out.

`torch._scaled_mm` multiplies E4M3 with a scale for each row and column on Hopper (compute capability 9.0) and with one
scale for each matrix from 8.9 on; `torch._int_mm` multiplies int8 from 7.5 on. Both want sizes that are multiples of
16. What they do not take is dequantised and multiplied in the inputs' dtype: correct, and as fast as bf16 at best.

Shapes: M tokens, K inputs, N outputs.
"""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from puna.quant.formats import FP8, FP8_MAX, Tensors, WeightFormat, dequantize_weight, round_activations, token_scale

_LEAST_ROWS = 32  # torch._int_mm takes more than 16


@cache
def _capability(device: torch.device) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device)


def has_kernel(device: torch.device, format: WeightFormat, outputs: int, inputs: int) -> bool:
    """Whether the tensor cores of `device` multiply this format."""
    if device.type != "cuda" or outputs % 16 or inputs % 16:
        return False
    least = {
        ("channel", True): (9, 0),
        ("tensor", True): (8, 9),
        ("channel", False): (7, 5),
    }.get((format.strategy, format.is_float8))
    return least is not None and format.quantize_activations and _capability(device) >= least


def product(x_MK: Tensor, tensors: Tensors, format: WeightFormat) -> Tensor:
    """x times the transposed matrix, (M, N) in the dtype of x."""
    weight_NK = tensors.get("weight")
    if weight_NK is None or not has_kernel(x_MK.device, format, *weight_NK.shape):
        rounded_MK = round_activations(x_MK, format, tensors.get("input_scale"))
        return F.linear(rounded_MK, dequantize_weight(tensors, format, x_MK.dtype))
    if format.is_float8:
        return _fp8(x_MK, tensors, format)
    return int8_product(x_MK, weight_NK, tensors["weight_scale"])


def _fp8(x_MK: Tensor, tensors: Tensors, format: WeightFormat) -> Tensor:
    static = format.strategy == "tensor"
    scale_x = tensors["input_scale"].view(()) if static else token_scale(x_MK, format)
    scale_w = tensors["weight_scale"].view(()) if static else tensors["weight_scale"].view(1, -1)
    q_MK = (x_MK.float() / scale_x).clamp(-FP8_MAX, FP8_MAX).to(FP8)
    # Scales for each row come out in bfloat16 and in nothing else.
    out_MN = torch._scaled_mm(
        q_MK, tensors["weight"].t(), scale_a=scale_x, scale_b=scale_w, out_dtype=torch.bfloat16, use_fast_accum=True
    )
    return out_MN.to(x_MK.dtype)


def int8_product(x_MK: Tensor, weight_NK: Tensor, scale_N1: Tensor) -> Tensor:
    """W8A8: a scale for each token, int32 sums; rows are added where there are too few for the kernel."""
    M = x_MK.shape[0]
    wide_MK = x_MK.float()
    largest_M1 = wide_MK.abs().amax(1, keepdim=True)
    scale_M1 = torch.where(largest_M1 > 0, largest_M1 / 127, 1.0)
    q_MK = (wide_MK / scale_M1).round().to(torch.int8)
    q_MK = F.pad(q_MK, (0, 0, 0, max(0, _LEAST_ROWS - M)))
    sums_MN = torch._int_mm(q_MK, weight_NK.t())[:M]
    return (sums_MN.float() * scale_M1 * scale_N1.view(1, -1)).to(x_MK.dtype)
