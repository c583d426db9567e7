"""Fresh weights for a model that is raised from scratch.

Meta has not published its initialisation. Linear layers are drawn from a normal distribution whose variance keeps the
scale of activations (1 / fan-in), and the two matrices of a block that write into the residual stream start at zero,
so that at the first step every block is the identity: with Muon's fixed step sizes that needs no warm-up of depth.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from puna.model.transformer import Transformer


@dataclass(frozen=True, slots=True)
class InitConfig:
    """Scales of the first weights.

    Attributes:
        embedding_std: standard deviation of the embedding (and of the output matrix when they are tied).
        linear_gain: standard deviation of a linear layer times the square root of its inputs.
        zero_residual: whether o_proj and down_proj start at zero; else they are scaled by 1/sqrt(2 * layers).
    """

    embedding_std: float = 0.02
    linear_gain: float = 0.6
    zero_residual: bool = True


@torch.no_grad()
def initialize(model: Transformer, seed: int, config: InitConfig | None = None) -> Transformer:
    """Draws all weights of `model` in place, the same for the same seed on every device."""
    config = config or InitConfig()
    generator = torch.Generator().manual_seed(seed)
    residual = 0.0 if config.zero_residual else (2 * model.config.num_hidden_layers) ** -0.5
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            nn.init.ones_(parameter)
            continue
        std = config.embedding_std if "embed_tokens" in name else config.linear_gain * parameter.shape[1] ** -0.5
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            std *= residual
        parameter.copy_(torch.randn(parameter.shape, generator=generator) * std)
    return model
