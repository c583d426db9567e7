"""The whole way from a float model and texts to a quantised model and a report."""

from __future__ import annotations

import pytest
import torch

from puna.base.errors import ConfigError, InputError
from puna.model.config import named_size
from puna.quant.apply import quantize_model
from puna.quant.job import QuantConfig, compute_dtype, quantize
from puna.quant.plan import QuantPlan, from_recipe
from puna.testing import tiny_model


@pytest.fixture
def texts() -> tuple[list[list[int]], list[list[int]]]:
    generator = torch.Generator().manual_seed(0)
    made = [torch.randint(0, 256, (30,), generator=generator).tolist() for _ in range(20)]
    return made[:15], made[15:]


def test_a_recipe_with_rows_and_a_head(texts: tuple[list[list[int]], list[list[int]]], ids: torch.Tensor) -> None:
    config = QuantConfig("int8", rows=("layers.0.*=fp8", "layers.1.mlp.*=bf16"), head="int8-wo")
    made = quantize(tiny_model, *texts, config)
    rows = [("layers.0.*", "fp8"), ("layers.1.mlp.*", "bf16")]
    assert made.plan == from_recipe("int8", made.original.config, "int8-wo", rows)
    assert made.report.tokens == 5 * 29
    expected = quantize_model(tiny_model(), made.plan)
    with torch.inference_mode():
        assert torch.equal(made.model(ids), expected(ids))
        assert torch.equal(made.original(ids), tiny_model()(ids))


def test_a_budget_of_bytes(texts: tuple[list[list[int]], list[list[int]]]) -> None:
    whole = QuantPlan({}).bytes(tiny_model().config)
    config = QuantConfig("auto", "gptq", budget_bytes=int(0.6 * whole), formats=("int8", "int4-g32"))
    made = quantize(tiny_model, *texts, config)
    assert made.report.bytes_quantized <= 0.6 * whole
    assert made.report.recipe == "auto"


def test_a_budget_has_room_for_the_matrix_that_rotation_unties(
    texts: tuple[list[list[int]], list[list[int]]],
) -> None:
    def tied():
        return tiny_model(tie_word_embeddings=True, intermediate_size=256)

    budget = int(0.95 * QuantPlan({}).bytes(tied().config))
    made = quantize(tied, *texts, QuantConfig("auto", "rotate", budget_bytes=budget, formats=("int4-g32",)))
    assert not made.model.config.tie_word_embeddings
    assert made.report.bytes_quantized <= budget
    with pytest.raises(ConfigError, match="rotation unties"):
        quantize(tied, *texts, QuantConfig("auto", "rotate", budget_bytes=1000))


def test_a_budget_of_quality(texts: tuple[list[list[int]], list[list[int]]]) -> None:
    made = quantize(tiny_model, *texts, QuantConfig("auto", max_kl=1e-3, formats=("int8", "int4-g32")))
    assert len(made.plan.modules) > 0
    assert made.report.kl < 3e-3


def test_texts_that_cannot_be_are_refused_before_the_work(texts: tuple[list[list[int]], list[list[int]]]) -> None:
    with pytest.raises(InputError, match="no tokens"):
        quantize(tiny_model, texts[0], [], QuantConfig("int8"))
    with pytest.raises(InputError, match="holds the id 999"):
        quantize(tiny_model, texts[0], [[1, 999]], QuantConfig("int8"))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"recipe": "auto"}, "needs one budget"),
        ({"recipe": "auto", "budget_bytes": 5, "max_kl": 0.1}, "needs one budget"),
        ({"recipe": "auto", "max_kl": 0.1, "rows": ("a=int8",)}, "takes no rows"),
        ({"recipe": "int8", "max_kl": 0.1}, "A budget is for the recipe 'auto'"),
        ({"rows": ("layers.0.*",)}, "has no '='"),
        ({"method": "best"}, "no quantisation method 'best'"),
    ],
)
def test_settings_that_cannot_be(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        QuantConfig(**values)  # type: ignore[arg-type]


def test_large_models_are_opened_in_bfloat16() -> None:
    assert compute_dtype(named_size("cria-3m")) == "float32"
    assert compute_dtype(named_size("llama-3.2-1b")) == "bfloat16"
    assert compute_dtype(named_size("llama-3.2-1b"), "float32") == "float32"
