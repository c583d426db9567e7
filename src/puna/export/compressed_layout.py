"""How tensors lie in a compressed-tensors file where that is not how our layers hold them, and the way back.

int8 without rounded inputs is packed, four numbers to a word of 32 bits, because vLLM reads it in no other form. Files
of others may have scales in bfloat16, in float16 or as scalars; they become what our formats hold. (A float16 scale of
a group is rounded to bfloat16: at most a 256th, which is a 16th of what 4 bits round away.)

Shapes: N outputs, K inputs, P words of a row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from puna.base.errors import CheckpointError
from puna.export.compressed_config import PACKED, file_format
from puna.export.quantized import formats_of, tensor_specs
from puna.model import hf
from puna.model.config import ModelConfig
from puna.quant.formats import WeightFormat
from puna.quant.linear import QuantLinear
from puna.quant.plan import HEAD, QuantPlan

_PER_WORD = 4  # bytes


def packs_int8(format: WeightFormat) -> bool:
    """Whether a file packs what a layer holds as plain int8."""
    return format.bits == 8 and file_format(format) == PACKED


def pack_int8(q_NK: Tensor) -> Tensor:
    """Numbers from -128 to 127 as (N, P) int32, lowest byte first, plus 128; short rows are filled with zero bits."""
    bytes_NK = (q_NK.cpu().to(torch.int16) + 128).to(torch.uint8)
    return F.pad(bytes_NK, (0, -q_NK.shape[1] % _PER_WORD)).contiguous().view(torch.int32)


def unpack_int8(packed_NP: Tensor, inputs: int) -> Tensor:
    """The inverse of `pack_int8`, (N, inputs) int8."""
    bytes_NK = packed_NP.contiguous().view(torch.uint8)[:, :inputs]
    return (bytes_NK.to(torch.int16) - 128).to(torch.int8)


def file_specs(config: ModelConfig, plan: QuantPlan, dtype: torch.dtype) -> dict[str, hf.Spec]:
    """Name -> shape and dtype of all tensors of a file."""
    specs = tensor_specs(config, plan, dtype)
    packed = {f"{module}.weight" for module, format in formats_of(plan).items() if packs_int8(format)}
    found: dict[str, hf.Spec] = {}
    for name, spec in specs.items():
        if name in packed:
            outputs, inputs = spec.shape
            found[f"{name}_packed"] = hf.Spec((outputs, -(-inputs // _PER_WORD)), torch.int32)
            found[f"{name}_shape"] = hf.Spec((2,), torch.int64)
        else:
            found[name] = spec
    return found


def file_tensors(layers: Mapping[str, QuantLinear]) -> dict[str, Callable[[], Tensor]]:
    """Name -> what gives a layer's tensor as it lies in a file."""
    found: dict[str, Callable[[], Tensor]] = {}
    for module, layer in layers.items():
        for key, tensor in layer.tensors.items():
            if key == "weight" and packs_int8(layer.format):
                found[f"{module}.weight_packed"] = lambda t=tensor: pack_int8(t)
                found[f"{module}.weight_shape"] = lambda t=tensor: torch.tensor(t.shape)
            else:
                found[f"{module}.{key}"] = lambda t=tensor: t
    return found


class QuantWeights(Mapping[str, Tensor]):
    """The tensors of a file by the names and in the layout of `quantized_skeleton`, mapped where they can be."""

    def __init__(self, stored: hf.MappedWeights, config: ModelConfig, plan: QuantPlan) -> None:
        self._stored = stored
        self._specs = tensor_specs(config, plan, torch.bfloat16)
        modules = formats_of(plan)
        self.quantized = {name for name in self._specs if name.rpartition(".")[0] in modules}

    def __getitem__(self, name: str) -> Tensor:
        if name not in self.quantized:
            if name not in self._specs:
                raise KeyError(name)
            return self._stored[name]
        spec = self._specs[name]
        if name not in self._stored:
            return unpack_int8(self._stored[f"{name}_packed"], spec.shape[1])
        # Those of our own files are of this dtype and shape already, and stay mapped.
        return self._stored[name].to(spec.dtype).view(spec.shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._specs)

    def __len__(self) -> int:
        return len(self._specs)


def check_fit(stored: hf.MappedWeights, config: ModelConfig, plan: QuantPlan) -> str:
    """How the tensors of a file differ from those that its config and plan ask for; "" where they do not.

    Raises:
        CheckpointError: a tensor of another kind of numbers than its scheme has.
    """
    expected = file_specs(config, plan, torch.bfloat16)
    plain = tensor_specs(config, plan, torch.bfloat16)
    for module, format in formats_of(plan).items():
        if packs_int8(format) and f"{module}.weight" in stored:  # also possible, though vLLM does not read it
            for key in ("weight_packed", "weight_shape"):
                expected.pop(f"{module}.{key}")
            expected[f"{module}.weight"] = plain[f"{module}.weight"]
    found = {name: stored.spec(name) for name in stored}
    if config.tie_word_embeddings:
        found.pop(f"{HEAD}.weight", None)  # a copy of the embedding
    for name, spec in expected.items():
        if name in found and _kind(found[name].dtype) != _kind(spec.dtype):
            raise CheckpointError(f"It stores {name} as {found[name].dtype}; its scheme asks for {spec.dtype}.")
    scalars = {name for name, spec in expected.items() if spec.shape == (1,)}
    given = {name: (1,) if name in scalars and not spec.shape else spec.shape for name, spec in found.items()}
    return hf.differences({name: spec.shape for name, spec in expected.items()}, given)


def _kind(dtype: torch.dtype) -> str:
    """Wide floats may stand for each other; all else is what it is."""
    return "a wide float" if dtype.is_floating_point and dtype.itemsize > 1 else str(dtype)
