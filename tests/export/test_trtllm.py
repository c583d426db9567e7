"""ModelOpt's layout: the file as published, tensors there and back, and plans that it cannot express."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import torch as safetensors_torch

from puna.base.errors import CheckpointError, ConfigError
from puna.export import compressed_tensors, trtllm
from puna.model import hf

from .conftest import Quantized, equal_tensors

Make = Callable[..., Quantized]
UP = "model.layers.1.mlp.up_proj"


@pytest.mark.parametrize(
    ("name", "algorithm", "scale"), [("fp8-tensor", "FP8", ()), ("fp8", "FP8_PER_CHANNEL_PER_TOKEN", (256,))]
)
def test_the_layout_is_modelopts(quantized: Make, tmp_path: Path, name: str, algorithm: str, scale: Any) -> None:
    trtllm.save(tmp_path / "a", *quantized(name))
    found = json.loads((tmp_path / "a" / "hf_quant_config.json").read_text())
    assert found["producer"]["name"] == "modelopt"
    assert found["quantization"] == {
        "quant_algo": algorithm,
        "kv_cache_quant_algo": None,
        "exclude_modules": ["lm_head"],
    }
    inline = json.loads((tmp_path / "a" / "config.json").read_text())["quantization_config"]
    assert (inline["quant_method"], inline["quant_algo"], inline["ignore"]) == ("modelopt", algorithm, ["lm_head"])
    tensors = safetensors_torch.load_file(tmp_path / "a" / hf.SINGLE)
    assert tensors[f"{UP}.weight"].dtype == torch.float8_e4m3fn
    assert tensors[f"{UP}.weight_scale"].dtype == torch.float32
    assert tuple(tensors[f"{UP}.weight_scale"].shape) == scale
    assert (f"{UP}.input_scale" in tensors) == (name == "fp8-tensor")
    assert tensors["lm_head.weight"].dtype == torch.bfloat16


@pytest.mark.parametrize("rows", ["fp8", "fp8-tensor", [("layers.*.mlp.*_proj", "fp8-tensor")]])
def test_a_model_comes_back(quantized: Make, tmp_path: Path, rows: Any) -> None:
    made = quantized(rows)
    trtllm.save(tmp_path / "a", *made, "float32", max_shard_bytes=80_000)
    config, plan, weights = trtllm.load(tmp_path / "a")
    assert config == made.model.config
    assert plan.modules == made.plan.modules
    state = made.model.state_dict()
    assert set(weights) == set(state)
    assert all(equal_tensors(weights[key], state[key]) for key in state)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("int8", "has the format int8; the TensorRT-LLM layout has fp8-tensor and fp8"),
        ("fp8-cap1200", "has the format fp8-cap1200"),
        ([("layers.*_proj", "fp8"), ("layers.0.mlp.down_proj", "fp8-tensor")], "formats fp8 and fp8-tensor"),
        ([("layers.*_proj", "fp8"), ("lm_head", "fp8")], "quantises lm_head"),
        ([("layers.*.mlp.up_proj", "fp8")], "only some of layers.0.mlp.gate_proj, layers.0.mlp.up_proj"),
    ],
)
def test_other_plans_are_refused_with_a_way_out(quantized: Make, tmp_path: Path, rows: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        trtllm.save(tmp_path / "a", *quantized(rows))
    assert "--to compressed-tensors" in caught.value.hint
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"quantization": {"quant_algo": "NVFP4"}}, "algorithm 'NVFP4'; Puna reads FP8"),
        ({"quantization": 5}, "does not have the form"),
        ({"quantization": {}}, "does not have the form"),
        ({"quantization": {"quant_algo": "FP8", "exclude_modules": ["lm_head", "model.layers.0*"]}}, "does not fit"),
        ({"quantization": {"quant_algo": "FP8_PER_CHANNEL_PER_TOKEN", "exclude_modules": ["lm_head"]}}, "does not fit"),
    ],
)
def test_a_file_that_says_otherwise_is_refused(quantized: Make, tmp_path: Path, change: Any, message: str) -> None:
    trtllm.save(tmp_path / "a", *quantized("fp8-tensor"))
    path = tmp_path / "a" / trtllm.FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(CheckpointError, match=message):
        trtllm.load(tmp_path / "a")


def test_missing_files_and_other_numbers_are_refused(quantized: Make, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"hf_quant_config\.json"):
        trtllm.load(tmp_path)
    trtllm.save(tmp_path / "a", *quantized("fp8-tensor"))
    path = tmp_path / "a" / hf.SINGLE
    tensors = safetensors_torch.load_file(path)
    safetensors_torch.save_file(tensors | {f"{UP}.weight": tensors[f"{UP}.weight"].bfloat16()}, path)
    with pytest.raises(CheckpointError, match=r"up_proj\.weight as torch\.bfloat16"):
        trtllm.load(tmp_path / "a")


def test_other_readers_are_told_that_it_is_quantised(quantized: Make, tmp_path: Path) -> None:
    """Without its scales the weights would load, and mean nothing."""
    trtllm.save(tmp_path / "a", *quantized("fp8-tensor"))
    assert compressed_tensors.is_quantized(tmp_path / "a")
    with pytest.raises(CheckpointError, match="by the method 'modelopt'"):
        compressed_tensors.load(tmp_path / "a")
