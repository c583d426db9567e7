"""`QuantLinear`: a linear layer whose matrix is stored in a format.

On a CPU the kernels of `puna.kernels.linear` multiply the stored numbers as they lie, so a mapped file is used without
a copy; on CUDA the tensor cores do (`cuda`). It has buffers and no parameters: nothing in it learns, but gradients
pass through it to what lies before. Changing the dtype of a model leaves the stored numbers alone.

Shapes: M tokens (any leading axes, flattened), K inputs, N outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from puna.base.errors import CheckpointError, ConfigError, InputError
from puna.kernels import linear as kernels
from puna.kernels.layer import Matrix
from puna.quant import cuda
from puna.quant.formats import (
    Tensors,
    WeightFormat,
    dequantize_weight,
    quantize_weight,
    round_activations,
    round_steps,
)

_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class QuantLinear(nn.Module):
    """y = W x with a quantised W; no bias, as in all of Llama.

    The buffers bear the names of `format.specs`: `weight` and `weight_scale`, with `input_scale` where the format is
    static; or `weight_packed`, `weight_scale` and `weight_shape` for 4 bits.

    Args:
        in_features: K.
        out_features: N.
        format: of the matrix.
        device: where the (empty) buffers are made; "meta" for tensors that are loaded later.
    """

    def __init__(
        self, in_features: int, out_features: int, format: WeightFormat, device: torch.device | str | None = None
    ) -> None:
        super().__init__()
        format.check(out_features, in_features)
        self.in_features, self.out_features, self.format = in_features, out_features, format
        for name, (shape, dtype) in format.specs(out_features, in_features).items():
            self.register_buffer(name, torch.empty(shape, dtype=dtype, device=device))

    @classmethod
    def from_tensors(cls, tensors: Tensors, format: WeightFormat, name: str = "The matrix") -> QuantLinear:
        """A layer over stored tensors, which are not copied.

        Raises:
            CheckpointError: tensors are missing, unexpected, or of another shape or dtype.
        """
        outputs, inputs = _size(tensors, format, name)
        layer = cls(inputs, outputs, format, device="meta")
        specs = format.specs(outputs, inputs)
        if tensors.keys() != specs.keys():
            raise CheckpointError(f"{name} is {format.name} and has {', '.join(tensors)}, not {', '.join(specs)}.")
        for key, (shape, dtype) in specs.items():
            tensor = tensors[key]
            if tuple(tensor.shape) != shape or tensor.dtype != dtype:
                raise CheckpointError(
                    f"{name}.{key} is {tensor.dtype} {tuple(tensor.shape)}; {format.name} has {dtype} {shape}."
                )
            setattr(layer, key, tensor)
        return layer

    @classmethod
    def from_weight(
        cls, weight_NK: Tensor, format: WeightFormat, input_scale: float | None = None, name: str = "The matrix"
    ) -> QuantLinear:
        """Rounds a matrix to the nearest numbers.

        Args:
            weight_NK: the matrix.
            format: of the result.
            input_scale: for a static format, the largest input over the format's largest number.
            name: of the matrix, for messages.
        """
        tensors = quantize_weight(weight_NK.detach(), format, name)
        return cls.from_tensors(with_input_scale(tensors, format, input_scale, name), format, name)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """What is stored, by name."""
        return dict(self.named_buffers(recurse=False))

    def dequantized(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The matrix that the stored numbers stand for, (N, K)."""
        return dequantize_weight(self.tensors, self.format, dtype)

    def round_inputs(self, x: Tensor) -> Tensor:
        """Inputs as the product rounds them."""
        return round_activations(x, self.format, self.tensors.get("input_scale"))

    def for_head(self, hidden: Tensor) -> tuple[Tensor, WrittenOut]:
        """As the output matrix of a model: the hidden states as they are, and the matrix where it is looked at."""
        return hidden, WrittenOut(self, hidden.dtype)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] != self.in_features:
            raise InputError(f"The layer takes {self.in_features} inputs and is given {x.shape[-1]}.")
        if torch.is_grad_enabled() and x.requires_grad:
            # The kernels know no gradients; the rounding of the inputs counts as none at all.
            return F.linear(x, self.dequantized(x.dtype))
        x_MK = x.reshape(-1, self.in_features)
        if x.dtype not in (torch.float32, torch.bfloat16):
            x_MK = x_MK.float()
        out_MN = self._cpu(x_MK.contiguous()) if x.device.type == "cpu" else self._cuda(x_MK)
        return out_MN.to(x.dtype).view(*x.shape[:-1], self.out_features)

    def _cuda(self, x_MK: Tensor) -> Tensor:
        return cuda.product(x_MK, self.tensors, self.format)

    def _cpu(self, x_MK: Tensor) -> Tensor:
        format, stored = self.format, self.tensors
        if format.strategy == "none":
            return kernels.bf16_linear(x_MK, stored["weight"])
        if format.bits == 4:
            return kernels.int4_linear(x_MK, stored["weight_packed"], stored["weight_scale"])
        by_token = format.activations == "token"
        scale = stored["weight_scale"] if format.strategy == "block" else stored["weight_scale"].view(-1)
        if not format.is_float8:
            return kernels.int8_linear(x_MK, stored["weight"], scale, quantize_activations=by_token)
        if format.activations == "tensor":
            # E4M3 numbers are exact in bfloat16: with the inputs' scale in that of the weights, nothing is rounded.
            x_MK = round_steps(x_MK.float() / stored["input_scale"], format).to(x_MK.dtype)
            scale = (scale * stored["input_scale"]).expand(self.out_features).contiguous()
        elif format.activations == "group":
            x_MK = self.round_inputs(x_MK)
        return kernels.fp8_linear(x_MK, stored["weight"], scale, quantize_activations=by_token, cap=format.cap)

    def matrix(self) -> Matrix | None:
        """What is stored, for a layer that is compiled as a whole; None where inputs are rounded as it cannot."""
        format, stored = self.format, self.tensors
        if format.strategy == "none":
            return Matrix("bf16", stored["weight"])
        if format.bits == 4:
            return Matrix("int4", stored["weight_packed"], stored["weight_scale"])
        if format.activations not in ("none", "token"):
            return None
        scale = stored["weight_scale"] if format.strategy == "block" else stored["weight_scale"].view(-1)
        by_token = format.activations == "token"
        return Matrix("fp8" if format.is_float8 else "int8", stored["weight"], scale, by_token, format.cap)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> QuantLinear:
        """Moves the buffers, whose dtypes are part of the format: `model.to(torch.bfloat16)` does not change them."""

        def moved(tensor: Tensor) -> Tensor:
            return fn(tensor.view(_INTEGERS[tensor.dtype.itemsize])).view(tensor.dtype)

        return super()._apply(moved, recurse)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, format={self.format.name}"


class WrittenOut:
    """The matrix of a quantised layer in place of a tensor: it is dequantised when a function first looks at it."""

    def __init__(self, layer: QuantLinear, dtype: torch.dtype) -> None:
        self._make = lambda: layer.dequantized(dtype)

    @cached_property
    def tensor(self) -> Tensor:
        return self._make()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.tensor, name)

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        plain = [arg.tensor if isinstance(arg, cls) else arg for arg in args]
        return function(*plain, **(kwargs or {}))


def with_input_scale(
    tensors: dict[str, Tensor], format: WeightFormat, input_scale: float | None, name: str = "The matrix"
) -> dict[str, Tensor]:
    """Adds what only calibration knows to the tensors of a static format; others are left as they are."""
    if format.activations != "tensor":
        return tensors
    if input_scale is None:
        raise ConfigError(
            f"{name} is to be {format.name}, whose inputs have one scale for all, and there is no calibration.",
            hint="Give texts to calibrate with, or use fp8, which scales each token when it comes.",
        )
    device = next(iter(tensors.values())).device
    return {**tensors, "input_scale": torch.tensor([input_scale], dtype=torch.float32, device=device)}


def _size(tensors: Tensors, format: WeightFormat, name: str) -> tuple[int, int]:
    stored: Any = tensors.get("weight_packed" if format.bits == 4 else "weight")
    if stored is None or stored.ndim != 2:
        raise CheckpointError(f"{name} is {format.name} and has no matrix among {', '.join(tensors) or 'no tensors'}.")
    return stored.shape[0], stored.shape[1] * (8 if format.bits == 4 else 1)
