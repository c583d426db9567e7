"""Quantised checkpoints in the compressed-tensors layout, which transformers, vLLM and SGLang load: saved and loaded.

A Hugging Face folder. What is quantised lies in `X.weight` (int8 or E4M3) with `X.weight_scale`, or in
`X.weight_packed` (words of 32 bits) with `X.weight_scale` and `X.weight_shape`; where inputs have one scale for all, it
is `X.input_scale`. Everything else is bfloat16. Weights stay mapped: those that lie in the file as our kernels read
them are used without a copy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from puna.base.card import CARD, Card
from puna.base.device import resolve_dtype
from puna.base.errors import CheckpointError, ConfigError
from puna.base.files import read_json
from puna.export.compressed_config import read_config, write_config
from puna.export.compressed_layout import QuantWeights, check_fit, file_specs, file_tensors
from puna.export.folder import Folder, card_of, write_folder
from puna.export.plausible import check_plausible
from puna.export.quantized import formats_of, layers_of
from puna.model import hf
from puna.model.checkpoint import CONFIG, GENERATION, Checkpoint
from puna.model.config import ModelConfig, from_hf, to_hf
from puna.model.transformer import Transformer, shapes
from puna.quant.apply import quantized_skeleton
from puna.quant.formats import dequantize_weight
from puna.quant.plan import QuantPlan
from puna.tokenizer import Tokenizer
from puna.tokenizer.tokenizer import JSON, MODEL

QUANTIZATION = "quantization_config"
# What other programs store beside the weights: scales of their own caches, and tables of older writers.
_EXTRAS = (".k_scale", ".v_scale", ".q_scale", "rotary_emb.inv_freq")
_INCOMPLETE = "The weights and the config belong to different models, or the download is incomplete."


def save(
    folder: Path | str,
    model: Transformer,
    plan: QuantPlan,
    checkpoint: Checkpoint | None = None,
    dtype: str = "bfloat16",
    *,
    card: Card | None = None,
    max_shard_bytes: int = hf.MAX_SHARD_BYTES,
) -> None:
    """Writes a quantised model as a Hugging Face folder, atomically.

    Args:
        folder: does not exist, is empty, or holds a checkpoint, which it replaces.
        model: with `QuantLinear` layers where the plan says.
        plan: which layer has which format.
        checkpoint: the float model that it was made from: its tokenizer, its settings of generation and its card.
        dtype: of what is not quantised.
        card: of the artifact; by default one that names the checkpoint and the plan.
        max_shard_bytes: weights above this size are spread over several files.

    Raises:
        ConfigError: a plan without a quantised layer.
        CheckpointError: a model that is not quantised as the plan says.
        StorageError: too little space, or a folder with other things in it.
    """
    layers, config = layers_of(model, plan), model.config
    table = {**to_hf(config, dtype), QUANTIZATION: write_config(plan, config)}
    quantized = file_tensors(layers)
    plain = {name: parameter.detach() for name, parameter in model.named_parameters()}
    write_folder(
        Folder(Path(folder), table, checkpoint, card or card_of(plan, checkpoint), max_shard_bytes=max_shard_bytes),
        file_specs(config, plan, resolve_dtype(dtype)),
        lambda name: quantized[name]() if name in quantized else plain[name],
    )


def is_quantized(folder: Path | str) -> bool:
    """Whether a folder's config.json says that its weights are quantised, by whatever method."""
    path = Path(folder) / CONFIG
    data = read_json(path) if path.exists() else None
    return isinstance(data, dict) and bool(data.get(QUANTIZATION))


def load(folder: Path | str) -> tuple[ModelConfig, QuantPlan, QuantWeights]:
    """Opens a quantised folder; nothing but headers is read.

    Returns:
        The shape of the quantised model, the plan, and the tensors for `quantized_skeleton(config, plan)`.

    Raises:
        CheckpointError: no such folder, one that is not quantised or by another method, a scheme that Puna does not
            have, or tensors that are missing or do not fit.
    """
    folder = Path(folder)
    if not (folder / CONFIG).exists():
        raise CheckpointError(f"{folder} holds no {CONFIG}.", hint="Give the folder of a checkpoint.")
    data = read_json(folder / CONFIG)
    if not isinstance(data, dict) or not data.get(QUANTIZATION):
        raise CheckpointError(
            f"{folder} is not quantised: its {CONFIG} has no {QUANTIZATION}.", hint="Load it with Checkpoint.load."
        )
    stored = hf.read_weights(folder)
    stored = stored.without([name for name in stored if name.endswith(_EXTRAS)])
    try:
        config = from_hf({key: value for key, value in data.items() if key != QUANTIZATION})
        check_plausible(config, len(stored))
        plan = read_config(data[QUANTIZATION], config, stored)
        plan.check(config)
        config = plan.config(config)
        faults = check_fit(stored, config, plan)
    except (CheckpointError, ConfigError) as error:
        raise CheckpointError(f"{folder}: {error.message}", hint=error.hint) from error
    except (TypeError, ValueError, AttributeError, KeyError, OverflowError) as error:
        raise CheckpointError(f"{folder / CONFIG} does not have the form of a quantised Llama's: {error!r}.") from error
    if faults:
        raise CheckpointError(f"{folder} does not fit its {QUANTIZATION}: {faults}.", hint=_INCOMPLETE)
    return config, plan, QuantWeights(stored, config, plan)


def load_model(folder: Path | str, dtype: str = "bfloat16") -> Transformer:
    """A quantised model of a folder, ready to run on the CPU.

    Args:
        folder: as for `load`.
        dtype: of what is not quantised, and of the activations.
    """
    config, plan, weights = load(folder)
    model, wanted = quantized_skeleton(config, plan), resolve_dtype(dtype)
    state = {name: weights[name] if name in weights.quantized else weights[name].to(wanted) for name in weights}
    model.load_state_dict(state, assign=True)
    return model.eval()


class DequantizedWeights(Mapping[str, Tensor]):
    """The float weights that stored ones stand for, written out one by one when they are asked for."""

    def __init__(self, config: ModelConfig, plan: QuantPlan, weights: QuantWeights, dtype: torch.dtype) -> None:
        self._names, self._weights, self._dtype = shapes(config), weights, dtype
        self._formats = formats_of(plan)

    def __getitem__(self, name: str) -> Tensor:
        module = name.removesuffix(".weight")
        if module not in self._formats:
            return self._weights[name]
        format, shape = self._formats[module], self._names[name]
        keys = format.specs(shape[0], shape[1])
        tensors = {key: self._weights[f"{module}.{key}"] for key in keys}
        return dequantize_weight(tensors, format, self._dtype)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def load_dequantized(folder: Path | str, dtype: str = "bfloat16") -> Checkpoint:
    """A quantised folder as an ordinary checkpoint, for whatever needs float weights: training, or another export.

    Args:
        folder: as for `load`.
        dtype: of the weights that were quantised.
    """
    folder = Path(folder)
    config, plan, weights = load(folder)
    tokenizer = Tokenizer.load(folder) if (folder / JSON).exists() or (folder / MODEL).exists() else None
    card = Card.read(folder) if (folder / CARD).exists() else None
    generation = read_json(folder / GENERATION) if (folder / GENERATION).exists() else {}
    floats = DequantizedWeights(config, plan, weights, resolve_dtype(dtype))
    return Checkpoint(config, floats, tokenizer, card, generation)
