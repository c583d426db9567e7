"""Rotary position embedding (arXiv 2104.09864) with Llama 3.1's frequency scaling.

Channels are paired half-split, as in Hugging Face checkpoints: channel i turns with channel i + K/2. Meta's own files
pair neighbours; `checkpoint` permutes their rows on the way in. Angles and products are float32: at position 100,000
a bfloat16 angle would be off by hundreds of radians.

Shapes: B rows, T tokens, H heads, K channels of a head.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from puna.model.config import ModelConfig, RopeScaling


def frequencies(head_dim: int, theta: float, scaling: RopeScaling | None) -> Tensor:
    """Radians a token of each channel pair, (K/2,) float64."""
    # On the CPU by name: models are also built on the meta device, where this table must exist all the same.
    frequency = theta ** (-torch.arange(0, head_dim, 2, dtype=torch.float64, device="cpu") / head_dim)
    if scaling is None:
        return frequency
    # Wavelengths short against the old context keep their frequency, long ones are slowed down by the factor, and
    # those between are blended linearly in (old context / wavelength).
    turns = scaling.original_max_position_embeddings * frequency / (2 * math.pi)
    keep = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    keep = keep.clamp(0, 1)
    return keep * frequency + (1 - keep) * frequency / scaling.factor


class Rope:
    """Tables of cosine and sine, grown to the longest position seen.

    Not a module: it has no parameters and nothing to save.
    """

    def __init__(self, config: ModelConfig) -> None:
        self._frequency = frequencies(config.head_dim, config.rope_theta, config.rope_scaling)
        self._tables: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def tables(self, positions_BT: Tensor, longest: int) -> tuple[Tensor, Tensor]:
        """Cosine and sine for each token, both (B, 1, T, K/2) float32; `longest` bounds the positions."""
        cos, sin = self._tables.get(positions_BT.device, (None, None))
        if cos is None or sin is None or cos.shape[0] < longest:
            # Grown in powers of two: generation asks for one position more at every step.
            size = max(512, 1 << (longest - 1).bit_length())
            angle = torch.outer(torch.arange(size, dtype=torch.float64, device="cpu"), self._frequency)
            cos, sin = (table.float().to(positions_BT.device) for table in (angle.cos(), angle.sin()))
            self._tables[positions_BT.device] = cos, sin
        return cos[positions_BT].unsqueeze(1), sin[positions_BT].unsqueeze(1)


def rotate(x_BHTK: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turns each channel pair of each token by its angle; the result has the dtype of `x_BHTK`."""
    first, second = x_BHTK.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1).to(x_BHTK.dtype)
