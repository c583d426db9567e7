"""The shape of a model as GGUF metadata (`llama.*`), and back.

What would change the mathematics (experts, another rope scaling, different head sizes) is refused rather than ignored.
The frequency scaling of Llama 3.1 stands in a file only by its effect: the tensor `rope_freqs.weight` holds a divisor
for each channel pair. A reader has to find the four numbers that give those divisors; files of ours name them as well
(`puna.rope_scaling.*`), which counts only as long as the tensor agrees.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from puna.base.errors import CheckpointError, ConfigError
from puna.export.gguf_file import Entry, value_of
from puna.export.gguf_vocab import end_ids
from puna.model.config import ModelConfig, RopeScaling
from puna.model.rope import frequencies

ARCHITECTURE = "llama"
ROPE = "rope_freqs.weight"
_CONTEXT = "context_length"
_OWN_ROPE = "puna.rope_scaling."
# Keys that may stand in a file only with the value that a Llama has.
_FIXED = {
    "llama.expert_count": 0,
    "llama.rope.scaling.factor": 1.0,
    "llama.rope.scale_linear": 1.0,
    "split.count": 1,
}


def write_config(config: ModelConfig) -> dict[str, Entry]:
    entries: dict[str, Entry] = {
        "llama.vocab_size": ("uint32", config.vocab_size),
        "llama.context_length": ("uint32", config.max_position_embeddings),
        "llama.embedding_length": ("uint32", config.hidden_size),
        "llama.block_count": ("uint32", config.num_hidden_layers),
        "llama.feed_forward_length": ("uint32", config.intermediate_size),
        "llama.attention.head_count": ("uint32", config.num_attention_heads),
        "llama.attention.head_count_kv": ("uint32", config.num_key_value_heads),
        "llama.attention.key_length": ("uint32", config.head_dim),
        "llama.attention.value_length": ("uint32", config.head_dim),
        "llama.attention.layer_norm_rms_epsilon": ("float32", config.rms_norm_eps),
        "llama.rope.dimension_count": ("uint32", config.head_dim),
        "llama.rope.freq_base": ("float32", config.rope_theta),
    }
    if config.rope_scaling:
        for field in fields(RopeScaling):
            kind = "uint32" if field.name == "original_max_position_embeddings" else "float64"
            entries[_OWN_ROPE + field.name] = (kind, getattr(config.rope_scaling, field.name))
    return entries


def rope_divisors(config: ModelConfig) -> Tensor | None:
    """What each channel pair's frequency is divided by, (head_dim / 2,) float32: 1 for kept, the factor for slowed."""
    if config.rope_scaling is None:
        return None
    return _divisors(config.head_dim, config.rope_theta, config.rope_scaling)


def _divisors(head_dim: int, theta: float, scaling: RopeScaling) -> Tensor:
    return (frequencies(head_dim, theta, None) / frequencies(head_dim, theta, scaling)).float()


def read_config(metadata: Mapping[str, Any], vocab_size: int, tied: bool, divisors: Tensor | None) -> ModelConfig:
    """The shape that a file describes.

    Args:
        metadata: of the file.
        vocab_size: rows of its embedding.
        tied: whether it has no output matrix of its own.
        divisors: the tensor `rope_freqs.weight`.

    Raises:
        CheckpointError: another architecture, mathematics that Puna does not know, or a missing number.
        ConfigError: a shape that cannot be.
    """
    _check_kind(metadata)
    heads = _number(metadata, "attention.head_count")
    width = _number(metadata, "embedding_length")
    head_dim = _number(metadata, "attention.key_length", width // max(heads, 1))
    for key in ("attention.value_length", "rope.dimension_count"):
        if _number(metadata, key, head_dim) != head_dim:
            raise CheckpointError(
                f"llama.{key} is {_number(metadata, key)}; in a Llama it is the size of a head, which is {head_dim}."
            )
    theta, context = float(value_of(metadata, "llama.rope.freq_base", "number", 10_000.0)), _number(metadata, _CONTEXT)
    if not (0 < theta < math.inf and context >= 1):
        raise CheckpointError(f"The rotary base is {theta} and the context {context}; both must be above 0.")
    return ModelConfig(
        vocab_size=vocab_size,
        hidden_size=width,
        intermediate_size=_number(metadata, "feed_forward_length"),
        num_hidden_layers=_number(metadata, "block_count"),
        num_attention_heads=heads,
        num_key_value_heads=_number(metadata, "attention.head_count_kv", heads),
        head_dim=head_dim,
        max_position_embeddings=context,
        rope_theta=theta,
        rope_scaling=None if divisors is None else _scaling(divisors, metadata, head_dim, theta),
        rms_norm_eps=_epsilon(metadata),
        tie_word_embeddings=tied,
        bos_token_id=value_of(metadata, "tokenizer.ggml.bos_token_id", "whole number", 1),
        eos_token_id=end_ids(metadata),
    )


def _check_kind(metadata: Mapping[str, Any]) -> None:
    architecture = value_of(metadata, "general.architecture", "text")
    if architecture != ARCHITECTURE:
        raise CheckpointError(
            f"general.architecture is {architecture!r}; Puna reads {ARCHITECTURE!r}.",
            hint="Only models of the Llama family can be read.",
        )
    for key, value in _FIXED.items():
        if value_of(metadata, key, "number", value) != value:
            raise CheckpointError(f"{key} is {metadata[key]!r}; Puna reads models where it is {value!r}.")
    kind = value_of(metadata, "llama.rope.scaling.type", "text", "none")
    if kind not in ("none", "linear"):  # linear with a factor of 1, checked above, is none
        raise CheckpointError(f"llama.rope.scaling.type is {kind!r}; Puna knows the scaling of Llama 3.1 only.")


def _number(metadata: Mapping[str, Any], key: str, default: int | None = None) -> int:
    value = value_of(metadata, f"llama.{key}", "whole number", default)
    if value is None:
        raise CheckpointError(f"The file has no llama.{key}.")
    return value


def _epsilon(metadata: Mapping[str, Any]) -> float:
    key = "llama.attention.layer_norm_rms_epsilon"
    value = value_of(metadata, key, "number")
    if value is None or not 0 <= value < math.inf:
        raise CheckpointError(f"{key} is {value}; it must be a number that is not below 0.")
    return float(value)


def _scaling(divisors: Tensor, metadata: Mapping[str, Any], head_dim: int, theta: float) -> RopeScaling | None:
    """The rescaling that gives these divisors."""
    if divisors.shape != (head_dim // 2,):
        raise CheckpointError(f"{ROPE} has shape {tuple(divisors.shape)}; heads of {head_dim} need {head_dim // 2}.")
    if bool((divisors == 1).all()) and f"{_OWN_ROPE}factor" not in metadata:
        return None
    for candidate in _candidates(divisors, metadata):
        if torch.allclose(_divisors(head_dim, theta, candidate), divisors.float(), rtol=1e-4, atol=0):
            return candidate
    raise CheckpointError(
        f"{ROPE} holds divisors from {float(divisors.min()):g} to {float(divisors.max()):g} that no scaling of "
        "Llama 3.1's kind gives."
    )


def _candidates(divisors: Tensor, metadata: Mapping[str, Any]) -> Iterator[RopeScaling]:
    own = {field.name: metadata.get(_OWN_ROPE + field.name, 0) for field in fields(RopeScaling)}
    if all(type(value) in (int, float) and 0 < value < 1 << 31 for value in own.values()):
        with suppress(ConfigError):  # an edited file: what its tensor says counts
            yield RopeScaling(**own)  # type: ignore[arg-type]
    # Llama 3.1, 3.2 and 3.3 extended a context of 8,192 tokens; the slowest pairs are divided by the whole factor.
    factor = round(float(divisors.max()), 4)
    for context in (8192, *(1 << bits for bits in range(8, 18))):
        if factor >= 1:
            yield RopeScaling(factor, 1.0, 4.0, context)
