"""How tensors lie in a file: packed bytes against a loop, and the tensors of others."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from puna.export.compressed_layout import file_specs, file_tensors, pack_int8, packs_int8, unpack_int8
from puna.export.quantized import layers_of
from puna.quant.formats import FORMATS


@pytest.mark.parametrize("inputs", [1, 4, 7, 64])
def test_int8_is_packed_as_vllm_unpacks_it(inputs: int) -> None:
    """Number i of a row is byte i % 4 of word i // 4, lowest first, plus 128."""
    q_NK = torch.randint(-128, 128, (5, inputs), dtype=torch.int8, generator=torch.Generator().manual_seed(inputs))
    packed = pack_int8(q_NK)
    assert packed.dtype == torch.int32
    assert packed.shape == (5, -(-inputs // 4))
    for row in range(5):
        for i in range(inputs):
            word = packed[row, i // 4].item() & 0xFFFFFFFF
            assert (word >> 8 * (i % 4) & 0xFF) - 128 == q_NK[row, i].item()
    assert torch.equal(unpack_int8(packed, inputs), q_NK)


def test_only_int8_without_rounded_inputs_is_packed_otherwise_than_held() -> None:
    assert [name for name, format in FORMATS.items() if packs_int8(format)] == ["int8-wo"]


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "bf16"])
def test_what_is_written_has_the_shapes_that_were_announced(quantized: Callable, name: str) -> None:
    model, plan, _ = quantized(name)
    specs = file_specs(model.config, plan, torch.bfloat16)
    found = file_tensors(layers_of(model, plan))
    for tensor_name, read in found.items():
        assert (tuple(read().shape), read().dtype) == (specs[tensor_name].shape, specs[tensor_name].dtype), tensor_name
    modules = {tensor_name.rpartition(".")[0] for tensor_name in found}
    assert modules == set(plan.modules)
    assert {name for name in specs if name.rpartition(".")[0] not in modules} == set(dict(model.named_parameters()))
