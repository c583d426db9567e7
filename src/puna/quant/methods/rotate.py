"""Hadamard rotation as in QuaRot (arXiv 2404.00456): the residual stream in a basis without outliers.

With all norms' weights moved into the matrices that read them, RMSNorm commutes with a rotation Q of the hidden state,
so Q can be multiplied into the embedding, the matrices that read the stream and those that write into it, and the
model computes the same. The values of each attention head are rotated into o_proj in the same way. What would need a
rotation at run time (the input of down_proj, the cached keys) is left out: our kernels stay the plain ones.

A tied model is untied: after the last norm is moved, its output matrix is not its embedding any more.

Shapes: D hidden_size, K head_dim.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from puna.model.transformer import Layer, Transformer
from puna.quant.methods.folding import replace_weight
from puna.quant.methods.hadamard import random_rotation
from puna.quant.methods.method import Method, Work
from puna.quant.output import untie

ROTATION = "residual_rotation"  # the buffer that keeps Q, for comparing hidden states; it is not stored


class Rotate(Method):
    """Args:
    seed: of the signs of the rotations.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    @torch.no_grad()
    def prepare(self, work: Work) -> None:
        rotate(work.model, self.seed)


@torch.no_grad()
def rotate(model: Transformer, seed: int = 0) -> Tensor:
    """Rotates the residual stream and the values of `model`, in place; returns Q, (D, D) float32.

    A hidden state h of the original model is h Q now.
    """
    untie(model)
    device = model.embed_tokens.weight.device
    q_DD = random_rotation(model.config.hidden_size, seed).to(device)
    q_KK = random_rotation(model.config.head_dim, seed + 1).to(device)
    _change(model.embed_tokens, lambda weight: weight @ q_DD)
    for layer in model.layers:
        assert isinstance(layer, Layer)
        attention, mlp = layer.self_attn, layer.mlp
        _absorb(layer.input_layernorm, attention.q_proj, attention.k_proj, attention.v_proj)
        _absorb(layer.post_attention_layernorm, mlp.gate_proj, mlp.up_proj)
        for reader in (attention.q_proj, attention.k_proj, attention.v_proj, mlp.gate_proj, mlp.up_proj):
            _change(reader, lambda weight: weight @ q_DD)
        for writer in (attention.o_proj, mlp.down_proj):
            _change(writer, lambda weight: q_DD.T @ weight)
        _change(attention.v_proj, lambda weight: _per_head(weight.T, q_KK).T)
        _change(attention.o_proj, lambda weight: _per_head(weight, q_KK))
    _absorb(model.norm, model.lm_head)
    _change(model.lm_head, lambda weight: weight @ q_DD)
    model.register_buffer(ROTATION, q_DD.float(), persistent=False)
    return q_DD.float()


def _absorb(norm: nn.Module, *readers: nn.Linear) -> None:
    """Moves a norm's weights into the matrices that read it."""
    weight = norm.weight
    assert isinstance(weight, nn.Parameter)
    for reader in readers:
        _change(reader, lambda matrix: matrix * weight.detach().double())
    replace_weight(norm, torch.ones_like(weight))


def _change(module: nn.Module, function: Callable[[Tensor], Tensor]) -> None:
    """Replaces a matrix by a function of it, computed in float64."""
    weight = module.weight
    assert isinstance(weight, nn.Parameter)
    replace_weight(module, function(weight.detach().double()))


def _per_head(weight_NC: Tensor, q_KK: Tensor) -> Tensor:
    """Rotates the channels of each head, which are columns."""
    return (weight_NC.unflatten(1, (-1, q_KK.shape[0])) @ q_KK).flatten(1)
