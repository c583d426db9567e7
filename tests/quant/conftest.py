"""Small models that have learnt something, and the texts that they are measured on.

The three models are trained once for all tests of the room, each in a few seconds, on Puna's own sources as bytes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

import puna
from puna.data.loader import Loader
from puna.data.shards import TokenShards, write_shards
from puna.model.config import ModelConfig
from puna.model.init import initialize
from puna.model.transformer import Transformer
from puna.quant.apply import quantize_model
from puna.quant.calibrate import Calibration
from puna.quant.compare import QuantReport, compare
from puna.quant.plan import from_recipe
from puna.train.objectives import NextToken
from puna.train.optimizer import OptimizerConfig
from puna.train.schedule import ScheduleConfig
from puna.train.trainer import TrainConfig, Trainer

SEEDS = (0, 1, 2)
START = 256
CONTEXT = 128
SHAPE = ModelConfig(
    vocab_size=257,
    hidden_size=128,
    intermediate_size=256,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=1,
    max_position_embeddings=256,
    rope_theta=10_000.0,
    tie_word_embeddings=True,
    bos_token_id=START,
    eos_token_id=(0,),
)


@cache
def pieces(held_out: bool) -> list[list[int]]:
    """Windows of the sources in a fixed order; every tenth file is held out."""
    files = [
        path for room in ("base", "core", "tokenizer", "data") for path in Path(puna.__path__[0], room).rglob("*.py")
    ]
    texts = [path.read_bytes() for i, path in enumerate(sorted(files)) if (i % 10 == 0) == held_out]
    size = CONTEXT - 1
    found = [[START, *text[i : i + size]] for text in texts for i in range(0, len(text) - size, size)]
    return [found[i] for i in np.random.default_rng(0).permutation(len(found))]


FRESH = OptimizerConfig(kind="muon", lr=0.004, muon_lr=0.02)


def fit(
    model: Transformer, shards: TokenShards, steps: int, seed: int, optimizer: OptimizerConfig = FRESH
) -> Transformer:
    """Trains in place with the trainer of the house."""
    config = TrainConfig(steps, optimizer, ScheduleConfig("cosine", warmup_steps=5), dtype="float32", log_every=50)
    source = Loader(shards, CONTEXT, 8 * CONTEXT, 8 * CONTEXT, seed=seed)
    Trainer(model.requires_grad_(True), NextToken(), source, config).fit()
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> TokenShards:
    folder = tmp_path_factory.mktemp("shards") / "tokens"
    return write_shards(folder, [(np.array(piece), None) for piece in pieces(held_out=False)], SHAPE.vocab_size)


@pytest.fixture(scope="session")
def trained(shards: TokenShards) -> Callable[[int], Transformer]:
    """A copy of the model of a seed."""

    @cache
    def train(seed: int) -> Transformer:
        return fit(initialize(Transformer(SHAPE), seed), shards, 80, seed)

    return lambda seed: copy.deepcopy(train(seed))


@pytest.fixture(scope="session")
def calibration() -> Calibration:
    return Calibration(pieces(held_out=False)[:24])


@pytest.fixture(scope="session")
def few_texts() -> Calibration:
    return Calibration(pieces(held_out=False)[:8])


@pytest.fixture(scope="session")
def held_out() -> Calibration:
    return Calibration(pieces(held_out=True)[:64])


@dataclass(frozen=True)
class Quantizer:
    """Quantises the model of a seed and reports what it lost; each combination is worked out once."""

    trained: Callable[[int], Transformer]
    calibration: Calibration
    held_out: Calibration

    def __call__(self, seed: int, recipe: str, method: str = "rtn", head: str = "bf16") -> QuantReport:
        original = self.trained(seed)
        plan = from_recipe(recipe, original.config, head)
        model = quantize_model(self.trained(seed), plan, method, self.calibration)
        return compare(original, model, self.held_out, plan, method)


@pytest.fixture(scope="session")
def report_of(
    trained: Callable[[int], Transformer], calibration: Calibration, held_out: Calibration
) -> Callable[..., QuantReport]:
    return cache(Quantizer(trained, calibration, held_out).__call__)


@pytest.fixture
def ids() -> torch.Tensor:
    """Token ids of `puna.testing.tiny_model`, (2, 40)."""
    return torch.randint(0, 256, (2, 40), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def random_texts() -> Calibration:
    """Texts for `puna.testing.tiny_model`."""
    generator = torch.Generator().manual_seed(1)
    return Calibration([torch.randint(0, 256, (n,), generator=generator).tolist() for n in (40, 7, 90, 33, 64)])
