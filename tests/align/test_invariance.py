"""What must not change a loss or its gradient, for every objective: how a step is cut, packed, and chunked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from puna.align.distil import Distillation
from puna.align.groups import Group, GroupBatch, GroupLoader
from puna.align.losses import DPO
from puna.align.objectives import PairwisePreference
from puna.align.reward import RewardModel
from puna.core.protocols import Objective, StepWide
from puna.data.shards import TokenShards
from puna.model.lora import LoraConfig, apply_lora
from puna.model.transformer import Transformer
from puna.testing import tiny_model
from puna.train.objectives import OBJECTIVES
from puna.train.optimizer import OptimizerConfig
from puna.train.trainer import TrainConfig, Trainer

SHAPES = [(3, 4, 5), (2, 6, 1), (5, 3, 3), (1, 8, 8), (4, 2, 2), (6, 5, 9), (2, 2, 7), (3, 3, 3)]
REWARDS = ("reward", "reward_margins", "outcome_reward")
ALL = ("sft", "dpo", "dpo_meta", "cdpo", "ipo", "simpo", "orpo", "kto", *REWARDS, "gkd")
CHUNKED = tuple(name for name in ALL if name not in (*REWARDS, "sft"))
CONTEXT = 32


def objective_of(name: str) -> Objective:
    return Distillation(tiny_model(7)) if name == "gkd" else OBJECTIVES.get(name)


def model_of(name: str) -> Transformer:
    return RewardModel.of(tiny_model()) if name in REWARDS else tiny_model()


@dataclass
class Case:
    """All rows of a loader, in micro-batches of one size."""

    shards: TokenShards
    groups: list[Group]

    def loader(self, rows: int, context: int = CONTEXT) -> GroupLoader:
        references = -np.random.default_rng(1).random(len(self.shards)).astype(np.float32) * 20
        return GroupLoader(self.shards, self.groups, context, 4 * context, rows * context, references=references)

    def batches(self, rows: int, context: int = CONTEXT) -> list[GroupBatch[Tensor]]:
        loader = self.loader(rows, context)
        parts = range(0, loader.packing.rows, rows)
        every = np.arange(loader.packing.rows)
        return [loader.batch(every[i : i + rows]).map(torch.from_numpy) for i in parts]


@pytest.fixture
def case(make_groups: Callable[..., tuple[TokenShards, list[Group]]]) -> Case:
    return Case(*make_groups(SHAPES, labels=[4.0, 1.0, 0.0, 3.0, 1.0, 0.0, 2.0, 0.0]))


@pytest.fixture
def binary(make_groups: Callable[..., tuple[TokenShards, list[Group]]]) -> Case:
    return Case(*make_groups(SHAPES, labels=[1.0, 0.0] * 4, name="binary"))


def chosen(name: str, case: Case, binary: Case) -> Case:
    return binary if name in ("kto", "outcome_reward") else case


def one_row_each(batch: GroupBatch[Tensor]) -> GroupBatch[Tensor]:
    """The same segments without packing: each has a row to itself, padded to the longest."""
    begins = ((batch.positions == 0) & (batch.document_ids >= 0)).flatten()
    number = torch.where((batch.document_ids >= 0).flatten(), begins.cumsum(0) - 1, -1)
    rows = [(number == segment).nonzero().squeeze(1) for segment in range(int(begins.sum()))]
    shape = len(rows), max(len(row) for row in rows)

    def spread(values: Tensor, padding: int) -> Tensor:
        out = torch.full(shape, padding, dtype=values.dtype)
        for i, row in enumerate(rows):
            out[i, : len(row)] = values.flatten()[row]
        return out

    document_ids = torch.where(spread(batch.positions, -1) >= 0, 0, -1)
    return replace(
        batch,
        ids=spread(batch.ids, 0),
        targets=spread(batch.targets, -1),
        positions=spread(batch.positions, 0),
        document_ids=document_ids,
        loss_mask=spread(batch.loss_mask, 0),
    )


def step_of(
    objective: Objective, model: Transformer, batches: Sequence[GroupBatch[Tensor]]
) -> tuple[float, dict[str, Tensor]]:
    """Loss and gradient of a step, as the trainer makes them."""
    if isinstance(objective, StepWide):
        with torch.no_grad():
            objective = objective.of_step(model, batches)
    count = sum(objective.count(batch) for batch in batches)
    model.zero_grad()
    total = 0.0
    for batch in batches:
        part = objective.loss(model, batch) / count
        part.backward()
        total += float(part.detach())
    return total, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_equal(found: tuple[float, dict[str, Tensor]], expected: tuple[float, dict[str, Tensor]]) -> None:
    assert found[0] == pytest.approx(expected[0], rel=2e-6, abs=1e-6)
    assert found[1].keys() == expected[1].keys()
    largest = max(float(grad.abs().max()) for grad in expected[1].values())
    assert largest > 1e-4
    for name, grad in expected[1].items():
        torch.testing.assert_close(
            found[1][name], grad, atol=2e-6 * max(1.0, largest), rtol=2e-5, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("name", ALL)
def test_micro_batches_change_nothing(name: str, case: Case, binary: Case) -> None:
    data, model, objective = chosen(name, case, binary), model_of(name), objective_of(name)
    whole = data.batches(100)
    assert len(whole) == 1
    expected = step_of(objective, model, whole)
    for rows in (1, 2, 3):
        assert len(data.batches(rows)) > 1
        assert_equal(step_of(objective, model, data.batches(rows)), expected)


@pytest.mark.parametrize("name", ALL)
def test_packing_changes_nothing(name: str, case: Case, binary: Case) -> None:
    data, model, objective = chosen(name, case, binary), model_of(name), objective_of(name)
    (whole,) = data.batches(100)
    expected = step_of(objective, model, [whole])
    alone = one_row_each(whole)
    assert len(alone.ids) == len(data.shards) > len(whole.ids)
    assert_equal(step_of(objective, model, [alone]), expected)
    assert_equal(step_of(objective, model, data.batches(100, context=200)), expected)


@pytest.mark.parametrize("name", CHUNKED)
def test_chunks_of_the_vocabulary_change_nothing(name: str, case: Case, binary: Case) -> None:
    data, model, objective = chosen(name, case, binary), model_of(name), objective_of(name)
    expected = step_of(objective, model, data.batches(100))
    for chunk_tokens in (1, 3, 1000):
        changed: Any = replace(objective, chunk_tokens=chunk_tokens)  # pyright: ignore
        assert_equal(step_of(changed, model, data.batches(100)), expected)


@pytest.mark.parametrize("name", ALL)
def test_recomputed_layers_change_nothing(name: str, case: Case, binary: Case) -> None:
    data, objective = chosen(name, case, binary), objective_of(name)
    steps = []
    for recompute in (False, True):
        config = TrainConfig(steps=1, dtype="float32", recompute=recompute, grad_clip=0)
        loss, norm = Trainer(model_of(name), objective, data.loader(1), config).train_step(0)
        steps.append((float(loss), float(norm)))
    assert steps[1] == pytest.approx(steps[0], rel=1e-5)


@pytest.mark.parametrize("name", ["dpo_meta", "kto", "reward", "gkd"])
def test_the_trainer_takes_the_same_step(name: str, case: Case, binary: Case) -> None:
    data, objective = chosen(name, case, binary), objective_of(name)
    steps = []
    for rows in (1, 4):
        config = TrainConfig(steps=1, dtype="float32", grad_clip=0)
        trainer = Trainer(model_of(name), objective, data.loader(rows), config)
        loss, norm = trainer.train_step(0)
        steps.append((float(loss), float(norm), trainer.counts.tokens))
    assert steps[0] == pytest.approx(steps[1], rel=1e-5)
    assert steps[0][1] > 1e-4


@pytest.mark.parametrize("name", ["dpo_meta", "kto", "reward", "gkd"])
def test_a_run_that_was_cut_off_ends_with_the_same_weights(name: str, case: Case, binary: Case, tmp_path: Path) -> None:
    data, objective = chosen(name, case, binary), objective_of(name)

    def train(steps: int, folder: Path) -> dict[str, Tensor]:
        config = TrainConfig(steps=steps, dtype="float32", optimizer=OptimizerConfig(lr=1e-3))
        model = model_of(name)
        Trainer(model, objective, data.loader(2), config, state_folder=folder).fit()
        return model.state_dict()

    whole = train(6, tmp_path / "whole")
    first = Trainer(
        model_of(name),
        objective,
        data.loader(2),
        TrainConfig(steps=6, dtype="float32", optimizer=OptimizerConfig(lr=1e-3)),
        state_folder=tmp_path / "cut",
    )
    for step in range(3):
        first.train_step(step)
    first.counts.step = 3
    first.save()
    resumed = train(6, tmp_path / "cut")
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


@pytest.mark.parametrize("name", ["dpo_meta", "kto", "reward", "gkd"])
def test_adapters_learn_with_every_objective_and_the_base_stays(name: str, case: Case, binary: Case) -> None:
    data, model = chosen(name, case, binary), model_of(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    apply_lora(model, LoraConfig(rank=4))
    config = TrainConfig(steps=30, dtype="float32", optimizer=OptimizerConfig(lr=5e-3))
    trainer = Trainer(model, objective_of(name), data.loader(4), config)
    first, _ = trainer.train_step(0)
    trainer.fit()
    last, _ = trainer.train_step(0)
    assert float(last) < float(first)
    kept = {key.replace(".base_layer", ""): value for key, value in model.state_dict().items()}
    assert all(torch.equal(kept[key], value) for key, value in before.items())


def test_dpo_learns_what_is_preferred(case: Case) -> None:
    model, loader = tiny_model(), case.loader(4)
    loader.references[:] = 0
    objective = PairwisePreference(DPO(1.0), nll=0.2)
    (batch,) = case.batches(100)
    batch = replace(batch, reference_S=torch.zeros_like(batch.reference_S))
    before = float(objective.loss(model, batch).detach())
    Trainer(model, objective, loader, TrainConfig(steps=60, dtype="float32", optimizer=OptimizerConfig(lr=3e-3))).fit()
    assert float(objective.loss(model, batch).detach()) < before / 4
