from __future__ import annotations

import pytest
import torch

from puna.core.completion import SamplingParams
from puna.engine.engine import Engine
from puna.engine.prepare import FusedAttention, FusedMLP, FusedNorm, KernelLinear, prepare
from puna.engine.sequence import Request
from puna.kernels.build import library
from puna.model.transformer import shapes
from puna.testing import tiny_model

pytestmark = pytest.mark.skipif(library() is None, reason="the kernels cannot be compiled here")
IDS = torch.randint(0, 250, (1, 40), generator=torch.Generator().manual_seed(0))


@torch.inference_mode()
def test_a_prepared_model_computes_what_it_did():
    expected = tiny_model(2)(IDS)
    assert torch.allclose(prepare(tiny_model(2))(IDS), expected, atol=1e-4)


@torch.inference_mode()
def test_in_bfloat16_it_differs_by_its_rounding_alone():
    exact, plain = tiny_model(2)(IDS), tiny_model(2).bfloat16()(IDS)
    prepared = prepare(tiny_model(2).bfloat16())(IDS)
    assert (prepared - exact).norm() < 1.2 * (plain - exact).norm()


def test_its_parts_are_swapped_and_its_parameters_stay():
    model = tiny_model(2).bfloat16()
    before = dict(model.named_parameters())
    prepare(model)
    after = dict(model.named_parameters())
    assert after.keys() == before.keys() == shapes(model.config).keys()
    assert all(after[name] is before[name] for name in before)
    kinds = {type(module) for module in model.modules()}
    assert {FusedAttention, FusedMLP, FusedNorm, KernelLinear} <= kinds
    assert torch.nn.Linear not in kinds


def test_float32_products_are_left_to_torch():
    assert KernelLinear not in {type(module) for module in prepare(tiny_model(2)).modules()}


@pytest.mark.parametrize("length", [3, 60])
def test_prepared_generation_is_that_of_the_plain_model(length: int):
    def tokens(model: torch.nn.Module) -> list[int]:
        engine = Engine(model, {}, 250)  # type: ignore[arg-type]
        prompt = tuple((7 * i) % 250 for i in range(length))
        sequence = engine.add(Request(prompt, SamplingParams(temperature=0, max_tokens=30)))
        while not sequence.ended:
            engine.step()
        return sequence.ids

    assert tokens(prepare(tiny_model(2))) == tokens(tiny_model(2))
