"""Plans: which modules the recipes name, what a model weighs, and rows that cannot be."""

from __future__ import annotations

import pytest

from puna.base.errors import ArtifactError, ConfigError
from puna.model.config import named_size
from puna.quant.plan import HEAD, RECIPES, QuantPlan, describe, from_recipe, from_rows, linear_shapes
from puna.testing import tiny_config

FEED_FORWARD = ("gate_proj", "up_proj", "down_proj")


@pytest.mark.parametrize(("size", "layers"), [("llama-3.1-405b", 126), ("llama-3.1-8b", 32), ("llama-3.2-1b", 16)])
def test_llama_31s_recipe_names_the_feed_forward_layers_but_the_first_and_last(size: str, layers: int) -> None:
    plan = from_recipe("llama3.1-fp8", named_size(size))
    expected = {f"layers.{i}.mlp.{name}" for i in range(1, layers - 1) for name in FEED_FORWARD}
    assert plan.modules == dict.fromkeys(expected, "fp8-cap1200")
    assert plan.format("layers.1.mlp.up_proj").cap == 1200
    assert plan.format("layers.0.mlp.up_proj").name == "bf16"


def test_the_405b_model_weighs_what_metas_files_weigh() -> None:
    # Eight files of 60.904 GB (model.md, section G).
    config = named_size("llama-3.1-405b")
    assert from_recipe("llama3.1-fp8", config).bytes(config) == pytest.approx(8 * 60.904e9, rel=1e-4)


@pytest.mark.parametrize("name", [name for name in RECIPES if name != "llama3.1-fp8"])
def test_the_other_recipes_name_every_matrix_of_the_layers(name: str) -> None:
    config = named_size("llama-3.1-8b")
    plan = from_recipe(name, config)
    assert plan.modules == dict.fromkeys(set(linear_shapes(config)) - {HEAD}, name)
    assert plan.recipe == name


def test_sizes_of_a_one_billion_model() -> None:
    # anchors/inference.md, section 11: 0.81 GB read a token with INT4 g32 and an INT8 head, the embedding apart.
    config = named_size("llama-3.2-1b")
    plan = from_recipe("int4-g32", config, head="int8")
    embedding = 2 * config.vocab_size * config.hidden_size
    assert plan.bytes(config) - embedding == pytest.approx(0.81e9, rel=0.01)
    assert QuantPlan({}).bytes(config) == 2 * 1_235_814_400
    assert from_recipe("int8", config).bits_per_weight(config) == pytest.approx(9.7, abs=0.1)


def test_a_quantised_head_unties_the_embedding() -> None:
    config = tiny_config(tie_word_embeddings=True)
    plan = from_recipe("int8", config, head="int8")
    assert plan.quantizes_head
    assert plan.config(config).tie_word_embeddings is False
    assert "stored apart from the embedding" in describe(plan, config)
    kept = from_recipe("int8", config)
    assert kept.config(config).tie_word_embeddings is True
    assert plan.bytes(config) - kept.bytes(config) == plan.format(HEAD).bytes(config.vocab_size, config.hidden_size)


def test_later_rows_win_and_layers_count_from_the_end() -> None:
    rows = [("layers.*", "int8"), ("layers.-1.*", "fp8"), ("layers.*.q_proj", "bf16"), ("lm_head", "int8-wo")]
    plan = from_rows(rows, tiny_config())
    assert plan.modules["layers.0.mlp.up_proj"] == "int8"
    assert plan.modules["layers.1.mlp.up_proj"] == "fp8"
    assert "layers.0.self_attn.q_proj" not in plan.modules
    assert plan.modules[HEAD] == "int8-wo"
    assert list(plan.formats) == ["int8", "fp8", "int8-wo"]


def test_a_users_rows_win_over_the_recipes() -> None:
    plan = from_recipe(
        "llama3.1-fp8", named_size("llama-3.2-1b"), rows=[("layers.3.*", "bf16"), ("layers.4.mlp.*", "int8")]
    )
    assert "layers.3.mlp.up_proj" not in plan.modules
    assert plan.modules["layers.4.mlp.up_proj"] == "int8"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("layers.*.mlp.up", "int8")], "named 'layers"),
        ([("layers.-9.*", "int8")], "more layers than the model has, which is 2"),
        ([("layers.*", "int5")], "no format 'int5'"),
        ([("layers.*", "int4-g128")], "32 inputs are no multiple of 128"),
        ([("lm_head", "int4-g32")], "8 bits or more"),
    ],
)
def test_rows_that_cannot_be_are_refused(rows: list[tuple[str, str]], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_rows(rows, tiny_config())


def test_an_unknown_recipe_or_module_names_the_nearest() -> None:
    with pytest.raises(ConfigError) as caught:
        from_recipe("llama-3.1-fp8", tiny_config())
    assert "llama3.1-fp8" in caught.value.hint
    with pytest.raises(ConfigError, match="no linear layer") as caught:
        QuantPlan({"layers.0.mlp.up": "int8"}).check(tiny_config())
    assert "layers.0.mlp.up_proj" in caught.value.hint


def test_json_there_and_back() -> None:
    plan = from_recipe("int4-g32", tiny_config(), head="int8")
    assert QuantPlan.from_json(plan.to_json()) == plan
    with pytest.raises(ArtifactError, match="no plan"):
        QuantPlan.from_json({"recipe": "int8"})
    with pytest.raises(ConfigError, match="int9"):
        QuantPlan.from_json({"modules": {"lm_head": "int9"}})
