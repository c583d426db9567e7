"""Small models that exercise what the layouts differ in: grouped queries, head sizes, rope scaling, tied embeddings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from puna.base.card import Card
from puna.export.gguf_file import Entry
from puna.model.checkpoint import Checkpoint
from puna.model.config import RopeScaling
from puna.model.transformer import Transformer
from puna.quant.formats import named_format
from puna.quant.linear import QuantLinear
from puna.quant.output import route_head, untie
from puna.quant.plan import QuantPlan, from_rows
from puna.testing import tiny_model, tiny_tokenizer
from puna.tokenizer import Tokenizer

TEXTS = [
    "The llama stands on the high plain and looks at the mountain.\n",
    "def go(north):\n    return north + 12345\n",
]


@pytest.fixture
def checkpoint() -> Callable[..., Checkpoint]:
    """A random model of `tiny_config` with changes, and a tokenizer of bytes."""

    def make(seed: int = 0, scaled: bool = False, **changes: Any) -> Checkpoint:
        if scaled:
            changes["rope_scaling"] = RopeScaling(factor=8.0, original_max_position_embeddings=64)
        return Checkpoint.of(tiny_model(seed, **changes), tiny_tokenizer())

    return make


@pytest.fixture(scope="session")
def trained_tokenizer() -> Tokenizer:
    """A tokenizer with merges, which `tiny_tokenizer` has none of."""
    return Tokenizer.train(TEXTS * 20, 400, num_reserved_special_tokens=16)


def as_read(entries: Mapping[str, Entry]) -> dict[str, Any]:
    """Entries of GGUF metadata as a reader finds them."""
    return {
        key: np.array(value, dtype=kind[1:-1]) if kind[0] == "[" and kind != "[string]" else value
        for key, (kind, value) in entries.items()
    }


class Quantized(NamedTuple):
    """A quantised model, its plan, and the float checkpoint that it was made from."""

    model: Transformer
    plan: QuantPlan
    checkpoint: Checkpoint


@pytest.fixture
def quantized() -> Callable[..., Quantized]:
    """A random model of two layers, 128 wide, rounded to nearest by rows of (glob, format)."""

    def make(rows: str | Sequence[tuple[str, str]] = "fp8", **changes: Any) -> Quantized:
        sizes = {"hidden_size": 128, "intermediate_size": 256, "head_dim": 32} | changes
        rows = [("layers.*_proj", rows)] if isinstance(rows, str) else rows
        model, float_model = tiny_model(**sizes), tiny_model(**sizes)
        plan = from_rows(rows, model.config, "made up")
        if plan.quantizes_head:
            untie(model)
        for number, (module, name) in enumerate(plan.modules.items()):
            weight = model.get_submodule(module).weight
            assert isinstance(weight, torch.Tensor)
            layer = QuantLinear.from_weight(weight, named_format(name), 0.01 * (number + 1))
            model.set_submodule(module, layer)
        if plan.quantizes_head:
            route_head(model)
        checkpoint = Checkpoint.of(float_model, tiny_tokenizer(), Card("checkpoint", content="abc"), {"top_p": 0.9})
        return Quantized(model.eval(), plan, checkpoint)

    return make


def equal_tensors(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Bit by bit, which torch.equal does not do for 8-bit floats."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    return torch.equal(a.contiguous().view(-1).view(torch.uint8), b.contiguous().view(-1).view(torch.uint8))
