"""Which optimizer moves which parameter, as one config with one `build`.

AdamW is the field's default and the one for parity with other trainers. Muon learns a small model from scratch about
twice as fast in tokens; it leaves the embedding, the output matrix and the norms to AdamW.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from puna.base.config import require
from puna.base.errors import CheckpointError
from puna.train.muon import Muon


@dataclass(frozen=True, slots=True)
class OptimizerConfig:
    """An optimizer and its settings.

    Attributes:
        kind: "adamw" for all parameters, or "muon" for the matrices of the layers and AdamW for the rest.
        lr: AdamW's peak learning rate.
        embedding_lr: AdamW's for the embedding and the output matrix; None takes `lr`.
        muon_lr: Muon's.
        betas: AdamW's decay rates.
        eps: AdamW's.
        momentum: Muon's.
        weight_decay: decoupled; on matrices only.
        muon_weight_decay: Muon's.
    """

    kind: Literal["adamw", "muon"] = "adamw"
    lr: float = 3e-4
    embedding_lr: float | None = None
    muon_lr: float = 0.02
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    momentum: float = 0.95
    weight_decay: float = 0.1
    muon_weight_decay: float = 0.0

    def __post_init__(self) -> None:
        for name in ("lr", "muon_lr", "embedding_lr"):
            value = getattr(self, name)
            require(value is None or value > 0, f"{name} is {value}; it must be above 0.")
        for name in ("eps", "weight_decay", "muon_weight_decay"):
            require(getattr(self, name) >= 0, f"{name} is {getattr(self, name)}; it must be at least 0.")
        require(0 <= self.momentum < 1, f"momentum is {self.momentum}; it must be in [0, 1).")
        require(all(0 <= beta < 1 for beta in self.betas), f"betas are {self.betas}; each must be in [0, 1).")

    def build(self, model: nn.Module) -> Optimizers:
        """The optimizer of the parameters of `model` that require gradients."""
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        tables = [p for name, p in named if _is_table(name)]
        vectors = [p for name, p in named if p.ndim < 2]
        matrices = [p for name, p in named if p.ndim >= 2 and not _is_table(name)]
        groups = [
            {"params": tables, "lr": self.embedding_lr or self.lr, "weight_decay": self.weight_decay},
            {"params": vectors, "lr": self.lr, "weight_decay": 0.0},
        ]
        built: list[torch.optim.Optimizer] = []
        if self.kind == "adamw":
            groups.append({"params": matrices, "lr": self.lr, "weight_decay": self.weight_decay})
        elif matrices:
            built.append(Muon(matrices, self.muon_lr, self.momentum, self.muon_weight_decay))
        groups = [group for group in groups if group["params"]]
        if groups:
            built.append(torch.optim.AdamW(groups, betas=self.betas, eps=self.eps, fused=_can_fuse(named)))
        return Optimizers(built, dict(named))


# What each optimizer keeps for a parameter.
_STATE = {Muon: {"momentum_buffer"}, torch.optim.AdamW: {"step", "exp_avg", "exp_avg_sq"}}


def _is_table(name: str) -> bool:
    return "embed_tokens" in name or "lm_head" in name


def _can_fuse(named: Sequence[tuple[str, Tensor]]) -> bool:
    return all(p.device.type in ("cpu", "cuda") and p.is_floating_point() for _, p in named)


class Optimizers:
    """One or more torch optimizers that move together, with a state dictionary keyed by parameter names.

    Names rather than torch's running numbers let a checkpoint be read again when parameters are grouped otherwise.
    """

    def __init__(self, optimizers: list[torch.optim.Optimizer], named: dict[str, Tensor]) -> None:
        self.optimizers = optimizers
        self.named = named
        self._peaks = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]
        self._owner = {
            p: optimizer for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]
        }

    def set_factor(self, factor: float) -> None:
        """Sets every group's learning rate to this share of its peak."""
        for optimizer, peaks in zip(self.optimizers, self._peaks, strict=True):
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * factor

    def step(self) -> None:
        for optimizer in self.optimizers:
            optimizer.step()

    def zero_grad(self) -> None:
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Tensor]:
        """ "name/key" -> tensor, for every number that the optimizers keep."""
        return {f"{name}/{key}": torch.as_tensor(value) for name, key, value in self._entries()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Takes back what `state_dict` gave.

        Raises:
            CheckpointError: it is the state of other parameters, or of another kind of optimizer.
        """
        found: dict[str, dict[str, Tensor]] = defaultdict(dict)
        for entry, value in state.items():
            name, _, key = entry.rpartition("/")
            found[name][key] = value
        for name, values in found.items():
            kind = type(self._owner[self.named[name]]) if name in self.named else None
            if kind is None or values.keys() != _STATE[kind]:
                raise CheckpointError(
                    f"The optimizer state holds {', '.join(sorted(values))} for {name!r}, "
                    f"which has {kind.__name__ if kind else 'no optimizer'} here.",
                    hint="Use the optimizer that wrote it, or delete it to start anew.",
                )
        for name, values in found.items():
            parameter = self.named[name]
            self._owner[parameter].state[parameter] = {key: v.to(parameter.device) for key, v in values.items()}

    def _entries(self) -> Iterator[tuple[str, str, Any]]:
        for name, parameter in self.named.items():
            for key, value in self._owner[parameter].state.get(parameter, {}).items():
                yield name, key, value
