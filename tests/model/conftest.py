"""Small models with random weights for the tests of the room."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from puna.model.config import ModelConfig
from puna.model.init import InitConfig, initialize
from puna.model.transformer import Transformer

TINY = ModelConfig(
    vocab_size=96,
    hidden_size=32,
    intermediate_size=80,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=512,
    bos_token_id=1,
    eos_token_id=(2,),
)


@pytest.fixture
def tiny() -> Callable[..., ModelConfig]:
    """A small shape, with the changes that a test asks for."""

    def make(**changes: Any) -> ModelConfig:
        return replace(TINY, **({"head_dim": 0} | changes))

    return make


@pytest.fixture
def random_model() -> Callable[..., Transformer]:
    """A model in which every weight matters: no matrix is zero, and no norm is one."""

    def make(config: ModelConfig = TINY, seed: int = 0) -> Transformer:
        scales = InitConfig(embedding_std=0.5, linear_gain=1.0, zero_residual=False)
        model = initialize(Transformer(config), seed, scales)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim == 1:
                    parameter.uniform_(0.5, 1.5, generator=generator)
        return model.eval()

    return make
