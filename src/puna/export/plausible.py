"""Shapes out of all proportion, refused before parameters are listed one by one or tables are computed for them.

A foreign or damaged file may announce any number. What is announced is compared with what the file holds, and with
bounds a thousand times above the largest models that exist.
"""

from __future__ import annotations

from puna.base.errors import CheckpointError
from puna.model.config import ModelConfig

_LARGEST_WIDTH = 1 << 28
_LARGEST_HEAD = 1 << 16


def check_plausible(config: ModelConfig, tensors: int) -> None:
    """Refuses a shape that cannot be that of a file with so many tensors.

    Raises:
        CheckpointError: which says the number and its bound.
    """
    if config.num_hidden_layers > tensors:
        raise CheckpointError(f"It announces {config.num_hidden_layers} layers and holds {tensors} tensors.")
    if config.head_dim > _LARGEST_HEAD:
        raise CheckpointError(f"It announces heads of {config.head_dim} channels; the bound is {_LARGEST_HEAD:,}.")
    widths = {
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_attention_heads * head_dim": config.num_attention_heads * config.head_dim,
    }
    for name, width in widths.items():
        if width > _LARGEST_WIDTH:
            raise CheckpointError(f"It announces a {name} of {width}; the bound is {_LARGEST_WIDTH:,}.")
