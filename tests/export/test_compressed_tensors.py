"""Quantised folders: there and back, mapped, damaged, and of others.

That transformers gives the same logits is checked in `test_verify.py`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import torch as safetensors_torch

from puna.base.card import Card
from puna.base.errors import CheckpointError, ConfigError
from puna.export import compressed_tensors
from puna.model import hf
from puna.model.checkpoint import Checkpoint
from puna.quant.formats import FORMATS
from puna.quant.plan import QuantPlan
from puna.testing import tiny_model, tiny_tokenizer

from .conftest import Quantized, equal_tensors

Make = Callable[..., Quantized]
IDS = torch.arange(3, 43).view(2, 20)
MIXED = [("layers.*_proj", "int4-g32"), ("layers.0.mlp.*", "fp8-tensor"), ("layers.1.self_attn.*", "int8-wo")]


def saved(made: Quantized, folder: Path, **more: Any) -> Path:
    compressed_tensors.save(folder, *made, "float32", **more)
    return folder


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "bf16"])
def test_every_format_comes_back_bit_by_bit(quantized: Make, tmp_path: Path, name: str) -> None:
    made = quantized(name)
    config, plan, weights = compressed_tensors.load(saved(made, tmp_path / "a"))
    assert config == made.model.config
    assert plan == made.plan
    state = made.model.state_dict()
    assert set(weights) == set(state)
    assert all(equal_tensors(weights[key], state[key]) for key in state)
    with torch.no_grad():
        assert torch.equal(compressed_tensors.load_model(tmp_path / "a", "float32")(IDS), made.model(IDS))


@pytest.mark.parametrize("rows", [MIXED, [*MIXED, ("lm_head", "int8")], [("lm_head", "fp8")]])
@pytest.mark.parametrize("tied", [False, True])
def test_mixed_plans_and_output_matrices_come_back(quantized: Make, tmp_path: Path, rows: Any, tied: bool) -> None:
    made = quantized(rows, tie_word_embeddings=tied)
    config, plan, _ = compressed_tensors.load(saved(made, tmp_path / "a"))
    assert plan == made.plan
    assert config.tie_word_embeddings == (tied and not plan.quantizes_head)
    with torch.no_grad():
        assert torch.equal(compressed_tensors.load_model(tmp_path / "a", "float32")(IDS), made.model(IDS))


def test_an_odd_width_of_packed_int8_comes_back(quantized: Make, tmp_path: Path) -> None:
    made = quantized([("layers.*.mlp.down_proj", "int8-wo")], intermediate_size=250)
    weights = compressed_tensors.load(saved(made, tmp_path / "a"))[2]
    key = "layers.0.mlp.down_proj.weight"
    assert equal_tensors(weights[key], made.model.state_dict()[key])


def test_names_and_dtypes_are_those_of_the_format(quantized: Make, tmp_path: Path) -> None:
    """Read with the safetensors library, so that nothing of ours stands between."""
    compressed_tensors.save(tmp_path / "a", *quantized(MIXED))
    found = safetensors_torch.load_file(tmp_path / "a" / "model.safetensors")
    up, q, k = (f"model.layers.{name}_proj" for name in ("0.mlp.up", "0.self_attn.q", "1.self_attn.k"))
    shapes = {name: (found[name].dtype, tuple(found[name].shape)) for name in found}
    assert shapes[f"{up}.weight"] == (torch.float8_e4m3fn, (256, 128))
    assert shapes[f"{up}.weight_scale"] == shapes[f"{up}.input_scale"] == (torch.float32, (1,))
    assert shapes[f"{q}.weight_packed"] == (torch.int32, (128, 16))
    assert shapes[f"{q}.weight_scale"] == (torch.bfloat16, (128, 4))
    assert found[f"{q}.weight_shape"].tolist() == [128, 128]
    assert shapes[f"{k}.weight_packed"] == (torch.int32, (64, 32))
    assert shapes[f"{k}.weight_scale"] == (torch.float32, (64, 1))
    assert shapes["lm_head.weight"][0] == torch.bfloat16
    assert shapes["model.norm.weight"] == (torch.bfloat16, (128,))


def test_stored_numbers_stay_in_the_file(quantized: Make, tmp_path: Path) -> None:
    weights = compressed_tensors.load(saved(quantized("int8"), tmp_path / "a"))[2]
    for key in ("weight", "weight_scale"):
        name = f"layers.1.mlp.down_proj.{key}"
        assert weights[name].data_ptr() == weights[name].data_ptr(), "two looks at one mapping, no copies"


def test_the_tokenizer_and_the_card_come_along(quantized: Make, tmp_path: Path) -> None:
    made = quantized("int8")
    saved(made, tmp_path / "a")
    card = Card.read(tmp_path / "a")
    assert card.inputs == {"checkpoint": "abc"}
    assert QuantPlan.from_json(card.config["plan"]) == made.plan
    after = compressed_tensors.load_dequantized(tmp_path / "a")
    assert after.tokenizer == tiny_tokenizer()
    assert after.generation["top_p"] == 0.9
    saved(made, tmp_path / "a", card=Card("checkpoint", metrics={"perplexity": 3.0}))
    assert Card.read(tmp_path / "a").metrics == {"perplexity": 3.0}


def test_many_files_with_an_index(quantized: Make, tmp_path: Path) -> None:
    made = quantized("int4-g32")
    saved(made, tmp_path / "a", max_shard_bytes=60_000)
    assert (tmp_path / "a" / hf.INDEX).exists()
    assert set(compressed_tensors.load(tmp_path / "a")[2]) == set(made.model.state_dict())


@pytest.mark.parametrize("rows", ["fp8-block", "int8-wo", MIXED])
def test_a_quantised_folder_is_an_ordinary_checkpoint_when_written_out(
    quantized: Make, tmp_path: Path, rows: Any
) -> None:
    made = quantized(rows)
    after = compressed_tensors.load_dequantized(saved(made, tmp_path / "a"), "float32")
    for module in made.plan.modules:
        expected = made.model.get_submodule(module).dequantized()  # type: ignore[operator]
        assert torch.equal(after.weights[f"{module}.weight"], expected)
    after.save(tmp_path / "b")
    assert Checkpoint.load(tmp_path / "b").config == made.model.config


def test_is_quantized(quantized: Make, tmp_path: Path) -> None:
    assert compressed_tensors.is_quantized(saved(quantized(), tmp_path / "a"))
    Checkpoint.of(tiny_model()).save(tmp_path / "b")
    assert not compressed_tensors.is_quantized(tmp_path / "b")
    assert not compressed_tensors.is_quantized(tmp_path / "nothing")


# Errors ---------------------------------------------------------------------------------------------------------------


def test_a_plan_for_nothing_is_refused_before_anything_is_written(quantized: Make, tmp_path: Path) -> None:
    made = quantized()
    with pytest.raises(ConfigError, match="quantises no layer"):
        compressed_tensors.save(tmp_path / "a", made.model, QuantPlan({}))
    assert not (tmp_path / "a").exists()


def test_an_ordinary_checkpoint_is_refused_with_the_way_out(tmp_path: Path) -> None:
    Checkpoint.of(tiny_model()).save(tmp_path / "a")
    with pytest.raises(CheckpointError, match=r"not quantised(.|\n)*Checkpoint\.load"):
        compressed_tensors.load(tmp_path / "a")
    with pytest.raises(CheckpointError, match=r"holds no config\.json"):
        compressed_tensors.load(tmp_path)


def rewrite(folder: Path, change: Callable[[dict[str, torch.Tensor]], Mapping[str, torch.Tensor]]) -> None:
    path = folder / hf.SINGLE
    safetensors_torch.save_file(dict(change(safetensors_torch.load_file(path))), path)


UP = "model.layers.0.mlp.up_proj"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: {k: v for k, v in t.items() if k != f"{UP}.weight_scale"},
            r"missing \(layers.0.mlp.up_proj.weight_",
        ),
        (lambda t: t | {f"{UP}.weight_zero_point": torch.zeros(1)}, "unexpected .*weight_zero_point"),
        (lambda t: t | {f"{UP}.weight_scale": torch.ones(8)}, "wrong shape .*weight_scale"),
        (lambda t: t | {f"{UP}.weight": t[f"{UP}.weight"][:, :64].contiguous()}, "wrong shape .*up_proj.weight"),
        (lambda t: t | {f"{UP}.weight": t[f"{UP}.weight"].float()}, "up_proj.weight as torch.float32; .*float8_e4m3fn"),
        (lambda t: t | {f"{UP}.weight_scale": torch.ones(256, 1, dtype=torch.int8)}, "weight_scale as torch.int8"),
    ],
)
def test_tensors_that_do_not_fit_are_named(quantized: Make, tmp_path: Path, change: Any, message: str) -> None:
    folder = saved(quantized("fp8"), tmp_path / "a")
    rewrite(folder, change)
    with pytest.raises(CheckpointError, match=message):
        compressed_tensors.load(folder)


def test_a_config_of_another_kind_names_the_folder(quantized: Make, tmp_path: Path) -> None:
    folder = saved(quantized("fp8"), tmp_path / "a")
    data = json.loads((folder / "config.json").read_text())
    for changes, message in (
        ({"quantization_config": {"quant_method": "awq"}}, "by the method 'awq'"),
        ({"model_type": "qwen3"}, "model_type"),
        ({"num_hidden_layers": 1 << 40}, "announces"),
        ({"num_key_value_heads": 3}, "must divide"),
    ):
        (folder / "config.json").write_text(json.dumps(data | changes))
        with pytest.raises(CheckpointError, match=message) as caught:
            compressed_tensors.load(folder)
        assert str(folder) in caught.value.message


@settings(max_examples=40)
@given(data=st.data())
def test_weights_cut_off_anywhere_give_one_clear_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.getbasetemp() / "cut"
    if not folder.exists():
        model = tiny_model()
        checkpoint = Checkpoint.of(tiny_model())
        from puna.quant.apply import quantize_model
        from puna.quant.plan import from_rows

        plan = from_rows([("layers.*_proj", "int8")], model.config)
        compressed_tensors.save(folder, quantize_model(model, plan), plan, checkpoint)
        (folder / "whole").write_bytes((folder / hf.SINGLE).read_bytes())
    whole = (folder / "whole").read_bytes()
    (folder / hf.SINGLE).write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        compressed_tensors.load(folder)


def places(data: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value in a JSON value."""
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [at, *(place for key, value in items for place in places(value, (*at, key)))]


def replaced(data: Any, place: tuple[Any, ...], value: Any) -> Any:
    """A copy of a JSON value with another value at a place."""
    if not place:
        return value
    copy = dict(data) if isinstance(data, dict) else list(data)
    copy[place[0]] = replaced(data[place[0]], place[1:], value)
    return copy


@pytest.mark.parametrize("value", [None, "x", 5, -1, 1 << 70, 0.5, True, [], ["x"], {}, {"a": 1}])
def test_any_other_value_in_the_config_gives_another_model_or_a_clear_error(
    quantized: Make, tmp_path: Path, value: Any
) -> None:
    folder = saved(quantized([("layers.*.mlp.*", "int4-g32"), ("layers.0.self_attn.*", "fp8")]), tmp_path / "a")
    data = json.loads((folder / "config.json").read_text())
    refused = 0
    for place in places(data)[1:]:
        (folder / "config.json").write_text(json.dumps(replaced(data, place, value)))
        try:
            compressed_tensors.load(folder)
        except CheckpointError:
            refused += 1
    assert refused > 10


# Folders of others ----------------------------------------------------------------------------------------------------


def test_scales_of_others_become_ours(quantized: Make, tmp_path: Path) -> None:
    """llm-compressor stores the scales of rows in bfloat16, and those of a matrix sometimes as scalars."""
    folder = saved(quantized("fp8-tensor"), tmp_path / "a")
    rewrite(folder, lambda t: {k: v.bfloat16().view(()) if "_scale" in k else v for k, v in t.items()})
    weights = compressed_tensors.load(folder)[2]
    for key in ("weight_scale", "input_scale"):
        found = weights[f"layers.0.mlp.up_proj.{key}"]
        assert (found.dtype, tuple(found.shape)) == (torch.float32, (1,))
    assert torch.isfinite(compressed_tensors.load_model(folder)(IDS)).all()


def test_int8_that_is_not_packed_is_read_too(quantized: Make, tmp_path: Path) -> None:
    made = quantized("int8-wo")
    folder = saved(made, tmp_path / "a")
    state = made.model.state_dict()

    def unpacked(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        kept = {k: v for k, v in tensors.items() if not k.endswith(("_packed", "_shape"))}
        return kept | {f"model.{m}.weight": state[f"{m}.weight"] for m in made.plan.modules}

    rewrite(folder, unpacked)
    weights = compressed_tensors.load(folder)[2]
    assert all(equal_tensors(weights[key], state[key]) for key in state)


def test_scales_of_a_cache_and_old_tables_are_read_over(quantized: Make, tmp_path: Path) -> None:
    folder = saved(quantized("int8"), tmp_path / "a")
    extras = {"model.layers.0.self_attn.k_scale": torch.ones(1), "model.layers.0.self_attn.v_scale": torch.ones(1)}
    extras["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(16)
    rewrite(folder, lambda t: t | extras)
    assert not any("k_scale" in name or "inv_freq" in name for name in compressed_tensors.load(folder)[2])


def test_a_tied_model_may_hold_its_embedding_twice(quantized: Make, tmp_path: Path) -> None:
    folder = saved(quantized("int8", tie_word_embeddings=True), tmp_path / "a")
    rewrite(folder, lambda t: t | {"lm_head.weight": t["model.embed_tokens.weight"].clone()})
    config, _, weights = compressed_tensors.load(folder)
    assert config.tie_word_embeddings
    assert "lm_head.weight" not in set(weights)
