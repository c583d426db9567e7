"""The comparison of a quantised model with its original: against the definition, and on trained models."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import pytest
import torch

from puna.base.errors import InputError
from puna.model.transformer import Transformer
from puna.quant.apply import quantize_model
from puna.quant.calibrate import Calibration, Row
from puna.quant.compare import QuantReport, compare, targets
from puna.quant.plan import QuantPlan, from_recipe
from puna.testing import tiny_model

SEEDS = (0, 1, 2)
Reports = Callable[..., QuantReport]


def logits(model: Transformer, row: Row) -> torch.Tensor:
    with torch.inference_mode():
        return model(row.ids, row.positions, row.document_ids)[0].double()


def test_figures_are_those_of_the_definition(random_texts: Calibration) -> None:
    original, model = tiny_model(), tiny_model()
    plan = from_recipe("int4-g32", model.config, head="int8-wo")
    quantize_model(model, plan)
    report = compare(original, model, random_texts, plan, "rtn")
    kl, old_nll, new_nll, same, count = 0.0, 0.0, 0.0, 0, 0
    for row in random_texts.rows:
        old, new = (logits(each, row).log_softmax(-1) for each in (original, model))
        for t, target in enumerate(targets(row).tolist()):
            if target < 0:
                continue
            kl += float((old[t].exp() * (old[t] - new[t])).sum())
            old_nll, new_nll = old_nll - float(old[t, target]), new_nll - float(new[t, target])
            same += int(old[t].argmax() == new[t].argmax())
            count += 1
    assert report.tokens == count == 40 + 7 + 90 + 33 + 64 - 5
    assert report.kl == pytest.approx(kl / count, rel=1e-3)
    assert report.perplexity_original == pytest.approx(math.exp(old_nll / count), rel=1e-4)
    assert report.perplexity_quantized == pytest.approx(math.exp(new_nll / count), rel=1e-4)
    assert report.top1_agreement == same / count
    assert report.bytes_quantized == plan.bytes(original.config)
    assert report.bytes_original == QuantPlan({}).bytes(original.config)


def test_errors_of_layers_are_relative_to_their_outputs(random_texts: Calibration) -> None:
    original, model = tiny_model(), tiny_model()
    plan = QuantPlan({"layers.1.mlp.up_proj": "int4-g32"})
    quantize_model(model, plan)
    seen: list[list[torch.Tensor]] = [[], []]
    for outputs, each in zip(seen, (original, model), strict=True):
        hook = each.layers[1].register_forward_hook(lambda _, __, out, outputs=outputs: outputs.append(out.detach()))
        for row in random_texts.rows:
            logits(each, row)
        hook.remove()
    old, new = (torch.cat(outputs, 1) for outputs in seen)
    report = compare(original, model, random_texts, plan)
    assert [layer.name for layer in report.layers] == ["layers.0", "layers.1"]
    assert report.layers[0].error == 0
    assert report.layers[1].error == pytest.approx(float((new - old).norm() / old.norm()), rel=1e-3)


def test_a_model_is_no_different_from_itself(random_texts: Calibration) -> None:
    report = compare(tiny_model(), tiny_model(), random_texts, QuantPlan({}))
    assert (report.kl, report.top1_agreement, report.perplexity_change) == (pytest.approx(0, abs=1e-6), 1.0, 0.0)
    assert [layer.error for layer in report.layers] == [0, 0]


def test_a_rotated_models_layers_are_compared_in_the_same_basis(random_texts: Calibration) -> None:
    original, model = tiny_model(), tiny_model()
    plan = QuantPlan({})
    quantize_model(model, plan, "rotate")
    report = compare(original, model, random_texts, plan, "rotate")
    assert max(layer.error for layer in report.layers) < 1e-4
    assert report.kl == pytest.approx(0, abs=1e-5)


def test_the_table_and_json_say_the_same(random_texts: Calibration) -> None:
    model = tiny_model()
    plan = from_recipe("int8", model.config, head="int8")
    report = compare(tiny_model(), quantize_model(model, plan), random_texts, plan)
    data = json.loads(json.dumps(report.to_json()))
    table = report.table()
    assert data["formats"] == {"int8": 15}
    assert "int8, rtn: 15 x int8" in table
    assert f"{data['perplexity_quantized']:.4f}" in table
    assert f"{data['kl']:.6f}" in table
    assert f"{data['perplexity_change']:+.3%}" in table
    assert len({line.index("  ") > 0 for line in table.splitlines()[2:]}) == 1


def test_texts_that_predict_nothing_are_refused() -> None:
    with pytest.raises(InputError, match="no two tokens"):
        compare(tiny_model(), tiny_model(), Calibration([[5], [6]]), QuantPlan({}))


def test_targets_stay_within_their_sequence() -> None:
    calibration = Calibration([[1, 2, 3], [4, 5], [6]])
    (row,) = calibration.rows
    pairs = [(a, b) for a, b in zip(row.ids[0].tolist(), targets(row).tolist(), strict=True) if b >= 0]
    assert sorted(pairs) == [(1, 2), (2, 3), (4, 5)]


# Trained models -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_fp8_and_int8_keep_the_perplexity(seed: int, report_of: Reports) -> None:
    assert report_of(seed, "fp8").perplexity_change < 0.005
    assert report_of(seed, "int8", head="int8").perplexity_change < 0.01
    assert report_of(seed, "int8", head="int8").kl < report_of(seed, "fp8").kl < 0.005


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_gptq_and_awq_are_nearer_than_round_to_nearest_with_four_bits(seed: int, report_of: Reports) -> None:
    nearest, awq, gptq = (report_of(seed, "int4-g128", method) for method in ("rtn", "awq", "gptq"))
    assert awq.kl < 0.9 * nearest.kl
    assert gptq.kl < 0.5 * nearest.kl
    assert gptq.perplexity_quantized < nearest.perplexity_quantized


@pytest.mark.slow
def test_gptq_and_awq_lose_less_perplexity_over_all_seeds(report_of: Reports) -> None:
    lost = {
        method: sum(report_of(seed, "int4-g128", method).perplexity_change for seed in SEEDS)
        for method in ("rtn", "awq", "gptq")
    }
    assert lost["gptq"] < 0.5 * lost["rtn"]
    assert lost["awq"] < 0.9 * lost["rtn"]
