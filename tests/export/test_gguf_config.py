"""Shapes as GGUF metadata, there and back, and what no Llama has."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from puna.base.errors import CheckpointError
from puna.export.gguf_config import read_config, rope_divisors, write_config
from puna.export.gguf_vocab import write_tokenizer
from puna.model.config import ModelConfig, RopeScaling, named_size, size_names

from .conftest import as_read


def metadata(config: ModelConfig) -> dict[str, Any]:
    entries = {"general.architecture": ("string", "llama"), **write_config(config), **write_tokenizer(None, config)}
    return as_read(entries)


def read(config: ModelConfig, changes: dict[str, Any] | None = None) -> ModelConfig:
    found = {key: value for key, value in (metadata(config) | (changes or {})).items() if value is not None}
    return read_config(found, config.vocab_size, config.tie_word_embeddings, rope_divisors(config))


@pytest.mark.parametrize("name", size_names())
def test_every_size_comes_back(name: str) -> None:
    config = named_size(name)
    assert read(config) == config


@pytest.mark.parametrize("name", [name for name in size_names() if named_size(name).rope_scaling])
def test_the_scaling_of_a_file_of_others_is_found_from_its_divisors(name: str) -> None:
    config = named_size(name)
    foreign = {key: value for key, value in metadata(config).items() if not key.startswith("puna.rope")}
    assert read_config(foreign, config.vocab_size, config.tie_word_embeddings, rope_divisors(config)) == config


def test_the_divisors_are_those_of_the_paper() -> None:
    """d = 128, factor 8: pairs 0 to 28 are kept, 29 to 34 blended, 35 to 63 divided."""
    divisors = rope_divisors(named_size("llama-3.1-8b"))
    assert divisors is not None
    assert torch.equal(divisors[:29], torch.ones(29))
    assert torch.equal(divisors[35:], torch.full((29,), 8.0))
    assert divisors[29].item() == pytest.approx(2.616099e-3 / 2.166571e-3, rel=1e-5)
    assert bool((divisors[28:36].diff() > 0).all())
    assert rope_divisors(replace(named_size("llama-3.1-8b"), rope_scaling=None)) is None


def test_an_odd_scaling_comes_back_from_a_file_of_ours() -> None:
    config = replace(named_size("llama-3.1-8b"), rope_scaling=RopeScaling(5.5, 1.5, 3.0, 6000))
    assert read(config) == config


def test_what_the_tensor_says_goes_before_our_own_keys() -> None:
    config = named_size("llama-3.1-8b")
    for value in (9.0, 0.5, "eight"):
        assert read(config, {"puna.rope_scaling.factor": value}) == config


def test_divisors_of_one_are_no_scaling() -> None:
    config = replace(named_size("llama-3.1-8b"), rope_scaling=None)
    assert read_config(metadata(config), config.vocab_size, False, torch.ones(64)) == config


def test_divisors_that_no_scaling_gives_are_refused() -> None:
    config = named_size("llama-3.1-8b")
    with pytest.raises(CheckpointError, match=r"divisors from 0\.5 to 0\.5 that no scaling"):
        read_config(metadata(config), config.vocab_size, False, torch.full((64,), 0.5))
    with pytest.raises(CheckpointError, match=r"shape \(32,\); heads of 128 need 64"):
        read_config(metadata(config), config.vocab_size, False, torch.ones(32))


def test_a_head_size_of_its_own_and_missing_defaults() -> None:
    config = replace(named_size("llama-3.1-8b"), head_dim=64)
    assert read(config) == config
    plain = replace(config, head_dim=128, num_key_value_heads=32)
    gone = ("attention.key_length", "attention.value_length", "rope.dimension_count", "attention.head_count_kv")
    assert read(plain, {f"llama.{key}": None for key in gone}) == plain


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("general.architecture", "qwen3", "'qwen3'; Puna reads 'llama'"),
        ("general.architecture", None, "None; Puna reads"),
        ("llama.expert_count", 8, "llama.expert_count is 8"),
        ("llama.rope.scaling.type", "yarn", "'yarn'"),
        ("llama.rope.scaling.factor", 4.0, "factor is 4.0"),
        ("split.count", 3, "split.count is 3"),
        ("llama.block_count", None, "has no llama.block_count"),
        ("llama.block_count", "four", "is 'four'; it must be a whole number"),
        ("llama.attention.head_count_kv", np.array([8, 4]), "must be a whole number"),
        ("llama.attention.value_length", 32, "size of a head, which is 128"),
        ("llama.rope.dimension_count", 32, "size of a head, which is 128"),
        ("llama.rope.freq_base", 0.0, "rotary base is 0.0"),
        ("llama.rope.freq_base", float("nan"), "rotary base is nan"),
        ("llama.context_length", 0, "context 0"),
        ("llama.attention.layer_norm_rms_epsilon", float("nan"), "epsilon is nan"),
        ("llama.attention.layer_norm_rms_epsilon", None, "layer_norm_rms_epsilon is None"),
    ],
)
def test_other_mathematics_and_missing_numbers_are_refused(key: str, value: Any, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        read(named_size("llama-3.1-8b"), {key: value})


def test_linear_scaling_by_one_is_none() -> None:
    config = named_size("llama-3.1-8b")
    assert read(config, {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 1.0}) == config
