"""Low-rank adapters: LoRA (arXiv 2106.09685) and DoRA (arXiv 2402.09353), in the files of PEFT.

The weights of the model are frozen; beside each chosen linear layer stand two thin matrices that learn. Left out:
adapters for the embedding and the output matrix, another rank for some layers, and several adapters at a time.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from puna.base.config import from_dict, require
from puna.base.errors import CheckpointError, ConfigError, StorageError, near
from puna.base.files import atomic_folder, read_json, write_json
from puna.model import hf
from puna.model.transformer import Transformer, shapes

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
_PREFIX = "base_model.model."
_MAGNITUDE = "lora_magnitude_vector"


@dataclass(frozen=True, slots=True)
class LoraConfig:
    """The shape of adapters.

    Attributes:
        rank: the inner size of the two matrices.
        alpha: the update is scaled by alpha / rank.
        dropout: probability of dropping an input of the update, in training.
        targets: the linear layers that get one, by the last part of their names.
        use_dora: whether to learn the length of each row of the weights beside its direction.
        use_rslora: whether to scale by alpha / sqrt(rank) (arXiv 2312.03732), which suits high ranks.
    """

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    use_dora: bool = False
    use_rslora: bool = False

    def __post_init__(self) -> None:
        require(self.rank >= 1, f"rank is {self.rank}; it must be at least 1.")
        require(0 <= self.dropout < 1, f"dropout is {self.dropout}; it must be at least 0 and below 1.")
        require(bool(self.targets), "targets is empty; an adapter needs at least one.")

    @property
    def scale(self) -> float:
        return self.alpha / (self.rank**0.5 if self.use_rslora else self.rank)


class LoraLinear(nn.Module):
    """A frozen linear layer W and what is learnt beside it: y = W x + scale * B A x.

    With DoRA the rows of W + scale * B A are given the learnt lengths m. The matrices are float32, whatever W is.

    Args:
        base_layer: the layer, frozen here.
        config: the adapter's shape.
        generator: draws A; B starts at zero, so that at first nothing changes.
    """

    def __init__(self, base_layer: nn.Linear, config: LoraConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.base_layer = base_layer.requires_grad_(False)
        self.train(base_layer.training)
        self.config = config
        device = base_layer.weight.device
        a = torch.empty(config.rank, base_layer.in_features)
        nn.init.kaiming_uniform_(a, a=5**0.5, generator=generator)
        self.lora_A = nn.Parameter(a.to(device))
        self.lora_B = nn.Parameter(torch.zeros(base_layer.out_features, config.rank, device=device))
        self.lora_magnitude_vector = nn.Parameter(_row_lengths(self._sum()).float()) if config.use_dora else None

    def forward(self, x: Tensor) -> Tensor:
        config = self.config
        inner = F.linear(F.dropout(x, config.dropout, self.training), self.lora_A.to(x.dtype))
        out = self.base_layer(x) + config.scale * F.linear(inner, self.lora_B.to(x.dtype))
        if self.lora_magnitude_vector is None:
            return out
        # The length counts as a constant for the gradient (section 4.3 of the paper).
        return out * (self.lora_magnitude_vector / _row_lengths(self._sum())).to(out.dtype)

    @torch.no_grad()
    def merged(self) -> Tensor:
        """One matrix that computes the same, in the dtype of W."""
        weight = self._sum()
        if self.lora_magnitude_vector is not None:
            weight *= (self.lora_magnitude_vector / _row_lengths(weight))[:, None]
        return weight.to(self.base_layer.weight.dtype)

    @torch.no_grad()
    def _sum(self) -> Tensor:
        """W + scale * B A, at least float32."""
        weight = self.base_layer.weight
        with torch.autocast(weight.device.type, enabled=False):
            return weight + self.config.scale * (self.lora_B @ self.lora_A)


def _row_lengths(weight: Tensor) -> Tensor:
    return torch.linalg.vector_norm(weight, dim=1)


def apply_lora(model: Transformer, config: LoraConfig, seed: int = 0) -> Transformer:
    """Freezes `model` and puts adapters beside the target layers, in place.

    Raises:
        ConfigError: a target that no layer of the model bears, or a model that has adapters already.
    """
    _refuse_adapted(model)
    layers = dict(_targets(model, config))
    generator = torch.Generator().manual_seed(seed)
    model.requires_grad_(False)
    for name, linear in layers.items():
        model.set_submodule(name, LoraLinear(linear, config, generator))
    return model


def _targets(model: Transformer, config: LoraConfig) -> Iterator[tuple[str, nn.Linear]]:
    """The names and layers that `config` means."""
    linears = {
        name: module for name, module in model.layers.named_modules(prefix="layers") if type(module) is nn.Linear
    }
    known = {_last(name) for name in linears}
    for target in config.targets:
        if target not in known:
            raise ConfigError(f"The model has no layer {target!r} to adapt.", hint=near(target, known))
    yield from ((name, linear) for name, linear in linears.items() if _last(name) in config.targets)


def _refuse_adapted(model: Transformer) -> None:
    if any(isinstance(module, LoraLinear) for module in model.modules()):
        raise ConfigError("The model has adapters already.", hint="Fold them in first, with lora.merge.")


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def lora_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters of all adapters by name: what is to be trained."""
    return {name: parameter for name, parameter in model.named_parameters() if _last(name).startswith("lora_")}


def merge(model: Transformer) -> Transformer:
    """Folds all adapters into the weights, in place; the model is plain again, and all of it can be trained."""
    for name, module in list(model.named_modules()):
        if isinstance(module, LoraLinear):
            module.base_layer.weight = nn.Parameter(module.merged())
            model.set_submodule(name, module.base_layer)
    return model.requires_grad_(True)


def save_adapter(model: Transformer, folder: Path | str, base: str = "") -> None:
    """Writes the adapters of `model` as PEFT does, atomically.

    Args:
        model: has adapters.
        folder: does not exist, is empty, or holds an adapter.
        base: name or path of the model that they belong to, for whoever reads the folder.
    """
    folder = Path(folder)
    config = next((module.config for module in model.modules() if isinstance(module, LoraLinear)), None)
    if config is None:
        raise ConfigError("The model has no adapters to save.", hint="Put them there with lora.apply_lora.")
    if not hf.replaceable(folder, (CONFIG,)):
        raise StorageError(f"{folder} is not empty and holds no adapter.", hint="Choose another folder.")
    tensors = {_stored(name): parameter for name, parameter in lora_parameters(model).items()}
    specs = {name: hf.Spec(tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()}
    with atomic_folder(folder) as temporary:
        hf.write_file(temporary / WEIGHTS, specs, tensors.__getitem__)
        write_json(temporary / CONFIG, _to_peft(config, base))


def _stored(name: str) -> str:
    """ "layers.0.mlp.up_proj.lora_A" -> "base_model.model.model.layers.0.mlp.up_proj.lora_A.weight"."""
    return _PREFIX + hf.hf_name(name) + ("" if name.endswith(_MAGNITUDE) else ".weight")


def _ours(stored: str) -> str:
    return hf.our_name(stored.removeprefix(_PREFIX)).removesuffix(".weight")


def _to_peft(config: LoraConfig, base: str) -> dict[str, Any]:
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": config.rank,
        "lora_alpha": config.alpha,
        "lora_dropout": config.dropout,
        "target_modules": list(config.targets),
        "use_dora": config.use_dora,
        "use_rslora": config.use_rslora,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
    }


def load_adapter(model: Transformer, folder: Path | str) -> Transformer:
    """Puts the adapters of a folder that PEFT or `save_adapter` wrote beside the layers of `model`, in place.

    Raises:
        CheckpointError: as `read_adapter`; the model is then as it was.
    """
    _refuse_adapted(model)
    config, found = read_adapter(model, folder)
    apply_lora(model, config)
    with torch.no_grad():
        for name, parameter in lora_parameters(model).items():
            parameter.copy_(found[name])
    return model


def read_adapter(model: Transformer, folder: Path | str) -> tuple[LoraConfig, dict[str, Tensor]]:
    """The shape of a folder's adapter, and its matrices by name, such as "layers.0.mlp.up_proj.lora_A".

    Raises:
        CheckpointError: damaged files, an adapter of another kind, or one for a model of another shape.
    """
    folder = Path(folder)
    data = read_json(folder / CONFIG)
    _refuse_foreign(data, folder)
    if not (folder / WEIGHTS).exists() and (folder / "adapter_model.bin").exists():
        raise CheckpointError(f"{folder} holds a pickled adapter (adapter_model.bin).", hint="Save it as safetensors.")
    found = {_ours(stored): tensor for stored, tensor in hf.read_file(folder / WEIGHTS).items()}
    modules = {match[1] for name in found if (match := re.fullmatch(r"(.+)\.lora_A", name))}
    try:
        config = from_dict(
            LoraConfig,
            {
                "rank": data["r"],
                "alpha": data["lora_alpha"],
                "dropout": data.get("lora_dropout", 0.0),
                "targets": sorted({_last(module) for module in modules}),
                "use_dora": bool(data.get("use_dora")),
                "use_rslora": bool(data.get("use_rslora")),
            },
        )
        expected = _shapes(model, config)
    except (KeyError, ConfigError) as error:
        raise CheckpointError(f"The adapter in {folder} does not fit the model: {error}") from error
    if faults := hf.differences(expected, {name: tuple(tensor.shape) for name, tensor in found.items()}):
        raise CheckpointError(
            f"The adapter in {folder} does not fit the model: {faults}.", hint="It was made for another base model."
        )
    return config, found


def _shapes(model: Transformer, config: LoraConfig) -> dict[str, tuple[int, ...]]:
    """The names and shapes of the tensors that adapters for `model` have.

    They follow from its shape: the layers themselves may be quantised, or adapted already.
    """
    expected: dict[str, tuple[int, ...]] = {}
    layers = {name.removesuffix(".weight"): shape for name, shape in shapes(model.config).items() if len(shape) == 2}
    known = {_last(name) for name in layers if name.startswith("layers.")}
    for target in config.targets:
        if target not in known:
            raise ConfigError(f"The model has no layer {target!r} to adapt.", hint=near(target, known))
    for name, (rows, columns) in layers.items():
        if name.startswith("layers.") and _last(name) in config.targets:
            expected[f"{name}.lora_A"] = config.rank, columns
            expected[f"{name}.lora_B"] = rows, config.rank
            if config.use_dora:
                expected[f"{name}.{_MAGNITUDE}"] = (rows,)
    return expected


@cache
def _peft_keys() -> Mapping[str, list[str]]:
    return tomllib.loads(resources.files("puna.model").joinpath("assets/peft.toml").read_text(encoding="utf-8"))


def _refuse_foreign(data: dict[str, Any], folder: Path) -> None:
    """Refuses a PEFT config that asks for more than LoRA, DoRA and their scalings."""
    kind = data.get("peft_type") if isinstance(data, dict) else None
    if kind != "LORA":
        raise CheckpointError(f"{folder} holds an adapter of type {kind!r}; Puna reads 'LORA'.")
    others = [key for key, value in data.items() if value and key not in _peft_keys()["harmless"]]
    if data.get("bias", "none") != "none":
        others.append("bias")
    if str(data.get("init_lora_weights")).startswith(tuple(_peft_keys()["changes_base"])):
        others.append("init_lora_weights")
    if others:
        shown = ", ".join(f"{key} = {data[key]!r}" for key in others)
        raise CheckpointError(f"The adapter in {folder} uses what Puna does not implement: {shown}.")
