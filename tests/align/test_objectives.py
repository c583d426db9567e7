from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from puna.align.groups import GroupBatch, GroupLoader
from puna.align.logprobs import sequence_logprobs
from puna.align.losses import DPO, KTO
from puna.align.objectives import META_DPO, PairwisePreference, UnpairedPreference, meta_dpo
from puna.align.rendering import write_labelled, write_ranked
from puna.base.errors import ConfigError, InputError
from puna.core.chat import Message
from puna.core.preference import Preference
from puna.core.protocols import Objective, StepWide
from puna.testing import tiny_model, tiny_tokenizer
from puna.train.objectives import OBJECTIVES


def batch_of(make_groups: Callable, shapes: list[tuple[int, ...]]) -> GroupBatch[torch.Tensor]:
    shards, groups = make_groups(shapes, labels=[float(i % 2 == 0) for i in range(len(shapes))])
    loader = GroupLoader(shards, groups, 64, 64, 64)
    return loader.batch(np.arange(loader.packing.rows)).map(torch.from_numpy)


def test_metas_recipe_has_the_numbers_of_the_paper() -> None:
    objective, optimizer = meta_dpo()
    assert objective is META_DPO is OBJECTIVES.get("dpo_meta")
    assert META_DPO.pair_loss == DPO(beta=0.1, label_smoothing=0.0)
    assert (META_DPO.nll, optimizer.lr, optimizer.kind) == (0.2, 1e-5, "adamw")


def test_every_objective_is_found_by_its_name() -> None:
    names = {"dpo", "dpo_meta", "cdpo", "ipo", "simpo", "orpo", "kto"}
    assert names <= set(OBJECTIVES.names())
    assert all(isinstance(OBJECTIVES.get(name), Objective) for name in names)
    assert isinstance(OBJECTIVES.get("kto"), StepWide)
    assert not isinstance(OBJECTIVES.get("dpo"), StepWide)


def test_a_pair_is_the_best_and_the_worst_of_its_group(make_groups: Callable) -> None:
    batch, model = batch_of(make_groups, [(3, 4, 5), (2, 6, 1, 4)]), tiny_model()
    logprobs, tokens = (x.detach() for x in sequence_logprobs(model, batch))
    three = int((batch.rank_S == 2).nonzero()) - 2
    two = 0 if three else 3
    expected = 0.0
    for best, worst in ((two, two + 1), (three, three + 2)):
        margin = 0.1 * (logprobs[best] - logprobs[worst])
        expected += float(torch.log1p(torch.exp(-margin)) - 0.2 * logprobs[best] / tokens[best])
    assert META_DPO.count(batch) == 2
    assert float(META_DPO.loss(model, batch).detach()) == pytest.approx(expected, rel=1e-5)


def test_a_group_of_one_answer_is_no_pair(make_groups: Callable) -> None:
    with pytest.raises(InputError, match="one answer"):
        META_DPO.loss(tiny_model(), batch_of(make_groups, [(3, 4, 5), (2, 6)]))


@pytest.mark.parametrize("settings", [{"nll": -1.0}, {"chunk_tokens": -1}])
def test_settings_out_of_range_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(settings))} is -1"):
        PairwisePreference(**settings)  # pyright: ignore[reportArgumentType]


def test_the_distance_of_kto_is_the_mean_over_the_step_and_has_no_gradient(make_groups: Callable) -> None:
    batch, model = batch_of(make_groups, [(3, 4, 5), (2, 6, 1), (4, 4, 2)]), tiny_model()
    logprobs = sequence_logprobs(model, batch)[0].detach()
    far = batch.rank_S == 1
    batch.reference_S[far] = logprobs[far] - torch.tensor([3.0, -1.0, 7.0])
    objective = UnpairedPreference(KTO(0.2))
    with torch.no_grad():
        step = objective.of_step(model, [batch])
    assert isinstance(step, UnpairedPreference)
    assert step.kl == pytest.approx(3.0, abs=1e-4)
    ratio = (logprobs - batch.reference_S)[~far]
    expected = KTO(0.2)(ratio, batch.label_S[~far] > 0.5, torch.tensor(3.0)).sum()
    torch.testing.assert_close(step.loss(model, batch).detach(), expected)
    torch.testing.assert_close(objective.loss(model, batch).detach(), expected)
    batch.reference_S[far] = logprobs[far] + 5
    with torch.no_grad():
        nearer = objective.of_step(model, [batch])
    assert isinstance(nearer, UnpairedPreference)
    assert nearer.kl == 0


def test_preferences_become_groups(tmp_path: Path) -> None:
    ask, tokenizer = Message("user", "Hi"), tiny_tokenizer()
    answers = [(Message("assistant", text),) for text in ("one", "two", "three", "four", "five")]
    rows = [
        Preference((ask,), answers[0], answers[1], answers[2], strength="significantly"),
        Preference((ask,), answers[3], answers[4]),
    ]
    shards, groups = write_ranked(tmp_path / "ranked", rows, tokenizer)
    said = [tokenizer.decode(shards.ids(i, 0, 99)[shards.mask(i, 0, 99)].tolist()) for i in range(len(shards))]
    assert said == ["three", "one", "two", "four", "five"]
    assert [(group.segments, group.label) for group in groups] == [((0, 1, 2), 4.0), ((3, 4), 0.0)]
    shards, groups = write_labelled(tmp_path / "labelled", rows, tokenizer)
    said = [tokenizer.decode(shards.ids(i, 0, 99)[shards.mask(i, 0, 99)].tolist()) for i in range(len(shards))]
    assert said == ["three", "four", "two", "five", "four", "three", "five", "two"]
    assert [group.label for group in groups] == [1.0, 0.0, 1.0, 0.0]
    with pytest.raises(InputError, match="1 preferences"):
        write_labelled(tmp_path / "one", rows[:1], tokenizer)
