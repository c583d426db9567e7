"""Exported models in the programs that they are for. These need environments of their own, and say so when they skip.

PUNA_LLAMA_CPP_PYTHON names a Python that has llama_cpp; PUNA_TRANSFORMERS_PYTHON one that has transformers with
compressed_tensors, if this one has not. `benchmarks/export_check.py` makes both.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from puna.base.errors import CheckpointError, InputError, MissingExtraError
from puna.export import compressed_tensors, gguf
from puna.export.verify import compare, run
from puna.model.checkpoint import Checkpoint
from puna.quant.plan import QuantPlan
from puna.testing import tiny_config, tiny_model
from puna.tokenizer import Tokenizer

from .conftest import TEXTS, Quantized

IDS = [(37 * place) % 250 + 1 for place in range(1, 65)]
HARD_TEXTS = [
    *TEXTS,
    "don't WE'LL  \n\n  1234567 x\t\n",
    "größe 日本語 🦙‍♀️ naïve ﬁ",
    "<|eot_id|> is written, not meant",
    " " * 300 + "end",
]


@pytest.fixture(scope="module")
def llama_cpp() -> str:
    python = os.environ.get("PUNA_LLAMA_CPP_PYTHON", "")
    if not python:
        pytest.skip("PUNA_LLAMA_CPP_PYTHON names no Python that has llama_cpp")
    return python


@pytest.fixture(scope="module")
def transformers_python() -> str:
    python = os.environ.get("PUNA_TRANSFORMERS_PYTHON", "")
    if not python and importlib.util.find_spec("compressed_tensors") is None:
        pytest.skip("compressed_tensors is not installed, and PUNA_TRANSFORMERS_PYTHON names no Python that has it")
    return python or sys.executable


def logits(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return model(torch.tensor([IDS]))[0]


# llama.cpp ------------------------------------------------------------------------------------------------------------

# Our float32 logits of the very weights in the file; llama.cpp rounds its inputs to float16, bfloat16 or Q8_0.
ROUNDING = {"f32": 1e-5, "f16": 2e-3, "bf16": 1e-2, "q8_0": 2e-2, "q4_0": 2e-2}
SHAPES: dict[str, dict[str, Any]] = {
    "plain": {},
    "tied": {"tie_word_embeddings": True},
    "scaled": {"scaled": True},
    "wide heads": {"head_dim": 32, "num_key_value_heads": 1},
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", gguf.WRITTEN)
def test_llama_cpp_gives_our_logits(
    llama_cpp: str, checkpoint: Callable[..., Checkpoint], tmp_path: Path, kind: str, shape: str
) -> None:
    before = checkpoint(hidden_size=64, intermediate_size=128, **SHAPES[shape])
    gguf.save(tmp_path / "a.gguf", before, kind)
    answer = run("llama_cpp", llama_cpp, tmp_path / "a.gguf", IDS)
    agreement = compare(answer.logits_TV, logits(gguf.load(tmp_path / "a.gguf").model()))
    assert agreement.relative_error < ROUNDING[kind], str(agreement)
    assert agreement.same_best > 0.9
    if kind == "f32":
        assert compare(answer.logits_TV, logits(before.model())).relative_error < 1e-5


def with_tokenizer(tokenizer: Tokenizer, spare: int, path: Path) -> Path:
    config = tiny_config().with_vocabulary(tokenizer.vocab_size + spare, tokenizer.bos_id, tokenizer.stop_ids)
    model = tiny_model(**{name: getattr(config, name) for name in ("vocab_size", "bos_token_id", "eos_token_id")})
    gguf.save(path, Checkpoint.of(model, tokenizer), "q8_0")
    return path


@pytest.mark.parametrize("spare", [0, 7])
def test_llama_cpp_encodes_as_a_tokenizer_of_ours(
    llama_cpp: str, trained_tokenizer: Tokenizer, tmp_path: Path, spare: int
) -> None:
    path = with_tokenizer(trained_tokenizer, spare, tmp_path / "a.gguf")
    answer = run("llama_cpp", llama_cpp, path, IDS, HARD_TEXTS)
    assert answer.encoded == [trained_tokenizer.encode(text) for text in HARD_TEXTS]
    assert answer.details["ends"] == list(trained_tokenizer.stop_ids)
    assert answer.details["first"] == trained_tokenizer.bos_id


def test_llama_cpp_encodes_as_the_real_tokenizer(llama_cpp: str, llama3_vocabulary: Path, tmp_path: Path) -> None:
    tokenizer = Tokenizer.load(llama3_vocabulary)
    texts = [*HARD_TEXTS, Path(__file__).read_text(encoding="utf-8")]
    answer = run("llama_cpp", llama_cpp, with_tokenizer(tokenizer, 0, tmp_path / "a.gguf"), IDS, texts)
    assert answer.encoded == [tokenizer.encode(text) for text in texts]
    assert answer.details["ends"] == [128001, 128008, 128009]


def test_a_model_without_a_tokenizer_runs_too(llama_cpp: str, tmp_path: Path) -> None:
    before = Checkpoint.of(tiny_model())
    gguf.save(tmp_path / "a.gguf", before, "f32")
    answer = run("llama_cpp", llama_cpp, tmp_path / "a.gguf", IDS)
    assert compare(answer.logits_TV, logits(before.model())).relative_error < 1e-5


def test_what_llama_cpp_refuses_is_told(llama_cpp: str, tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(CheckpointError, match=r"llama_cpp does not run .*a\.gguf"):
        run("llama_cpp", llama_cpp, tmp_path / "a.gguf", IDS)


# transformers ---------------------------------------------------------------------------------------------------------


def as_transformers_rounds(model: nn.Module, plan: QuantPlan) -> nn.Module:
    """The same with inputs of int8 rounded as compressed-tensors does: it divides by 127.5 where we divide by 127."""
    for module in plan.modules:
        layer = model.get_submodule(module)
        if plan.format(module).name == "int8":
            plain = nn.Linear(layer.in_features, layer.out_features, bias=False)  # type: ignore[arg-type]
            plain.weight = nn.Parameter(layer.dequantized(), requires_grad=False)  # type: ignore[operator]
            plain.register_forward_pre_hook(_rounded)
            model.set_submodule(module, plain)
    return model


def _rounded(_: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
    scale = inputs[0].abs().amax(-1, keepdim=True) / 127.5
    return (inputs[0] / scale).round().clamp(-128, 127) * scale


PLANS: dict[str, Any] = {
    **{name: name for name in ("fp8", "fp8-tensor", "fp8-block", "int8", "int8-wo", "int4-g32", "int4-g128")},
    "mixed": [("layers.*_proj", "int4-g32"), ("layers.0.mlp.*", "fp8"), ("layers.1.self_attn.*", "int8-wo")],
    "output matrix": [("layers.*_proj", "fp8"), ("lm_head", "int8-wo")],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PLANS)
def test_transformers_gives_our_logits(
    transformers_python: str, quantized: Callable[..., Quantized], tmp_path: Path, name: str
) -> None:
    made = quantized(PLANS[name], tie_word_embeddings=name in ("int4-g32", "output matrix"))
    compressed_tensors.save(tmp_path / "a", *made, "float32")
    answer = run("transformers", transformers_python, tmp_path / "a", IDS, TEXTS)
    model = as_transformers_rounds(compressed_tensors.load_model(tmp_path / "a", "float32"), made.plan)
    agreement = compare(answer.logits_TV, logits(model))
    # Where a product's last bit differs, an input may round to the next of its few levels.
    rounds = any(made.plan.format(module).quantize_activations for module in made.plan.modules)
    assert agreement.relative_error < (1e-2 if rounds else 1e-4), str(agreement)
    assert made.checkpoint.tokenizer is not None
    assert answer.encoded == [made.checkpoint.tokenizer.encode(text) for text in TEXTS]


@pytest.mark.slow
def test_transformers_loads_the_bfloat16_folder(
    transformers_python: str, quantized: Callable[..., Quantized], tmp_path: Path
) -> None:
    compressed_tensors.save(tmp_path / "a", *quantized("int4-g32"))
    answer = run("transformers", transformers_python, tmp_path / "a", IDS, dtype="bfloat16")
    agreement = compare(answer.logits_TV, logits(compressed_tensors.load_model(tmp_path / "a", "bfloat16")))
    assert agreement.relative_error < 5e-2, str(agreement)


# Without any other program --------------------------------------------------------------------------------------------


def test_agreement_is_none_of_a_constant_and_all_of_a_difference() -> None:
    expected = torch.randn(8, 50, generator=torch.Generator().manual_seed(0))
    same = compare(expected + 3, expected)
    assert same.relative_error < 1e-6
    assert same.same_best == 1
    noise = torch.randn(8, 50, generator=torch.Generator().manual_seed(1))
    assert compare(expected + 0.1 * noise, expected).relative_error == pytest.approx(0.1, rel=0.15)
    assert compare(-expected, expected).same_best == 0
    assert "differ by 0.00%" in str(same)
    with pytest.raises(CheckpointError, match=r"logits \(8, 50\), not \(8, 49\)"):
        compare(expected, expected[:, :49])


def test_a_python_without_the_program_is_told_apart_from_a_bad_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be run: No such file"):
        run("llama_cpp", tmp_path / "python", tmp_path / "a.gguf", IDS)
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho \"ModuleNotFoundError: No module named 'llama_cpp'\" >&2\nexit 1\n")
    python.chmod(0o755)
    with pytest.raises(MissingExtraError, match="cannot run llama_cpp"):
        run("llama_cpp", python, tmp_path / "a.gguf", IDS)
    python.write_text("#!/bin/sh\nexit 3\n")
    with pytest.raises(CheckpointError, match="it ended with code 3"):
        run("llama_cpp", python, tmp_path / "a.gguf", IDS)
