"""Makes a loaded model fast to decode with: its small steps become fused kernels, its bfloat16 products read weights at
the memory's speed.

Applied from outside to a model that only generates from now on; parameters keep their names and their memory, and what
is computed stays the same, to rounding. On other devices, and without the compiled kernels, the model is left as it is.

Shapes: N tokens of the step, D hidden_size, H heads, K channels of a head, B and T leading axes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from puna.engine.paged_cache import PagedCache
from puna.kernels.build import library
from puna.kernels.elementwise import rms_norm, rotate, silu_mul
from puna.kernels.layer import LayerWeights, Matrix, decode_layer
from puna.kernels.linear import bf16_linear
from puna.model.transformer import MLP, Attention, Context, Layer, RMSNorm, Transformer
from puna.quant.linear import QuantLinear


class KernelLinear(nn.Module):
    """y = W x with a bfloat16 W, by the kernel that suits the number of tokens."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight = linear.weight

    def forward(self, x_BTD: Tensor) -> Tensor:
        out_ND = bf16_linear(x_BTD.reshape(-1, x_BTD.shape[-1]), self.weight)
        return out_ND.view(*x_BTD.shape[:-1], -1)


class FusedNorm(nn.Module):
    """`RMSNorm` in one pass."""

    def __init__(self, norm: RMSNorm) -> None:
        super().__init__()
        self.weight, self.eps = norm.weight, norm.eps

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight, self.eps)


class FusedMLP(nn.Module):
    """`MLP` with its middle in one pass."""

    def __init__(self, mlp: MLP) -> None:
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = mlp.gate_proj, mlp.up_proj, mlp.down_proj

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.down_proj(silu_mul(self.gate_proj(x_BTD), self.up_proj(x_BTD)))


class FusedLayer(Layer):
    """`Layer` as one compiled call where a step has nothing but a few tokens; else it goes through its parts."""

    def __init__(self, layer: Layer, weights: LayerWeights, number: int) -> None:
        nn.Module.__init__(self)
        self.input_layernorm, self.post_attention_layernorm = layer.input_layernorm, layer.post_attention_layernorm
        self.self_attn, self.mlp = layer.self_attn, layer.mlp
        self.number = number
        self._weights = weights

    def forward(self, x_BTD: Tensor, context: Context) -> Tensor:
        cache = context.cache
        if isinstance(cache, PagedCache) and x_BTD.dtype == self._weights.dtype and not torch.is_grad_enabled():
            step = cache.layer_step(context.cos, context.sin)
            if step is not None:
                x_BTD = x_BTD.contiguous()
                decode_layer(self._weights, cache.layer_pages[self.number], step, x_BTD[0])
                return x_BTD
        return super().forward(x_BTD, context)


class FusedAttention(Attention):
    """`Attention` whose rotation is one pass over a row of tokens, before the heads are laid apart."""

    def __init__(self, attention: Attention) -> None:
        nn.Module.__init__(self)
        self.layer, self.head_dim = attention.layer, attention.head_dim
        self.q_proj, self.k_proj = attention.q_proj, attention.k_proj
        self.v_proj, self.o_proj = attention.v_proj, attention.o_proj

    def forward(self, x_BTD: Tensor, context: Context) -> Tensor:
        if context.cache is None or x_BTD.shape[0] != 1:
            return super().forward(x_BTD, context)
        cos, sin = context.cos[0, 0], context.sin[0, 0]
        q_NHK, k_NGK, v_NGK = (
            projection(x_BTD)[0].unflatten(-1, (-1, self.head_dim))
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        q_NHK, k_NGK = rotate(q_NHK, cos, sin), rotate(k_NGK, cos, sin)
        out_1HNK = context.cache.attend(self.layer, *(x.transpose(0, 1).unsqueeze(0) for x in (q_NHK, k_NGK, v_NGK)))
        return self.o_proj(out_1HNK.transpose(1, 2).flatten(2))


def prepare(model: Transformer) -> Transformer:
    """Swaps the parts of `model` in place; returns it."""
    if model.embed_tokens.weight.device.type != "cpu" or library() is None:
        return model
    for name, module in list(model.named_modules()):
        if isinstance(module, RMSNorm):
            model.set_submodule(name, FusedNorm(module))
        elif type(module) is nn.Linear and module.weight.dtype == torch.bfloat16:
            model.set_submodule(name, KernelLinear(module))
    for number, layer in enumerate(model.layers):
        assert isinstance(layer, Layer)
        weights = layer_weights(layer, model)
        layer.self_attn = FusedAttention(layer.self_attn)
        layer.mlp = FusedMLP(layer.mlp)  # type: ignore[assignment]
        if weights is not None:
            model.layers[number] = FusedLayer(layer, weights, number)
    return model


def layer_weights(layer: Layer, model: Transformer) -> LayerWeights | None:
    """A layer's weights for the compiled call; None where they are of kinds that it does not know."""
    config, dtype = model.config, model.embed_tokens.weight.dtype
    parts = {f"{name}_proj": layer.self_attn.get_submodule(f"{name}_proj") for name in ("q", "k", "v", "o")}
    parts |= {f"{name}_proj": layer.mlp.get_submodule(f"{name}_proj") for name in ("gate", "up", "down")}
    matrices = {name.removesuffix("_proj"): _matrix(module) for name, module in parts.items()}
    known = {name: matrix for name, matrix in matrices.items() if matrix is not None}
    if dtype not in (torch.float32, torch.bfloat16) or len(known) < len(matrices):
        return None
    norms = [norm.weight.detach().to(dtype) for norm in (layer.input_layernorm, layer.post_attention_layernorm)]
    heads = config.num_attention_heads, config.num_key_value_heads
    return LayerWeights(known, (norms[0], norms[1]), config.rms_norm_eps, heads)


def _matrix(module: nn.Module) -> Matrix | None:
    if isinstance(module, KernelLinear):
        return Matrix("bf16", module.weight.detach())
    return module.matrix() if isinstance(module, QuantLinear) else None
