from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from puna.align.groups import GroupBatch, GroupLoader
from puna.align.reward import LLAMA2_MARGINS, OutcomeReward, Ranking, RewardModel, rewards
from puna.testing import tiny_model


def batch_of(make_groups: Callable, labels: list[float]) -> GroupBatch[torch.Tensor]:
    shards, groups = make_groups([(3, 4, 5), (2, 6, 1, 4), (5, 3, 3)], labels=labels)
    loader = GroupLoader(shards, groups, 64, 64, 64, references=np.arange(7).astype(np.float32))
    return loader.batch(np.arange(loader.packing.rows)).map(torch.from_numpy)


@pytest.mark.parametrize("tied", [False, True])
def test_a_reward_is_read_at_the_last_token(make_groups: Callable, tied: bool) -> None:
    language = tiny_model(tie_word_embeddings=tied)
    model, batch = RewardModel.of(language), batch_of(make_groups, [1.0, 1.0, 1.0])
    assert "lm_head.weight" not in model.state_dict()
    found = rewards(model, batch)
    for value, row, number in zip(found, *segments(batch), strict=True):
        ids = batch.ids[row][batch.document_ids[row] == number]
        hidden = language(ids[None], head=lambda hidden, _: hidden)
        torch.testing.assert_close(value, hidden[0, -1] @ model.score.weight[0], atol=1e-5, rtol=1e-5)


def segments(batch: GroupBatch[torch.Tensor]) -> tuple[list[int], list[int]]:
    pairs = [(row, n) for row in range(len(batch.ids)) for n in range(int(batch.document_ids[row].max()) + 1)]
    return [row for row, _ in pairs], [n for _, n in pairs]


@pytest.mark.parametrize("margins", [{}, LLAMA2_MARGINS])
def test_every_better_answer_is_told_from_every_worse_one(make_groups: Callable, margins: dict[float, float]) -> None:
    batch = batch_of(make_groups, [4.0, 3.0, 1.0])
    model, objective = RewardModel.of(tiny_model()), Ranking(margins)
    by_segment = dict(zip(batch.reference_S.int().tolist(), rewards(model, batch), strict=True))
    margin = [margins.get(label, 0.0) for label in (4.0, 3.0, 1.0)]
    ordered = [(0, 1, 0), (2, 3, 1), (2, 4, 1), (3, 4, 1), (5, 6, 2)]
    expected = sum(-F.logsigmoid(by_segment[a] - by_segment[b] - margin[g]) for a, b, g in ordered)
    assert objective.count(batch) == 5
    torch.testing.assert_close(objective.loss(model, batch), torch.as_tensor(expected))


def test_outcomes_are_learnt_answer_by_answer(make_groups: Callable) -> None:
    batch = batch_of(make_groups, [1.0, 0.0, 1.0])
    model = RewardModel.of(tiny_model())
    labels = torch.tensor([[1, 1, 0, 0, 0, 1, 1][int(s)] for s in batch.reference_S]).float()
    expected = F.binary_cross_entropy_with_logits(rewards(model, batch), labels, reduction="sum")
    assert OutcomeReward().count(batch) == 7
    torch.testing.assert_close(OutcomeReward().loss(model, batch), expected)
