"""Folding scales: the float model is unchanged whatever the scales are."""

from __future__ import annotations

import pytest
import torch

from puna.quant.calibrate import Calibration, Stage, stages
from puna.quant.methods.folding import bounded, folds, replace_weight
from puna.quant.methods.method import Work
from puna.quant.plan import QuantPlan, from_recipe
from puna.testing import tiny_model


def first_stage(work: Work) -> Stage:
    return next(stages(work.model, None, head=False))


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_logits_are_unchanged_by_any_scales(groups: int, ids: torch.Tensor) -> None:
    model = tiny_model(num_key_value_heads=groups)
    before = model(ids).detach()
    work = Work(model, from_recipe("int8", model.config))
    generator = torch.Generator().manual_seed(0)
    count = 0
    for stage in stages(model, None, head=False):
        for fold in folds(work, stage):
            width = fold.producer.weight.shape[0]
            fold.apply(torch.exp(torch.randn(width, generator=generator)))
            count += 1
    assert count == 8
    torch.testing.assert_close(model(ids), before, rtol=0, atol=1e-4 * float(before.abs().max()))


def test_heads_that_share_values_share_scales() -> None:
    model = tiny_model()  # four query heads, two value heads of eight channels
    work = Work(model, from_recipe("int8", model.config))
    fold = list(folds(work, first_stage(work)))[1]
    statistic = torch.arange(32.0)
    gathered = fold.gather(statistic)
    assert gathered.tolist() == [*range(8, 16), *range(24, 32)]
    assert fold.spread(gathered).tolist() == [*range(8, 16)] * 2 + [*range(24, 32)] * 2


def test_only_places_with_a_planned_reader_are_folded() -> None:
    model = tiny_model()
    for modules, expected in (
        ({"layers.0.mlp.down_proj": "int8"}, [["layers.0.mlp.down_proj"]]),
        ({"layers.0.self_attn.v_proj": "int8"}, [[f"layers.0.self_attn.{p}_proj" for p in "qkv"]]),
        ({"layers.1.mlp.down_proj": "int8"}, []),
    ):
        work = Work(model, QuantPlan(modules))
        assert [list(fold.readers) for fold in folds(work, first_stage(work))] == expected


def test_the_output_matrix_is_no_place(random_texts: Calibration) -> None:
    model = tiny_model()
    work = Work(model, from_recipe("int8", model.config, head="int8"))
    *_, last = stages(model, random_texts, head=True)
    assert list(folds(work, last)) == []


def test_scales_are_bounded_and_unused_channels_kept() -> None:
    scale = bounded(torch.tensor([4.0, 1.0, 0.0, torch.nan, torch.inf, 1e-30]))
    assert scale.isfinite().all()
    assert scale.tolist() == pytest.approx([4.0, 1.0, 1.0, 1.0, 1.0, 1e-4])
    assert bounded(torch.tensor([8.0, 2.0, 4.0])).tolist() == [2.0, 0.5, 1.0]


def test_replaced_weights_leave_the_old_tensor_alone() -> None:
    linear = torch.nn.Linear(2, 2).to(torch.bfloat16).requires_grad_(False)
    old = linear.weight
    before = old.clone()
    replace_weight(linear, torch.ones(2, 2))
    assert torch.equal(old, before)
    assert linear.weight.dtype == torch.bfloat16
    assert not linear.weight.requires_grad
