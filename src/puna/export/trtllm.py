"""A checkpoint in the layout of NVIDIA's ModelOpt, from which TensorRT-LLM, vLLM and SGLang run FP8: written and read.

A Hugging Face folder with E4M3 weights and a file `hf_quant_config.json` that names the algorithm and the modules that
are left out. Two of our formats have an algorithm there: `fp8-tensor` (FP8: one scale for each matrix, one for its
inputs, both scalars) and `fp8` (FP8_PER_CHANNEL_PER_TOKEN: one for each row). A file has one algorithm for all. Other
plans are refused; TensorRT-LLM also reads compressed-tensors with blocks of 128. The key-value cache is left as it is:
ModelOpt's scales for it are static, and ours belong to a token.

The producer is called "modelopt" because vLLM reads the file only under this name; the card tells who wrote it.

The format: github.com/NVIDIA/TensorRT-Model-Optimizer (unified Hugging Face checkpoints).
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from puna.base.device import resolve_dtype
from puna.base.errors import ArtifactError, CheckpointError, ConfigError
from puna.base.files import read_json
from puna.export.compressed_config import stored_name
from puna.export.compressed_layout import QuantWeights
from puna.export.folder import Folder, card_of, write_folder
from puna.export.plausible import check_plausible
from puna.export.quantized import formats_of, layers_of, tensor_specs, torn_apart
from puna.model import hf
from puna.model.checkpoint import CONFIG, Checkpoint
from puna.model.config import ModelConfig, from_hf, to_hf
from puna.model.transformer import Transformer
from puna.quant.plan import HEAD, QuantPlan, linear_shapes

FILE = "hf_quant_config.json"
# Our format -> the algorithm's name, and what it says of weights and inputs.
ALGORITHMS = {"fp8-tensor": "FP8", "fp8": "FP8_PER_CHANNEL_PER_TOKEN"}
_GROUPS: Mapping[str, Mapping[str, Any]] = {
    "FP8": {
        "weights": {"dynamic": False, "num_bits": 8, "type": "float"},
        "input_activations": {"dynamic": False, "num_bits": 8, "type": "float"},
    },
    "FP8_PER_CHANNEL_PER_TOKEN": {
        "weights": {"dynamic": False, "num_bits": 8, "type": "float", "strategy": "channel"},
        "input_activations": {"dynamic": True, "num_bits": 8, "type": "float", "strategy": "token"},
    },
}
# The version of ModelOpt whose layout this is.
_PRODUCER = {"name": "modelopt", "version": "0.29.0"}
_OTHERWISE = "Export it with --to compressed-tensors."


def save(
    folder: Path | str,
    model: Transformer,
    plan: QuantPlan,
    checkpoint: Checkpoint | None = None,
    dtype: str = "bfloat16",
    *,
    max_shard_bytes: int = hf.MAX_SHARD_BYTES,
) -> None:
    """Writes a quantised model for TensorRT-LLM, atomically. The arguments are those of `compressed_tensors.save`.

    Raises:
        ConfigError: a plan that the layout cannot express.
        CheckpointError: a model that is not quantised as the plan says.
        StorageError: too little space, or a folder with other things in it.
    """
    layers, config = layers_of(model, plan), model.config
    algorithm = _algorithm(plan, config)
    excluded = [stored_name(module) for module in linear_shapes(config) if module not in plan.modules]
    inline = {
        "quant_method": "modelopt",
        "quant_algo": algorithm,
        "config_groups": {"group_0": {**_GROUPS[algorithm], "targets": ["Linear"]}},
        "ignore": excluded,
        "producer": _PRODUCER,
    }
    quantization = {"quant_algo": algorithm, "kv_cache_quant_algo": None, "exclude_modules": excluded}
    quantized: dict[str, Tensor] = {
        f"{module}.{key}": tensor for module, layer in layers.items() for key, tensor in layer.tensors.items()
    }
    plain = {name: parameter.detach() for name, parameter in model.named_parameters()}
    specs = _specs(config, plan, resolve_dtype(dtype))
    write_folder(
        Folder(
            Path(folder),
            {**to_hf(config, dtype), "quantization_config": inline},
            checkpoint,
            card_of(plan, checkpoint),
            {FILE: {"producer": _PRODUCER, "quantization": quantization}},
            max_shard_bytes,
        ),
        specs,
        lambda name: quantized[name].view(specs[name].shape) if name in quantized else plain[name],
    )


def _algorithm(plan: QuantPlan, config: ModelConfig) -> str:
    """The algorithm that expresses a plan."""
    names = sorted(formats.name for formats in formats_of(plan).values())
    if other := [name for name in names if name not in ALGORITHMS]:
        raise ConfigError(
            f"The plan has the format {other[0]}; the TensorRT-LLM layout has {' and '.join(ALGORITHMS)}.",
            hint=f"Quantise the model with --recipe fp8-tensor or fp8. {_OTHERWISE}",
        )
    if len(set(names)) > 1:
        raise ConfigError(
            f"The plan has the formats {names[0]} and {names[-1]}; the layout has one for all.", hint=_OTHERWISE
        )
    if HEAD in formats_of(plan):
        raise ConfigError(f"The plan quantises {HEAD}; in the layout it stays as it is.", hint=_OTHERWISE)
    if torn := torn_apart(plan, config):
        raise ConfigError(
            f"The plan quantises only some of {torn[0]}; TensorRT-LLM multiplies them as one matrix.", hint=_OTHERWISE
        )
    return ALGORITHMS[names[0]]


def _specs(config: ModelConfig, plan: QuantPlan, dtype: torch.dtype) -> dict[str, hf.Spec]:
    """Name -> shape and dtype as they lie in a file: scales of a matrix are scalars, those of rows a vector."""
    specs = tensor_specs(config, plan, dtype)
    return {
        name: hf.Spec(spec.shape[:1] if spec.shape != (1,) else (), spec.dtype) if name.endswith("_scale") else spec
        for name, spec in specs.items()
    }


def load(folder: Path | str) -> tuple[ModelConfig, QuantPlan, QuantWeights]:
    """Opens a folder in ModelOpt's layout; nothing but headers is read.

    Returns:
        As `compressed_tensors.load`.

    Raises:
        CheckpointError: no such folder, another algorithm, or tensors that are missing or do not fit.
    """
    folder = Path(folder)
    try:
        quantization = read_json(folder / FILE)["quantization"]
        data = dict(read_json(folder / CONFIG))
        algorithm, excluded = quantization["quant_algo"], list(quantization.get("exclude_modules") or [])
    except ArtifactError as error:
        raise CheckpointError(error.message, hint=error.hint) from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{folder / FILE} does not have the form of ModelOpt's: {error!r}.") from error
    format = next((ours for ours, theirs in ALGORITHMS.items() if theirs == algorithm), None)
    if format is None:
        raise CheckpointError(
            f"{folder} is quantised by the algorithm {algorithm!r}; Puna reads {', '.join(ALGORITHMS.values())}."
        )
    stored = hf.read_weights(folder)
    try:
        config = from_hf({key: value for key, value in data.items() if key != "quantization_config"})
        check_plausible(config, len(stored))
    except (CheckpointError, ConfigError) as error:
        raise CheckpointError(f"{folder}: {error.message}", hint=error.hint) from error
    except (TypeError, ValueError, AttributeError, KeyError, OverflowError) as error:
        raise CheckpointError(f"{folder / CONFIG} does not have the form of a Llama's: {error!r}.") from error
    modules = [
        module
        for module in linear_shapes(config)
        if module != HEAD and not any(fnmatch.fnmatchcase(stored_name(module), str(glob)) for glob in excluded)
    ]
    plan = QuantPlan(dict.fromkeys(modules, format), format)
    expected = {name: spec.shape for name, spec in _specs(config, plan, torch.bfloat16).items()}
    if faults := hf.differences(expected, {name: stored.spec(name).shape for name in stored}):
        raise CheckpointError(f"{folder} does not fit its {FILE}: {faults}.", hint="The download may be incomplete.")
    for module in modules:
        if stored.spec(f"{module}.weight").dtype != torch.float8_e4m3fn:
            raise CheckpointError(f"{folder} stores {module}.weight as {stored.spec(f'{module}.weight').dtype}.")
    return config, plan, QuantWeights(stored, config, plan)
