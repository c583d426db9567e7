from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from puna.align.distil import Distillation, generalised_jsd
from puna.align.groups import GroupLoader
from puna.base.errors import ConfigError, InputError
from puna.testing import tiny_model


def logits(seed: int) -> torch.Tensor:
    return torch.randn(5, 11, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("beta", [0.0, 0.3, 0.5, 1.0])
def test_the_divergence_is_zero_between_equals_and_above_it_otherwise(beta: float) -> None:
    assert torch.allclose(generalised_jsd(logits(0), logits(0), beta), torch.zeros(5, dtype=torch.float64), atol=1e-12)
    assert (generalised_jsd(logits(0), logits(1), beta) > 0.01).all()


def test_at_its_ends_it_is_the_divergence_either_way() -> None:
    student, teacher = (logits(seed).softmax(-1) for seed in (0, 1))
    forward, backward = (teacher * (teacher / student).log()).sum(-1), (student * (student / teacher).log()).sum(-1)
    assert torch.allclose(generalised_jsd(logits(0), logits(1), 0), forward)
    assert torch.allclose(generalised_jsd(logits(0), logits(1), 1), backward)


def test_a_step_learns_marked_tokens_from_the_teacher_alone(make_groups: Callable) -> None:
    shards, groups = make_groups([(3, 4, 5), (2, 6, 1)])
    loader = GroupLoader(shards, groups, 48, 48, 48)
    batch = loader.batch(np.arange(loader.packing.rows)).map(torch.from_numpy)
    student, teacher = tiny_model(), tiny_model(1)
    objective = Distillation(teacher, temperature=2.0)
    arrays = batch.ids, batch.positions, batch.document_ids
    ours, theirs = (model(*arrays)[batch.loss_mask] / 2.0 for model in (student, teacher))
    expected = generalised_jsd(ours, theirs, 0.5).sum()
    loss = objective.loss(student, batch)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert all(p.grad is None for p in teacher.parameters())
    assert objective.count(batch) == int(batch.loss_mask.sum()) == 16
    nothing = replace(batch, loss_mask=torch.zeros_like(batch.loss_mask))
    empty = objective.loss(student, nothing)
    empty.backward()
    assert empty == 0


def test_unfit_settings_and_teachers_are_refused(make_groups: Callable) -> None:
    with pytest.raises(ConfigError, match=r"beta is 1\.5"):
        Distillation(tiny_model(), beta=1.5)
    with pytest.raises(ConfigError, match=r"temperature is 0\.0"):
        Distillation(tiny_model(), temperature=0.0)
    shards, groups = make_groups([(3, 4, 5)])
    batch = GroupLoader(shards, groups, 48, 48, 48).batch(np.arange(1)).map(torch.from_numpy)
    with pytest.raises(InputError, match="has 272 ids, the teacher's 300"):
        Distillation(tiny_model(vocab_size=300)).loss(tiny_model(), batch)
