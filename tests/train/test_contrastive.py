"""The contrastive objective against its definition, computed segment by segment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from puna.base.errors import ConfigError
from puna.core.protocols import Objective
from puna.core.tokens import Batch
from puna.data.pairs import Pair, PairLoader
from puna.data.shards import TokenShards
from puna.model.transformer import Transformer
from puna.train.contrastive import Contrastive
from puna.train.optimizer import OptimizerConfig
from puna.train.trainer import TrainConfig, Trainer

Make = Callable[..., Transformer]
MakeShards = Callable[..., TokenShards]
LENGTHS = [6, 9, 4, 7, 3, 5, 2, 4]  # of five passages and three questions
PAIRS = [Pair(5, 0, (1,)), Pair(6, 2, (3,)), Pair(7, 0, (4,))]


@pytest.fixture
def loader(make_shards: MakeShards) -> PairLoader:
    return PairLoader(make_shards(LENGTHS), PAIRS, 16, 1000)


def batch_of(loader: PairLoader) -> Batch[Tensor]:
    (batch,) = loader.micro_batches(0)
    return batch.map(torch.from_numpy)


def vector(model: Transformer, shards: TokenShards, segment: int) -> Tensor:
    ids = torch.from_numpy(shards.ids(segment, 0, 1000).astype(np.int64))[None]
    return model(ids, head=lambda hidden_BTD, _: hidden_BTD)[0].mean(0)


@pytest.mark.parametrize("dimensions", [(), (4, 8), (4096,)])
def test_the_loss_is_the_cross_entropy_of_each_questions_passage(
    tiny_model: Make, loader: PairLoader, dimensions: tuple[int, ...]
) -> None:
    model, temperature = tiny_model(), 0.2
    vectors = [vector(model, loader.shards, segment) for segment in range(len(LENGTHS))]
    passages = torch.stack(vectors[:5])
    sizes = sorted({min(size, passages.shape[1]) for size in (*dimensions, passages.shape[1])})
    losses = []
    for size in sizes:
        total = torch.zeros(())
        for pair in PAIRS:
            cosines = F.cosine_similarity(vectors[pair.question][None, :size], passages[:, :size])
            total = total - (cosines / temperature).log_softmax(0)[pair.passage]
        losses.append(total)
    objective = Contrastive(temperature, dimensions)
    batch = batch_of(loader)
    torch.testing.assert_close(objective.loss(model, batch), torch.stack(losses).mean())
    assert objective.count(batch) == len(PAIRS)
    assert isinstance(objective, Objective)


def test_padding_changes_nothing(tiny_model: Make, loader: PairLoader) -> None:
    model, batch = tiny_model(), batch_of(loader)
    padding = batch.document_ids < 0
    assert padding.any()
    other = replace(batch, ids=torch.where(padding, 7, batch.ids))
    torch.testing.assert_close(Contrastive().loss(model, batch), Contrastive().loss(model, other))


def test_training_brings_questions_to_their_passages(tiny_model: Make, loader: PairLoader) -> None:
    model, objective = tiny_model(), Contrastive()
    with torch.no_grad():
        before = float(objective.loss(model, batch_of(loader)))
    config = TrainConfig(steps=30, optimizer=OptimizerConfig("adamw", lr=3e-3), dtype="float32")
    Trainer(model, objective, loader, config).fit()
    with torch.no_grad():
        assert float(objective.loss(model, batch_of(loader))) < before / 4


def test_settings_that_mean_nothing_are_refused() -> None:
    with pytest.raises(ConfigError, match="temperature is 0"):
        Contrastive(0.0)
    with pytest.raises(ConfigError, match="at least 1"):
        Contrastive(dimensions=(8, 0))
