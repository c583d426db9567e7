"""Measured limits are of the right order and follow their definitions; how fast the machine is, no test asserts."""

from __future__ import annotations

import pytest
import torch

from puna.base.errors import ConfigError
from puna.engine import limits
from puna.engine.limits import Limits
from puna.model import budget
from puna.model.config import named_size
from puna.testing import tiny_model

CPU = torch.device("cpu")


def test_the_best_of_several_times_is_taken_after_a_warm_up() -> None:
    calls: list[int] = []
    seconds = limits.best_seconds(lambda: calls.append(0), CPU)
    assert len(calls) > 5
    assert 0 < seconds < 1


def test_reading_is_measured_in_bytes_a_second() -> None:
    rate = limits.read_bandwidth(CPU, size=1 << 20)
    assert 1e7 < rate < 1e13  # any machine between a tape and a cache


def test_a_product_is_measured_in_operations_a_second() -> None:
    rate = limits.matmul_peak(torch.float32, CPU, (64, 64, 64))
    assert 1e6 < rate < 1e15


def test_a_dtype_without_a_product_is_refused() -> None:
    with pytest.raises(ConfigError, match="int32"):
        limits.matmul_peak(torch.int32, CPU, (8, 8, 8))


def test_the_limit_of_decoding_is_bandwidth_over_bytes() -> None:
    machine = Limits(40e9, {"bfloat16": 400e9}, threads=2)
    # 1.236 G weights in bfloat16 (model card of Llama 3.2 1B): 2.47 GB a token.
    size = budget.weight_bytes(named_size("llama-3.2-1b"))
    assert machine.decode_tokens(size) == pytest.approx(16.2, abs=0.1)


def test_the_limit_of_a_prompt_leaves_the_output_matrix_out_but_for_one_token() -> None:
    config = named_size("llama-3.2-1b")
    # 973 M weights in the layers; 16 layers of 32 heads of 64 see 256.5 keys on average.
    expected = 2 * 973.1e6 + 4 * 16 * 32 * 64 * 256.5
    head = 2 * config.vocab_size * config.hidden_size
    assert limits.prefill_flops_per_token(config, 512) == pytest.approx(expected + head / 512, rel=1e-3)
    assert limits.prefill_flops_per_token(config, 1) == budget.forward_flops_per_token(config, 1)
    machine = Limits(40e9, {"bfloat16": 400e9, "float32": 100e9}, threads=2)
    fast = machine.prefill_tokens(config, 512, "bfloat16")
    assert fast == pytest.approx(400e9 / limits.prefill_flops_per_token(config, 512))
    assert machine.prefill_tokens(config, 512, "float32") == pytest.approx(fast / 4)


@pytest.mark.parametrize("tied", [True, False])
def test_a_token_reads_every_weight_once_and_of_a_separate_embedding_nothing(tied: bool) -> None:
    model = tiny_model(tie_word_embeddings=tied)
    config = model.config
    buffers = sum(buffer.nbytes for buffer in model.buffers())
    embedding = 0 if tied else 4 * config.vocab_size * config.hidden_size
    expected = budget.weight_bytes(config, "float32") + buffers - embedding
    assert limits.bytes_per_token(model) == expected


def test_measure_gives_all_of_it() -> None:
    machine = limits.measure(("float32",))
    assert machine.threads == torch.get_num_threads()
    assert machine.matmul_flops.keys() == {"float32"}
    assert machine.read_bytes_per_second > 0
