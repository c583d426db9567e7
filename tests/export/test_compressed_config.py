"""The table of a plan against the specification, value by value, and tables of others."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from puna.base.errors import CheckpointError
from puna.export.compressed_config import file_format, read_config, scheme, write_config
from puna.model.config import ModelConfig, named_size
from puna.quant.formats import FORMATS
from puna.quant.plan import QuantPlan, from_recipe, from_rows
from puna.testing import tiny_config

CONFIG = tiny_config(hidden_size=128, intermediate_size=256, head_dim=32)
NAMES = ["lm_head.weight"]
QUANTIZED = [format for format in FORMATS.values() if format.strategy != "none"]


def plan_of(*rows: tuple[str, str]) -> QuantPlan:
    return from_rows(rows, CONFIG, "made up")


def table(*rows: tuple[str, str]) -> dict[str, Any]:
    return write_config(plan_of(*rows), CONFIG)


def test_fp8_is_llm_compressors_fp8_dynamic() -> None:
    """The published example of an FP8 checkpoint with a scale for each row and each token."""
    found = table(("layers.*_proj", "fp8"))
    assert found["quant_method"] == "compressed-tensors"
    assert found["format"] == "float-quantized"
    assert found["quantization_status"] == "compressed"
    assert found["ignore"] == ["lm_head"]
    assert found["kv_cache_scheme"] is None
    (group,) = found["config_groups"].values()
    assert list(found["config_groups"]) == ["group_0"]
    assert group["targets"] == ["Linear"]
    expected = {"num_bits": 8, "type": "float", "symmetric": True, "strategy": "channel", "dynamic": False}
    assert group["weights"].items() >= expected.items()
    assert group["weights"]["group_size"] is group["weights"]["block_structure"] is None
    expected = {"num_bits": 8, "type": "float", "symmetric": True, "strategy": "token", "dynamic": True}
    assert group["input_activations"].items() >= expected.items()
    assert group["input_activations"]["observer"] is None
    assert group["output_activations"] is None


@pytest.mark.parametrize(
    ("name", "kind", "weights", "inputs"),
    [
        ("fp8-tensor", "float-quantized", ("float", 8, "tensor", None), ("float", 8, "tensor", None, False)),
        ("fp8-block", "float-quantized", ("float", 8, "block", None), ("float", 8, "group", 128, True)),
        ("int8", "int-quantized", ("int", 8, "channel", None), ("int", 8, "token", None, True)),
        ("int8-wo", "pack-quantized", ("int", 8, "channel", None), None),
        ("int4-g32", "pack-quantized", ("int", 4, "group", 32), None),
        ("int4-g128", "pack-quantized", ("int", 4, "group", 128), None),
    ],
)
def test_every_format_is_a_scheme_of_vllms(name: str, kind: str, weights: tuple[Any, ...], inputs: Any) -> None:
    found = scheme(FORMATS[name])
    assert (found["format"], file_format(FORMATS[name])) == (kind, kind)
    keys = ("type", "num_bits", "strategy", "group_size")
    assert tuple(found["weights"][key] for key in keys) == weights
    assert found["weights"]["block_structure"] == ([128, 128] if name == "fp8-block" else None)
    given = found["input_activations"]
    assert (given and tuple(given[key] for key in (*keys, "dynamic"))) == inputs


@pytest.mark.parametrize("format", QUANTIZED, ids=lambda format: format.name)
def test_a_plan_comes_back(format: Any) -> None:
    plan = plan_of(("layers.*_proj", format.name))
    assert read_config(write_config(plan, CONFIG), CONFIG, NAMES) == plan


def test_a_mixed_plan_names_its_modules_and_comes_back() -> None:
    plan = plan_of(("layers.*_proj", "int4-g32"), ("layers.1.mlp.*", "fp8"), ("lm_head", "int8"))
    found = write_config(plan, CONFIG)
    assert found["format"] == "mixed-precision"
    targets = [group["targets"] for group in found["config_groups"].values()]
    assert ["lm_head"] in targets
    assert [f"model.layers.1.mlp.{part}_proj" for part in ("gate", "up", "down")] in targets
    assert found["ignore"] == []
    assert read_config(found, CONFIG, NAMES) == plan


def test_llama31s_recipe_keeps_its_cap_beside_the_format() -> None:
    config = named_size("llama-3.1-8b")
    plan = from_recipe("llama3.1-fp8", config)
    found = write_config(plan, config)
    assert found["format"] == "float-quantized"
    assert found["config_groups"]["group_0"]["targets"] == ["Linear"]
    assert {"model.layers.0.mlp.up_proj", "model.layers.31.mlp.up_proj", "lm_head"} <= set(found["ignore"])
    assert "model.layers.1.mlp.up_proj" not in found["ignore"]
    assert read_config(found, config, NAMES) == plan
    del found["puna"]
    assert set(read_config(found, config, NAMES).modules.values()) == {"fp8"}, "what others see"


@pytest.mark.parametrize(
    "own", [None, {}, {"modules": 5}, {"modules": {"layers.0.mlp.up_proj": "int8"}}, {"modules": {"x": "y"}}]
)
def test_what_the_groups_say_goes_before_our_own_key(own: Any) -> None:
    found = table(("layers.*_proj", "fp8")) | {"puna": own}
    assert read_config(found, CONFIG, NAMES) == QuantPlan(plan_of(("layers.*_proj", "fp8")).modules)


# Tables of others -----------------------------------------------------------------------------------------------------


def foreign(**changes: Any) -> dict[str, Any]:
    """An int4 table as llm-compressor writes it, with everything that is not needed left out."""
    weights = {"num_bits": 4, "type": "int", "symmetric": True, "group_size": 128, "strategy": "group"}
    group = {"targets": ["Linear"], "weights": weights | changes.pop("weights", {}), "input_activations": None}
    base = {"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": {"group_0": group}}
    return base | {"ignore": ["lm_head"]} | changes


def read(data: Any, config: ModelConfig = CONFIG, names: list[str] = NAMES) -> QuantPlan:
    return read_config(data, config, names)


def test_a_sparse_table_is_enough() -> None:
    assert set(read(foreign()).modules.values()) == {"int4-g128"}
    whole_rows = {"num_bits": 8, "type": "int", "symmetric": True, "group_size": -1, "strategy": "channel"}
    data = foreign(weights=whole_rows)
    assert set(read(data).modules.values()) == {"int8-wo"}


@pytest.mark.parametrize(
    ("ignore", "left"),
    [
        (["lm_head", "model.layers.0.mlp.up_proj"], 13),
        (["re:.*lm_head", r"re:model\.layers\.0\..*"], 7),
        (["lm_head", r"re:.*self_attn.*"], 6),
        ([], 15),
    ],
)
def test_names_and_patterns_are_ignored(ignore: list[str], left: int) -> None:
    assert len(read(foreign(ignore=ignore)).modules) == left if ignore else True
    if not ignore:  # it would quantise the output matrix in 4 bits, which the plan refuses, but the reader reports
        assert "lm_head" in read(foreign(ignore=ignore)).modules


def test_patterns_are_targets() -> None:
    data = foreign()
    data["config_groups"]["group_0"]["targets"] = [r"re:model\.layers\.\d+\.mlp\..*"]
    assert len(read(data).modules) == 6


def test_a_tied_output_matrix_is_not_quantised() -> None:
    assert "lm_head" not in read(foreign(ignore=[]), names=["embed_tokens.weight"]).modules


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"quant_method": "gptq"}, "by the method 'gptq'"),
        ({"format": "nvfp4-pack-quantized"}, "format 'nvfp4-pack-quantized'"),
        ({"quantization_status": "frozen"}, "status is 'frozen'"),
        ({"config_groups": None}, "no table of config_groups"),
        ({"config_groups": {"group_0": ["Linear"]}}, "no table of config_groups"),
        ({"ignore": ["Linear"]}, "names no linear layer"),
        ({"ignore": ["re:("]}, r"holds the pattern 're:\('"),
        ({"weights": {"symmetric": False}}, "scheme 'int 4 group 128' with inputs as they are"),
        ({"weights": {"num_bits": 3}}, "scheme 'int 3 group 128'"),
        ({"weights": {"group_size": 64}}, "scheme 'int 4 group 64'"),
        ({"weights": {"actorder": "group"}}, "scheme 'int 4 group 128'"),
        ({"weights": {"dynamic": True}}, "scheme"),
    ],
)
def test_what_puna_does_not_have_is_refused_by_name(change: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        read(foreign(**change))


def test_inputs_of_a_kind_that_puna_does_not_have() -> None:
    data = copy.deepcopy(foreign())
    data["config_groups"]["group_0"]["input_activations"] = {"num_bits": 8, "type": "float", "strategy": "token"}
    with pytest.raises(CheckpointError, match="inputs rounded by token"):
        read(data)
    with pytest.raises(CheckpointError, match="is no table"):
        read("int4")
