from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.base.config import from_dict
from puna.base.errors import CheckpointError, ConfigError
from puna.model.config import (
    ModelConfig,
    RopeScaling,
    ffn_size,
    from_hf,
    from_meta,
    named_size,
    size_names,
    to_hf,
    to_meta,
)

# config.json of Llama 3.1 8B Instruct, as transformers 4 wrote it.
LLAMA_31_8B: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 128000,
    "eos_token_id": [128001, 128008, 128009],
    "hidden_act": "silu",
    "hidden_size": 4096,
    "initializer_range": 0.02,
    "intermediate_size": 14336,
    "max_position_embeddings": 131072,
    "mlp_bias": False,
    "model_type": "llama",
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_scaling": {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
    "rope_theta": 500000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.42.3",
    "use_cache": True,
    "vocab_size": 128256,
}


def test_the_published_config_is_the_named_size() -> None:
    assert from_hf(LLAMA_31_8B) == named_size("llama-3.1-8b")


def test_transformers_5_keys_say_the_same() -> None:
    data = {key: value for key, value in LLAMA_31_8B.items() if key not in ("rope_scaling", "rope_theta")}
    data["rope_parameters"] = {**LLAMA_31_8B["rope_scaling"], "rope_theta": 500000.0}
    assert from_hf(data) == named_size("llama-3.1-8b")


@pytest.mark.parametrize("name", size_names())
def test_hf_round_trip(name: str) -> None:
    config = named_size(name)
    assert from_hf(to_hf(config, "bfloat16")) == config


@pytest.mark.parametrize("name", [name for name in size_names() if name.startswith("llama")])
def test_meta_round_trip(name: str) -> None:
    config = named_size(name)
    params = to_meta(config)
    assert "puna" not in params  # the published shapes fit Meta's own keys
    assert replace(from_meta(params), tie_word_embeddings=config.tie_word_embeddings) == config


@given(
    heads=st.integers(1, 8),
    head_dim=st.integers(1, 40).map(lambda half: 2 * half),
    hidden=st.integers(1, 700),
    width=st.integers(1, 3000),
    scaling=st.sampled_from([None, RopeScaling(), RopeScaling(32.0), RopeScaling(4.0, 2.0, 8.0, 512)]),
    tied=st.booleans(),
    eos=st.lists(st.integers(0, 90), max_size=3).map(tuple),
)
def test_any_shape_survives_both_layouts(
    heads: int, head_dim: int, hidden: int, width: int, scaling: RopeScaling | None, tied: bool, eos: tuple[int, ...]
) -> None:
    config = ModelConfig(
        vocab_size=91,
        hidden_size=hidden,
        intermediate_size=width,
        num_hidden_layers=2,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        head_dim=head_dim,
        max_position_embeddings=700,
        rope_theta=12345.0,
        rope_scaling=scaling,
        tie_word_embeddings=tied,
        bos_token_id=3,
        eos_token_id=eos,
    )
    assert from_hf(to_hf(config, "float32")) == config
    assert replace(from_meta(to_meta(config)), tie_word_embeddings=tied) == config


def test_transformers_reads_our_config() -> None:
    transformers = pytest.importorskip("transformers")
    for name in ("llama-3.1-8b", "llama-3.2-1b", "llama-3-8b"):
        config = named_size(name)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            theirs = transformers.LlamaConfig(**to_hf(config, "bfloat16"))
        assert str(theirs.dtype) == "torch.bfloat16"
        assert theirs.head_dim == config.head_dim
        assert theirs.rope_parameters["rope_theta"] == config.rope_theta
        if config.rope_scaling:
            assert theirs.rope_parameters["rope_type"] == "llama3"
            assert theirs.rope_parameters["factor"] == config.rope_scaling.factor
        else:
            assert theirs.rope_parameters["rope_type"] == "default"
        assert from_hf(theirs.to_dict()) == config


def test_the_old_keys_are_those_of_transformers_4() -> None:
    data = to_hf(named_size("llama-3.1-8b"), "bfloat16")
    shared = LLAMA_31_8B.keys() - {"attention_dropout", "pretraining_tp", "transformers_version"}
    assert {key: data[key] for key in shared} == {key: LLAMA_31_8B[key] for key in shared}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model_type": "mistral"}, "mistral"),
        ({"hidden_act": "gelu"}, "gelu"),
        ({"attention_bias": True}, "attention_bias"),
        ({"mlp_bias": True}, "mlp_bias"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ({"quantization_config": {"quant_method": "fp8"}}, "quantization_config"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "yarn"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "linear"),
        ({"hidden_size": None}, "hidden_size"),
    ],
)
def test_other_mathematics_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(CheckpointError, match=said):
        from_hf(LLAMA_31_8B | change)


def test_what_a_file_leaves_out_is_as_in_transformers() -> None:
    data = {key: LLAMA_31_8B[key] for key in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers")}
    transformers = pytest.importorskip("transformers")
    ours = from_hf(data | {"num_attention_heads": 32})
    theirs = transformers.LlamaConfig(**data, num_attention_heads=32)
    for key in ("num_key_value_heads", "head_dim", "rms_norm_eps", "max_position_embeddings", "bos_token_id"):
        assert getattr(ours, key) == getattr(theirs, key), key
    assert ours.rope_theta == theirs.rope_parameters["rope_theta"]
    assert ours.rope_scaling is None


def test_a_single_ending_token_is_a_number_in_the_file() -> None:
    config = replace(named_size("llama-3-8b"), eos_token_id=(128001,))
    assert to_hf(config, "bfloat16")["eos_token_id"] == 128001
    assert from_hf(to_hf(config, "bfloat16")) == config


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"num_key_value_heads": 3}, "must divide"),
        ({"num_key_value_heads": 0}, "must divide"),
        ({"hidden_size": 33}, "multiple of num_attention_heads"),
        ({"head_dim": 7}, "even"),
        ({"vocab_size": 0}, "vocab_size is 0"),
        ({"num_hidden_layers": -1}, "num_hidden_layers is -1"),
        ({"rope_scaling": {"factor": 0.5}}, "factor is 0.5"),
        ({"rope_scaling": {"low_freq_factor": 4.0}}, "low_freq_factor"),
    ],
)
def test_shapes_that_cannot_be_are_refused(change: dict[str, Any], said: str) -> None:
    shape = {"hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2} | change
    with pytest.raises(ConfigError, match=said):
        from_dict(ModelConfig, shape)


def test_a_misspelt_key_names_the_near_one() -> None:
    with pytest.raises(ConfigError, match="num_hidden_layers"):
        from_dict(ModelConfig, {"num_hiden_layers": 2})
    with pytest.raises(ConfigError, match=r"llama-3\.1-8b"):
        named_size("lama-3.1-8b")


def test_metas_rule_for_the_width_gives_the_published_ones() -> None:
    rule = {  # arXiv 2407.21783, table 3: dim, ffn_dim_multiplier, multiple_of -> width
        (4096, 1.3, 1024): 14336,
        (8192, 1.3, 4096): 28672,
        (16384, 1.2, 4096): 53248,
        (2048, 1.5, 256): 8192,
        (3072, 1.0, 256): 8192,
    }
    assert {key: ffn_size(*key) for key in rule} == rule


def test_metas_params_of_llama_31_and_32() -> None:
    params = {
        "dim": 4096,
        "ffn_dim_multiplier": 1.3,
        "multiple_of": 1024,
        "n_heads": 32,
        "n_kv_heads": 8,
        "n_layers": 32,
        "norm_eps": 1e-05,
        "rope_theta": 500000.0,
        "use_scaled_rope": True,
        "vocab_size": 128256,
        "quantization_args": None,
    }
    assert from_meta(params) == named_size("llama-3.1-8b")
    small = params | {"dim": 2048, "n_layers": 16, "ffn_dim_multiplier": 1.5, "multiple_of": 256}
    assert replace(from_meta(small), tie_word_embeddings=True) == named_size("llama-3.2-1b")
    assert from_meta(small | {"rope_scaling_factor": 16}).rope_scaling == RopeScaling(factor=16.0)
    llama_2 = {key: params[key] for key in ("dim", "n_heads", "n_layers", "norm_eps")} | {"vocab_size": 32000}
    old = from_meta(llama_2)
    assert (old.max_position_embeddings, old.rope_theta, old.rope_scaling) == (4096, 10_000.0, None)
    assert (old.intermediate_size, old.num_key_value_heads) == (11008, 32)


def test_incomplete_params_are_refused() -> None:
    with pytest.raises(CheckpointError, match="n_layers"):
        from_meta({"dim": 64, "n_heads": 4, "vocab_size": 96})
    with pytest.raises(CheckpointError, match="dim = 'x'"):
        from_meta({"dim": "x", "n_heads": 4, "vocab_size": 96, "n_layers": 1})
