"""Several LoRA adapters over one model: loaded and dropped while it serves, and mixed in one batch.

An adapter's matrices stay beside the model's weights, which are shared by all; each token of a step gets the update of
its own sequence's adapter. DoRA changes the length of the weights' rows, which the sequences share, and is refused
here: it is folded in with `puna convert --adapter`.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from puna.base.errors import ConfigError, near
from puna.model.lora import LoraConfig, read_adapter
from puna.model.transformer import Transformer


@dataclass(frozen=True, slots=True, eq=False)
class Adapter:
    """An adapter as it was loaded. A sequence keeps the one that it began with, whatever its name stands for later.

    Attributes:
        number: of the loading: keys and values computed with one are nobody else's.
        matrices: by the layer's name: A (rank, in), B (out, rank), and the scale.
    """

    number: int
    matrices: dict[str, tuple[Tensor, Tensor, float]]


class Adapters:
    """The adapters of one model.

    Args:
        model: whose linear layers are adapted; they are wrapped when the first adapter comes.
    """

    def __init__(self, model: Transformer) -> None:
        self.model = model
        self._loaded: dict[str, Adapter] = {}
        self._numbers = count(1)
        # Of the thread that runs a step alone: another may score with the same layers meanwhile.
        self._step = threading.local()

    def names(self) -> list[str]:
        return sorted(self._loaded)

    def find(self, name: str) -> Adapter | None:
        """The adapter of a name; "" is none at all.

        Raises:
            ConfigError: no adapter bears the name.
        """
        if name and name not in self._loaded:
            raise ConfigError(f"There is no adapter {name!r}.", hint=near(name, self._loaded))
        return self._loaded.get(name)

    def load(self, name: str, folder: Path | str) -> None:
        """Reads an adapter in PEFT's format under a name; one that stands under it is replaced.

        Sequences under way go on with what they began with, here and in `drop`.

        Raises:
            CheckpointError: damaged files, another kind of adapter, or one for another shape.
            ConfigError: no name, or an adapter with DoRA.
        """
        if not name:
            raise ConfigError("An adapter needs a name.")
        config, tensors = read_adapter(self.model, folder)
        if config.use_dora:
            raise ConfigError(
                f"The adapter in {folder} uses DoRA, which cannot be mixed in a batch.",
                hint="Fold it into the weights with puna convert --adapter.",
            )
        self._wrap()
        self._loaded[name] = Adapter(next(self._numbers), self._matrices(config, tensors))

    def drop(self, name: str) -> None:
        """Forgets an adapter."""
        self.find(name)
        self._loaded.pop(name, None)

    @contextmanager
    def active(self, parts: Iterable[tuple[Adapter | None, int]]) -> Iterator[None]:
        """Within the block, and this thread, the tokens of the row have adapters: each one so many tokens in turn."""
        self._step.places = self._places_of(parts)
        try:
            yield
        finally:
            self._step.places = []

    def update(self, layer: str, x_1ND: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """For each adapter in the batch, the places in the row of its tokens, and what it adds to the layer there."""
        places: list[tuple[Adapter, Tensor]] = getattr(self._step, "places", [])
        for adapter, index in places:
            if layer in adapter.matrices:
                a, b, scale = adapter.matrices[layer]
                x = x_1ND[0, index]
                yield index, scale * F.linear(F.linear(x, a.to(x.dtype)), b.to(x.dtype))

    def _places_of(self, parts: Iterable[tuple[Adapter | None, int]]) -> list[tuple[Adapter, Tensor]]:
        places: dict[Adapter, list[int]] = defaultdict(list)
        at = 0
        for adapter, tokens in parts:
            if adapter is not None:
                places[adapter] += range(at, at + tokens)
            at += tokens
        device = self.model.embed_tokens.weight.device
        return [(adapter, torch.tensor(index, device=device)) for adapter, index in places.items()]

    def _wrap(self) -> None:
        for name, module in list(self.model.layers.named_modules(prefix="layers")):
            if name.endswith("_proj") and not isinstance(module, AdaptedLinear):
                self.model.set_submodule(name, AdaptedLinear(name, module, self))

    def _matrices(self, config: LoraConfig, tensors: dict[str, Tensor]) -> dict[str, tuple[Tensor, Tensor, float]]:
        device = self.model.embed_tokens.weight.device
        layers = {name.rpartition(".")[0] for name in tensors}
        return {
            layer: (tensors[f"{layer}.lora_A"].to(device), tensors[f"{layer}.lora_B"].to(device), config.scale)
            for layer in layers
        }


class AdaptedLinear(nn.Module):
    """A linear layer, and what the adapters of the step's tokens add to it."""

    def __init__(self, name: str, base: nn.Module, adapters: Adapters) -> None:
        super().__init__()
        self.name = name
        self.base = base
        self._adapters = (adapters,)  # in a tuple, or torch would look for parameters in it

    def forward(self, x_1ND: Tensor) -> Tensor:
        out = self.base(x_1ND)
        for index, update in self._adapters[0].update(self.name, x_1ND):
            out[0, index] += update
        return out
