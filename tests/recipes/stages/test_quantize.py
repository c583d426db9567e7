"""The quantise stage: its folder is a model, and its table is of the held-out documents."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from puna.export import compressed_tensors
from puna.model.checkpoint import Checkpoint
from puna.quant.linear import QuantLinear
from puna.recipes.run_folder import load_model


def test_the_model_is_quantised_and_near_its_original(finished_run: Path) -> None:
    folder = finished_run / "quantize" / "checkpoint"
    model = compressed_tensors.load_model(folder, "float32")
    assert sum(isinstance(module, QuantLinear) for module in model.modules()) == 7
    ids = torch.tensor([[5, 300, 17, 4, 90, 41]])
    expected = Checkpoint.load(finished_run / "sft" / "checkpoint").model()(ids)
    assert (model(ids) - expected).abs().max() < 0.1 * expected.abs().max()


def test_the_card_and_the_table_say_what_it_costs(finished_run: Path) -> None:
    metrics = json.loads((finished_run / "quantize" / "card.json").read_text())["metrics"]
    table = json.loads((finished_run / "quantize" / "quantization.json").read_text())
    assert metrics["recipe"] == "int8"
    assert metrics["kl"] == table["kl"] >= 0
    assert 0 < metrics["bytes"] < table["bytes_original"]
    assert len(metrics["layers"]) == 1
    report = (finished_run / "report.html").read_text()
    assert "In fewer bits" in report
    assert f"{table['perplexity_original']:.4f}" in report


def test_it_answers(finished_run: Path) -> None:
    model = load_model(finished_run / "quantize" / "checkpoint", device="cpu")
    assert model.chat("What is a crate?").usage.completion_tokens > 0
