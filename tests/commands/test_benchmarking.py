"""`puna bench`: what it times, not how long that takes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from puna.base.errors import InputError
from puna.commands.benchmarking import FORMATS, plain_tokenizer, random_model, show, time_model
from puna.core.completion import SamplingParams
from puna.engine import limits
from puna.engine.local import LocalModel
from puna.model.config import named_size
from puna.quant.linear import QuantLinear
from puna.quant.plan import from_recipe
from puna.testing import tiny_model, tiny_tokenizer

SIZE = "cria-3m"


@pytest.mark.parametrize("format", FORMATS)
def test_random_weights_have_the_formats_that_the_name_says(format: str) -> None:
    model = random_model(SIZE, format, "float32", "cpu")
    recipe, head = FORMATS[format]
    found = {name: layer.format.name for name, layer in model.model.named_modules() if isinstance(layer, QuantLinear)}
    assert found == (dict(from_recipe(recipe, named_size(SIZE), head).modules) if recipe else {})
    assert model.tokenizer.vocab_size == model.config.vocab_size == named_size(SIZE).vocab_size


def test_fewer_bits_are_fewer_bytes_a_token() -> None:
    sizes = {name: limits.bytes_per_token(random_model(SIZE, name, "float32", "cpu").model) for name in FORMATS}
    assert sizes["int4"] < sizes["int8"] < sizes["bf16"] / 3  # which is float32 here
    assert sizes["fp8"] == sizes["int8"]


def test_random_weights_do_not_end_their_answer() -> None:
    model = random_model(SIZE, "bf16", "float32", "cpu")
    usage = model.generate([1, 2, 3], SamplingParams(temperature=0, max_tokens=24)).usage
    assert usage.completion_tokens == 24
    again = random_model(SIZE, "bf16", "float32", "cpu").model
    assert all(torch.equal(a, b) for a, b in zip(model.model.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize("size", [512, 700, 66_500])
def test_the_plain_tokenizer_has_every_id_and_reads_every_byte(size: int) -> None:
    tokenizer = plain_tokenizer(size)
    assert tokenizer.vocab_size == size
    text = "North, süd and 西."
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_both_speeds_are_above_zero_and_a_long_prompt_is_refused() -> None:
    model = LocalModel(tiny_model(max_position_embeddings=160), tiny_tokenizer())
    assert all(speed > 0 for speed in time_model(model, prompt=16, tokens=8, rounds=2))
    with pytest.raises(InputError, match="The prompt has 200 tokens; the model's context holds 160"):
        time_model(model, prompt=200, tokens=8, rounds=1)


def test_an_unknown_size_or_format_is_refused_with_those_that_exist(puna) -> None:
    code, _, errors = puna("bench", "--size", "cria-4m")
    assert code
    assert "There is no size 'cria-4m'" in errors
    assert "cria-3m" in errors
    code, _, errors = puna("bench", "--format", "int3")
    assert code
    assert "int4" in errors


def test_the_table_says_why_there_are_no_kernels(capsys: pytest.CaptureFixture[str]) -> None:
    speed = {"tokens_per_second": 50.0, "limit": 200.0, "share": 0.25}
    result = {"model": "x", "bytes_per_token": 2048, "decode": speed, "prefill": speed, "prompt_tokens": 512}
    result |= {"bandwidth": 2e10, "matmul_flops": 3e11, "dtype": "bfloat16", "threads": 2, "kernels": "none"}
    show({**result, "kernels_reason": "no compiler", "peak_memory": 1 << 20})
    out = capsys.readouterr().out
    assert "kernels: none (no compiler)" in out
    assert [line.split()[-3:] for line in out.splitlines() if "%" in line] == [["50.0", "200.0", "25%"]] * 2
    assert "reading 20.0 GB/s, products 300 GFLOP/s" in out


@pytest.mark.slow
def test_it_prints_speeds_beside_limits_measured_in_the_same_run(puna, checkpoint: Path) -> None:
    options = ("--prompt", "16", "--tokens", "4", "--rounds", "1", "--dtype", "float32", "--device", "cpu", "--json")
    code, out, errors = puna("bench", checkpoint, *options)
    assert code == 0, errors
    result = json.loads(out)
    for name in ("decode", "prefill"):
        speed = result[name]
        assert speed["share"] == pytest.approx(speed["tokens_per_second"] / speed["limit"])
    kept = tiny_model(max_position_embeddings=512)
    assert result["bytes_per_token"] == limits.bytes_per_token(kept)
    assert result["decode"]["limit"] < result["bandwidth"] / result["bytes_per_token"]  # the cache is read too
