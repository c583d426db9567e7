"""A tiny model, and token shards that it learns from within a few steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from puna.data.shards import TokenShards, write_shards
from puna.model.config import ModelConfig
from puna.model.init import InitConfig, initialize
from puna.model.transformer import Transformer

TINY = ModelConfig(
    vocab_size=64,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=256,
    bos_token_id=1,
    eos_token_id=(2,),
)


@pytest.fixture
def tiny_model() -> Callable[..., Transformer]:
    """A model in which every weight has a gradient, with the changes of shape that a test asks for."""

    def make(seed: int = 0, **changes: Any) -> Transformer:
        scales = InitConfig(embedding_std=0.3, linear_gain=1.0, zero_residual=False)
        return initialize(Transformer(replace(TINY, **changes)), seed, scales)

    return make


@pytest.fixture
def make_shards(tmp_path: Path) -> Callable[..., TokenShards]:
    """Segments of the given lengths that count up in steps of three, from a random start; masks on request."""

    def make(lengths: list[int], masked: bool = False, name: str = "tokens") -> TokenShards:
        generator = np.random.default_rng(0)
        segments = []
        for length in lengths:
            ids = (generator.integers(0, 64) + 3 * np.arange(length)) % 64
            segments.append((ids, generator.random(length) < 0.5 if masked else None))
        return write_shards(tmp_path / name, segments, 64)

    return make
