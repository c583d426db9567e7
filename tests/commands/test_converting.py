"""`puna convert`: layouts, dtypes and adapters."""

from __future__ import annotations

from pathlib import Path

import torch

from puna.model import lora
from puna.model.checkpoint import Checkpoint


def test_there_and_back_through_metas_layout(puna, checkpoint: Path, tmp_path: Path) -> None:
    code, _, err = puna("convert", checkpoint, tmp_path / "meta", "--to", "meta", "--shards", "1")
    assert code == 0, err
    assert (tmp_path / "meta" / "consolidated.00.pth").exists()
    code, _, err = puna("convert", tmp_path / "meta", tmp_path / "back")
    assert code == 4
    assert "--allow-pickle" in err
    assert puna("convert", tmp_path / "meta", tmp_path / "back", "--allow-pickle")[0] == 0
    before, after = Checkpoint.load(checkpoint), Checkpoint.load(tmp_path / "back")
    assert all(torch.equal(before.weights[name], after.weights[name]) for name in before.weights)


def test_another_dtype(puna, checkpoint: Path, tmp_path: Path) -> None:
    assert puna("convert", checkpoint, tmp_path / "half", "--dtype", "bfloat16")[0] == 0
    assert {tensor.dtype for tensor in Checkpoint.load(tmp_path / "half").weights.values()} == {torch.bfloat16}


def test_an_adapter_is_folded_in(puna, checkpoint: Path, tmp_path: Path) -> None:
    model = lora.apply_lora(Checkpoint.load(checkpoint).model(), lora.LoraConfig(rank=2))
    with torch.no_grad():
        for parameter in lora.lora_parameters(model).values():
            parameter.normal_()
    lora.save_adapter(model, tmp_path / "adapter")
    assert puna("convert", checkpoint, tmp_path / "merged", "--adapter", tmp_path / "adapter")[0] == 0
    ids = torch.arange(12)[None]
    merged = Checkpoint.load(tmp_path / "merged").model()
    assert torch.allclose(merged(ids), model(ids), atol=1e-4)


def test_gguf_files_and_quantised_folders_are_written_out(puna, checkpoint: Path, tmp_path: Path) -> None:
    original = Checkpoint.load(checkpoint)
    assert puna("export", checkpoint, tmp_path / "model.gguf", "--to", "gguf", "--type", "f32")[0] == 0
    code, _, err = puna("convert", tmp_path / "model.gguf", tmp_path / "same", "--dtype", "float32")
    assert code == 0, err
    same = Checkpoint.load(tmp_path / "same")
    assert all(torch.equal(original.weights[name], same.weights[name]) for name in original.weights)
    assert puna("quantize", checkpoint, tmp_path / "int8", "--recipe", "int8", "--no-speed", "-q")[0] == 0
    assert puna("convert", tmp_path / "int8", tmp_path / "floats")[0] == 0
    floats = Checkpoint.load(tmp_path / "floats")
    for name, weight in original.weights.items():
        assert floats.weights[name].dtype == torch.bfloat16
        bound = weight.abs().max() / 100
        assert torch.allclose(floats.weights[name].float(), weight, atol=float(bound), rtol=2**-7), name
