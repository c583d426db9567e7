"""Sensitivity: each module's divergence against a whole run, choices within their budgets, and none better by much."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Mapping, Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from puna.base.errors import ConfigError
from puna.model.transformer import Transformer
from puna.quant.apply import quantize_model
from puna.quant.calibrate import Calibration
from puna.quant.compare import compare
from puna.quant.plan import QuantPlan, linear_shapes
from puna.quant.sensitivity import Budget, Option, auto_plan, for_bytes, measure, rounded, steps
from puna.testing import tiny_model

FORMATS = ("int8", "int4-g32")


@pytest.mark.parametrize("tied", [False, True])
def test_each_modules_divergence_is_that_of_a_model_with_it_rounded(tied: bool, random_texts: Calibration) -> None:
    model = tiny_model(tie_word_embeddings=tied)
    before = copy.deepcopy(model.state_dict())
    found = measure(model, random_texts, FORMATS)
    assert set(found) == set(linear_shapes(model.config)) - ({"lm_head"} if tied else set())
    for module in ("layers.0.self_attn.v_proj", "layers.1.mlp.down_proj", *([] if tied else ["lm_head"])):
        for option in found[module][1:]:
            plan = QuantPlan({module: option.format})
            changed = quantize_model(tiny_model(tie_word_embeddings=tied), plan)
            assert option.kl == pytest.approx(compare(model, changed, random_texts, plan).kl, rel=1e-3, abs=1e-6)
            assert option.bytes == plan.format(module).bytes(*linear_shapes(model.config)[module])
    assert [option.format for option in found["layers.0.mlp.up_proj"]] == ["bf16", *FORMATS]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_formats_that_do_not_fit_are_left_out(random_texts: Calibration) -> None:
    found = measure(tiny_model(), random_texts, ("int4-g32", "int4-g128"))
    assert [option.format for option in found["layers.0.mlp.up_proj"]] == ["bf16", "int4-g32"]
    assert [option.format for option in found["lm_head"]] == ["bf16"]
    with pytest.raises(ConfigError, match="static scales"):
        measure(tiny_model(), random_texts, ("fp8-tensor",))


@pytest.mark.parametrize("share", [0.5, 0.6, 0.75, 0.9, 1.0])
def test_a_budget_of_bytes_is_met_and_used(share: float, random_texts: Calibration) -> None:
    model = tiny_model(tie_word_embeddings=True, intermediate_size=128)
    whole = QuantPlan({}).bytes(model.config)
    plan = auto_plan(model, random_texts, Budget(bytes=int(share * whole)), FORMATS)
    assert plan.recipe == "auto"
    assert plan.bytes(model.config) <= share * whole
    biggest = max(2 * n * k for n, k in linear_shapes(model.config).values())
    assert plan.bytes(model.config) >= share * whole - biggest
    assert (share == 1.0) == (not plan.modules)


def test_a_budget_that_no_plan_meets_names_the_smallest(random_texts: Calibration) -> None:
    with pytest.raises(ConfigError, match=r"The budget is 10\.0 KiB; the smallest plan has") as caught:
        auto_plan(tiny_model(), random_texts, Budget(bytes=10_240), FORMATS)
    assert "budget-bytes" in caught.value.hint


@pytest.mark.slow
def test_a_budget_of_quality_is_met_and_used(trained: Callable[[int], Transformer], few_texts: Calibration) -> None:
    model = trained(0)
    most = 0.004
    plan = auto_plan(model, few_texts, Budget(kl=most), FORMATS)
    assert set(plan.formats) == set(FORMATS)
    quantized = quantize_model(copy.deepcopy(model), plan)
    found = compare(model, quantized, few_texts, plan).kl
    assert most / 2 < found <= most * 1.001


@pytest.mark.slow
def test_a_mixed_plan_is_nearer_than_one_format_of_the_same_size(
    trained: Callable[[int], Transformer], few_texts: Calibration, held_out: Calibration
) -> None:
    model = trained(1)
    linears = list(linear_shapes(model.config))[:-1]
    halved = QuantPlan({name: "int4-g32" if i < len(linears) // 2 else "int8" for i, name in enumerate(linears)})
    mixed = auto_plan(model, few_texts, Budget(bytes=halved.bytes(model.config)), FORMATS)
    found = [compare(model, quantize_model(copy.deepcopy(model), plan), held_out, plan).kl for plan in (mixed, halved)]
    assert found[0] < 0.9 * found[1]


# Choosing -------------------------------------------------------------------------------------------------------------


def best(found: Mapping[str, Sequence[Option]], budget: int) -> float:
    """The least sum of divergences within a budget, by trying all."""
    return min(
        sum(option.kl for option in chosen)
        for chosen in itertools.product(*found.values())
        if sum(option.bytes for option in chosen) <= budget
    )


@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1), st.integers(1, 9)), min_size=1, max_size=5),
    st.floats(0.3, 1.0),
)
@settings(max_examples=60)
def test_the_greedy_choice_is_the_best_to_within_one_step(
    modules: list[tuple[float, float, int]], share: float
) -> None:
    found = {
        str(i): [Option("bf16", 160 * size, 0.0), Option("int8", 80 * size, a), Option("int4-g32", 45 * size, a + b)]
        for i, (a, b, size) in enumerate(modules)
    }
    whole = sum(options[0].bytes for options in found.values())
    budget = int(share * whole)
    path, size, kl, last = steps(found), whole, 0.0, 0.0
    for step in path:
        if size <= budget:
            break
        size, last = size - step.saved, step.price * step.saved
        kl += last
    assert size <= budget
    assert [step.price for step in path] == sorted(step.price for step in path)
    # Without its last step the path would be the optimum of a larger budget, so the optimum costs at least that.
    assert best(found, budget) >= kl - last - 1e-9


def test_a_step_that_a_later_one_makes_needless_is_taken_back() -> None:
    model = tiny_model(tie_word_embeddings=True)
    whole = QuantPlan({}).bytes(model.config)
    small, large = "layers.0.self_attn.k_proj", "layers.0.mlp.up_proj"
    sizes = {name: 2 * n * k for name, (n, k) in linear_shapes(model.config).items()}
    found = {
        small: [Option("bf16", sizes[small], 0.0), Option("int8", sizes[small] // 2, 0.001)],
        large: [Option("bf16", sizes[large], 0.0), Option("int8", sizes[large] // 2, 0.1)],
    }
    assert for_bytes(found, model, whole - sizes[small] // 2 - 1).modules == {large: "int8"}
    assert for_bytes(found, model, whole - sizes[small] // 2).modules == {small: "int8"}


@pytest.mark.parametrize("values", [{}, {"bytes": 5, "kl": 0.1}, {"bytes": 0}, {"kl": -1.0}])
def test_budgets_that_cannot_be(values: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        Budget(**values)  # type: ignore[arg-type]


def test_layers_come_back_when_a_trial_fails() -> None:
    model = tiny_model()
    layer = model.get_submodule("layers.0.mlp.up_proj")
    with pytest.raises(RuntimeError, match="stop"), rounded(model, QuantPlan({"layers.0.mlp.up_proj": "int8"})):
        assert model.get_submodule("layers.0.mlp.up_proj") is not layer
        raise RuntimeError("stop")
    assert model.get_submodule("layers.0.mlp.up_proj") is layer
