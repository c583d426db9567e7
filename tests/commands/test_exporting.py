"""`puna export`: every target from every source, and what does not go together."""

from __future__ import annotations

import os
from pathlib import Path

import click
import pytest
import torch
from click.testing import CliRunner, Result

from puna.base.errors import CheckpointError, ConfigError, InputError
from puna.commands.exporting import command
from puna.export import compressed_tensors, gguf, trtllm
from puna.model.checkpoint import Checkpoint


def export(*arguments: str | Path) -> Result:
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


def test_a_checkpoint_becomes_gguf(checkpoint: Path, tmp_path: Path) -> None:
    done = export(checkpoint, tmp_path / "a.gguf")
    assert done.exit_code == 0, done.output
    assert done.output == f"saved to {tmp_path / 'a.gguf'}\n"
    before, after = Checkpoint.load(checkpoint), gguf.load(tmp_path / "a.gguf")
    assert after.config == before.config
    assert after.tokenizer == before.tokenizer
    assert export(checkpoint, tmp_path / "b.gguf", "--type", "f32").exit_code == 0
    name = "layers.0.mlp.up_proj.weight"
    assert torch.equal(gguf.load(tmp_path / "b.gguf").weights[name], before.weights[name])
    assert not torch.equal(after.weights[name], before.weights[name]), "q8_0 is the default"


def test_an_error_has_its_message_and_code(puna, checkpoint: Path, tmp_path: Path) -> None:
    code, out, _ = puna("export", checkpoint, tmp_path / "a.gguf")
    assert (code, out) == (0, f"saved to {tmp_path / 'a.gguf'}\n")
    code, _, err = puna("export", checkpoint, tmp_path / "b", "--to", "trtllm", "--recipe", "int8")
    assert code == ConfigError.exit_code
    assert "--to compressed-tensors" in err


def test_gguf_becomes_gguf_of_another_type(checkpoint: Path, tmp_path: Path) -> None:
    assert export(checkpoint, tmp_path / "a.gguf", "--type", "bf16").exit_code == 0
    assert export(tmp_path / "a.gguf", tmp_path / "b.gguf", "--type", "f32").exit_code == 0
    name = "layers.1.self_attn.q_proj.weight"
    expected = Checkpoint.load(checkpoint).weights[name].bfloat16().float()
    assert torch.equal(gguf.load(tmp_path / "b.gguf").weights[name], expected)


def test_a_checkpoint_is_quantised_on_the_way(checkpoint: Path, tmp_path: Path) -> None:
    assert export(checkpoint, tmp_path / "a", "--to", "compressed-tensors").exit_code == 0
    assert compressed_tensors.load(tmp_path / "a")[1].recipe == "fp8"
    done = export(checkpoint, tmp_path / "b", "--to", "compressed-tensors", "--recipe", "int4-g32")
    assert done.exit_code == 0, done.output
    assert set(compressed_tensors.load(tmp_path / "b")[1].modules.values()) == {"int4-g32"}
    assert export(checkpoint, tmp_path / "c", "--to", "trtllm").exit_code == 0
    assert trtllm.load(tmp_path / "c")[1].recipe == "fp8"


def test_a_quantised_folder_goes_on(checkpoint: Path, tmp_path: Path) -> None:
    assert export(checkpoint, tmp_path / "a", "--to", "compressed-tensors").exit_code == 0
    assert export(tmp_path / "a", tmp_path / "b", "--to", "trtllm").exit_code == 0
    assert export(tmp_path / "a", tmp_path / "c.gguf", "--type", "f32").exit_code == 0
    name = "layers.0.mlp.down_proj"
    weights = compressed_tensors.load(tmp_path / "a")[2]
    expected = weights[f"{name}.weight"].float() * weights[f"{name}.weight_scale"]
    assert torch.equal(gguf.load(tmp_path / "c.gguf").weights[f"{name}.weight"], expected)
    stored = trtllm.load(tmp_path / "b")[2]
    assert torch.equal(stored[f"{name}.weight_scale"], weights[f"{name}.weight_scale"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--to", "gguf", "--recipe", "fp8"], "--recipe is for the other targets"),
        (["--to", "trtllm", "--type", "f16"], "--type is for GGUF files"),
        (["--type", "q4_k_m"], "q4_k_m"),
        (["--to", "onnx"], "onnx"),
    ],
)
def test_options_that_do_not_go_together(checkpoint: Path, tmp_path: Path, options: list[str], message: str) -> None:
    done = export(checkpoint, tmp_path / "out", *options)
    assert done.exit_code == click.UsageError.exit_code
    assert message in done.output
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_is_refused_and_leaves_nothing(checkpoint: Path, tmp_path: Path) -> None:
    done = export(checkpoint, tmp_path / "out", "--to", "compressed-tensors", "--recipe", "fp8-tensor")
    assert isinstance(done.exception, ConfigError), "one scale for all inputs needs a calibration"
    done = export(checkpoint, tmp_path / "out", "--to", "trtllm", "--recipe", "int8")
    assert isinstance(done.exception, ConfigError)
    done = export(tmp_path / "nothing", tmp_path / "out")
    assert isinstance(done.exception, InputError)
    (tmp_path / "bad.gguf").write_bytes(b"GGUF")
    assert isinstance(export(tmp_path / "bad.gguf", tmp_path / "out").exception, CheckpointError)
    assert not (tmp_path / "out").exists()
    assert export(checkpoint, tmp_path / "q", "--to", "compressed-tensors").exit_code == 0
    done = export(tmp_path / "q", tmp_path / "out", "--to", "trtllm", "--recipe", "fp8")
    assert "is quantised already" in done.output


def test_a_check_that_cannot_run_says_so(checkpoint: Path, tmp_path: Path) -> None:
    done = export(checkpoint, tmp_path / "a.gguf", "--check", tmp_path / "python")
    assert isinstance(done.exception, InputError)
    assert (tmp_path / "a.gguf").exists(), "the file is written, and only unchecked"
    assert (
        "--check cannot run TensorRT-LLM" in export(checkpoint, tmp_path / "a", "--to", "trtllm", "--check", "x").output
    )


def test_a_check_compares_with_llama_cpp(checkpoint: Path, tmp_path: Path) -> None:
    python = os.environ.get("PUNA_LLAMA_CPP_PYTHON", "")
    if not python:
        pytest.skip("PUNA_LLAMA_CPP_PYTHON names no Python that has llama_cpp")
    done = export(checkpoint, tmp_path / "a.gguf", "--check", python)
    assert done.exit_code == 0, done.output
    assert "checked: logits differ by" in done.output
