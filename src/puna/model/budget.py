"""What a model costs, from its shape alone: parameters, operations, and bytes of weights, cache and training.

Checked against the published counts of the Llama 3 family (arXiv 2407.21783, table 3, and the model cards).
"""

from __future__ import annotations

from dataclasses import dataclass

from puna.model.config import ModelConfig

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "fp8": 1, "int8": 1, "int4": 0.5}


def parameters(config: ModelConfig) -> int:
    """All parameters; a tied output matrix counts once."""
    return _per_layer(config) * config.num_hidden_layers + _outside_layers(config)


def matrix_parameters(config: ModelConfig) -> int:
    """The parameters that a token is multiplied with: all but the norms and the embedding's look-up."""
    norms = 2 * config.hidden_size
    return (_per_layer(config) - norms) * config.num_hidden_layers + config.vocab_size * config.hidden_size


def _per_layer(config: ModelConfig) -> int:
    D, F, K = config.hidden_size, config.intermediate_size, config.head_dim
    attention = D * K * (2 * config.num_attention_heads + 2 * config.num_key_value_heads)
    return attention + 3 * D * F + 2 * D


def _outside_layers(config: ModelConfig) -> int:
    tables = 1 if config.tie_word_embeddings else 2
    return tables * config.vocab_size * config.hidden_size + config.hidden_size


def tensors(config: ModelConfig) -> int:
    """How many tensors a Hugging Face checkpoint holds."""
    return 9 * config.num_hidden_layers + (2 if config.tie_word_embeddings else 3)


def forward_flops_per_token(config: ModelConfig, tokens: int) -> float:
    """Multiplications and additions for one token of a causal sequence of `tokens`, on average.

    Two for each matrix parameter, and for attention two products of 2 * head_dim with each of the (tokens + 1) / 2
    keys that a token sees on average.
    """
    attention = 4 * config.num_attention_heads * config.head_dim * (tokens + 1) / 2
    return 2 * matrix_parameters(config) + attention * config.num_hidden_layers


def training_flops_per_token(config: ModelConfig, tokens: int) -> float:
    """Forward and backward: three times the forward pass (arXiv 2001.08361)."""
    return 3 * forward_flops_per_token(config, tokens)


def weight_bytes(config: ModelConfig, dtype: str = "bfloat16") -> int:
    return int(parameters(config) * BYTES[dtype])


def cache_bytes_per_token(config: ModelConfig, dtype: str = "bfloat16") -> int:
    """Bytes that one token adds to the key-value cache."""
    return int(2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * BYTES[dtype])


@dataclass(frozen=True, slots=True)
class TrainingBytes:
    """Peak memory of training on one device, in bytes."""

    weights: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.activations


def training_bytes(config: ModelConfig, tokens: int, *, recompute: bool = False, states: int = 2) -> TrainingBytes:
    """An estimate for float32 weights with bf16 activations.

    Args:
        config: the shape.
        tokens: tokens of one micro-batch (rows times length).
        recompute: whether activations are checkpointed, keeping only each layer's input.
        states: float32 numbers the optimizer keeps for a parameter: 2 for AdamW, 1 for Muon.
    """
    D, F, K = config.hidden_size, config.intermediate_size, config.head_dim
    heads = 2 * config.num_attention_heads + 2 * config.num_key_value_heads
    # Saved for the backward pass: the norms' and projections' inputs, q/k/v and the output, and the SwiGLU's three.
    layer = 2 * (6 * D + heads * K + 4 * F)
    kept = config.num_hidden_layers * (2 * D) + layer if recompute else config.num_hidden_layers * layer
    count = parameters(config)
    return TrainingBytes(4 * count, 4 * count, 4 * states * count, tokens * kept)
