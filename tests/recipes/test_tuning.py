"""Fine-tuning a checkpoint on the user's own file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import puna
from puna.base.errors import ArtifactError
from puna.base.progress import Silent
from puna.model.checkpoint import Checkpoint
from puna.recipes.raising import from_base
from puna.recipes.stages.finetune import FinetuneConfig
from puna.recipes.tuning import tune_checkpoint
from puna.testing import tiny_checkpoint


def conversations(path: Path, count: int = 8) -> Path:
    rows = [
        {"messages": [{"role": "user", "content": f"say {i}"}, {"role": "assistant", "content": f"{i} {i}"}]}
        for i in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def config() -> FinetuneConfig:
    base = from_base("x").sft
    return replace(base, tokens=2048, max_epochs=50.0, context_length=64, batch_tokens=256, micro_batch_tokens=256)


def test_the_loss_falls_and_the_base_is_untouched(tmp_path: Path, config: FinetuneConfig) -> None:
    base = tmp_path / "base"
    tiny_checkpoint(base)
    before = {name: tensor.clone() for name, tensor in Checkpoint.load(base).weights.items()}
    data = conversations(tmp_path / "data.jsonl")
    full = replace(config, lora=None, optimizer=replace(config.optimizer, lr=1e-2))
    record = tune_checkpoint(base, data, tmp_path / "run", full, "cpu", Silent())
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert record.metrics["rows"]["loss"] == rows[-1]["loss"]
    assert record.metrics["conversations"] == 8
    after = Checkpoint.load(base).weights
    assert all(torch.equal(before[name], after[name]) for name in before)
    tuned = Checkpoint.load(tmp_path / "run" / "sft" / "checkpoint").weights
    assert not all(torch.equal(before[name], tuned[name]) for name in before)
    assert puna.load(tmp_path / "run", device="cpu").chat("say 3", puna.SamplingParams(max_tokens=4)).ids


def test_adapters_are_saved_and_merged(tmp_path: Path, config: FinetuneConfig) -> None:
    tiny_checkpoint(tmp_path / "base")
    data = conversations(tmp_path / "data.jsonl")
    tune_checkpoint(tmp_path / "base", data, tmp_path / "run", config, "cpu", Silent())
    assert (tmp_path / "run" / "sft" / "adapter" / "adapter_config.json").exists()
    names = Checkpoint.load(tmp_path / "run" / "sft" / "checkpoint").weights
    assert not any("lora" in name for name in names)


def test_a_damaged_line_is_named(tmp_path: Path, config: FinetuneConfig) -> None:
    tiny_checkpoint(tmp_path / "base")
    data = conversations(tmp_path / "data.jsonl")
    data.write_text(data.read_text() + '{"messages": [\n')
    with pytest.raises(ArtifactError, match="line 9"):
        tune_checkpoint(tmp_path / "base", data, tmp_path / "run", config, "cpu", Silent())
    assert not (tmp_path / "run" / "sft").exists()
