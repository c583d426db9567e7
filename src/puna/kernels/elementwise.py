"""The small steps of a decoder layer, each as one compiled pass: at one token a handful of torch calls costs more than
the arithmetic.

They give what the unfused operations of `puna.model` give, with the same roundings to the tensor's dtype in between.
Other dtypes and devices, and machines without the library, take torch's operations.

Shapes: D hidden_size, N tokens, H heads, K head_dim, J = K/2 channel pairs, T queries, L tokens, X leading axes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from puna.base.errors import InputError
from puna.kernels.build import Library, library


def rms_norm(x: Tensor, weight_D: Tensor, eps: float) -> Tensor:
    """x over its root mean square along the last axis: in float32, cast back, then times the weight."""
    if weight_D.shape != x.shape[-1:]:
        raise InputError(f"x has the shape {tuple(x.shape)} and the weight {tuple(weight_D.shape)}.")
    kernels = _kernels(x, weight_D)
    if kernels is None:
        return F.rms_norm(x.float(), x.shape[-1:], eps=eps).to(x.dtype) * weight_D.to(x.dtype)
    x, weight_D = x.contiguous(), weight_D.to(x.dtype).contiguous()
    out, D = torch.empty_like(x), x.shape[-1]
    bf16, threads = x.dtype == torch.bfloat16, torch.get_num_threads()
    kernels.rms_norm(x.data_ptr(), weight_D.data_ptr(), eps, out.data_ptr(), bf16, x.numel() // max(D, 1), D, threads)
    return out


def silu_mul(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up, the middle of SwiGLU."""
    if gate.shape != up.shape or gate.dtype != up.dtype:
        raise InputError(f"gate is {tuple(gate.shape)}, {gate.dtype}, and up {tuple(up.shape)}, {up.dtype}.")
    kernels = _kernels(gate, up)
    if kernels is None:
        return F.silu(gate) * up
    gate, up = gate.contiguous(), up.contiguous()
    out, bf16, threads = torch.empty_like(gate), gate.dtype == torch.bfloat16, torch.get_num_threads()
    kernels.silu_mul(gate.data_ptr(), up.data_ptr(), out.data_ptr(), bf16, gate.numel(), threads)
    return out


def rotate(x_NHK: Tensor, cos_NJ: Tensor, sin_NJ: Tensor) -> Tensor:
    """Turns channel j of each head with channel j + J by the token's angle; cos and sin are float32."""
    N, _, K = x_NHK.shape
    if cos_NJ.shape != (N, K // 2) or sin_NJ.shape != cos_NJ.shape or K % 2:
        raise InputError(f"x has the shape {tuple(x_NHK.shape)}, cos {tuple(cos_NJ.shape)}, sin {tuple(sin_NJ.shape)}.")
    kernels = _kernels(x_NHK, cos_NJ, sin_NJ)
    if kernels is None or cos_NJ.dtype != torch.float32 or sin_NJ.dtype != torch.float32:
        first, second = x_NHK.chunk(2, dim=-1)
        cos, sin = cos_NJ.unsqueeze(1), sin_NJ.unsqueeze(1)
        return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1).to(x_NHK.dtype)
    x_NHK, cos_NJ, sin_NJ = x_NHK.contiguous(), cos_NJ.contiguous(), sin_NJ.contiguous()
    out, bf16, threads = torch.empty_like(x_NHK), x_NHK.dtype == torch.bfloat16, torch.get_num_threads()
    kernels.rotate(x_NHK.data_ptr(), cos_NJ.data_ptr(), sin_NJ.data_ptr(), out.data_ptr(), bf16, *x_NHK.shape, threads)
    return out


def causal_softmax(scores_XTL: Tensor, scale: float, past: int) -> Tensor:
    """softmax(scale * scores) over the first `past` + t + 1 columns in row t, at most all; the others get 0.

    Args:
        scores_XTL: any leading axes; overwritten where that is possible.
        scale: above 0.
        past: tokens before the first query.
    """
    if past < 0:
        raise InputError(f"past is {past}; it must be at least 0.")
    T, L = scores_XTL.shape[-2:]
    kernels = _kernels(scores_XTL)
    if kernels is None or not scores_XTL.is_contiguous():
        future_TL = torch.ones(T, L, dtype=torch.bool, device=scores_XTL.device).triu(past + 1)
        wide = scores_XTL.to(torch.promote_types(scores_XTL.dtype, torch.float32))
        return (wide * scale).masked_fill_(future_TL, float("-inf")).softmax(-1).to(scores_XTL.dtype)
    blocks, bf16 = scores_XTL.numel() // max(T * L, 1), scores_XTL.dtype == torch.bfloat16
    kernels.causal_softmax(scores_XTL.data_ptr(), bf16, scale, blocks, T, L, past, torch.get_num_threads())
    return scores_XTL


def _kernels(*tensors: Tensor) -> Library | None:
    """The library, where it may be given these tensors: on the CPU, of a dtype it knows, without gradients."""
    first = tensors[0]
    if not first.is_cpu or first.dtype not in (torch.float32, torch.bfloat16):
        return None
    if any(not tensor.is_cpu for tensor in tensors):
        return None
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        return None
    return library()
