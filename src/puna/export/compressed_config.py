"""`quantization_config` of a compressed-tensors checkpoint: a plan in the words of transformers and vLLM, and back.

Modules fall into groups; a group has one scheme for its weights and one for their inputs. Where a plan has one scheme,
it targets all linear layers and the others are ignored by name; where it has several, each names its modules. Two
things of ours the format cannot say: the cap on activations of Llama 3.1's recipe, and which recipe made the plan. They
stand beside it under the key `puna`; other programs read over it, so they scale a token without a cap.

Left out of reading: zero points, order of activations, sparsity, and schemes that no row of `quant/assets/formats.toml`
has.

The format: github.com/vllm-project/compressed-tensors (quantization/quant_config.py, quant_args.py).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from puna.base.errors import ArtifactError, CheckpointError, ConfigError
from puna.model import hf
from puna.model.config import ModelConfig
from puna.quant.formats import FORMATS, WeightFormat
from puna.quant.plan import HEAD, QuantPlan, linear_shapes

METHOD = "compressed-tensors"
PACKED = "pack-quantized"
_MIXED = "mixed-precision"
_NAIVE = "naive-quantized"
_OWN = "puna"
_DONE = "compressed"
_CLASS = "Linear"


def stored_name(module: str) -> str:
    """Our name of a module as Hugging Face's."""
    return hf.hf_name(f"{module}.weight").removesuffix(".weight")


def file_format(format: WeightFormat) -> str:
    """How the numbers of a format lie in a file.

    vLLM reads 8-bit integers without rounding of the inputs only when they are packed, four to a word.
    """
    if format.kind == "float":
        return "float-quantized"
    return "int-quantized" if format.quantize_activations else PACKED


def scheme(format: WeightFormat) -> dict[str, Any]:
    """What a group says of its weights and inputs."""
    grouped, blocked = format.strategy == "group", format.strategy == "block"
    weights = _arguments(format, format.bits, format.strategy, format.group_size if grouped else None, dynamic=False)
    weights["block_structure"] = [format.group_size] * 2 if blocked else None
    inputs = None
    if format.activations != "none":
        size = format.group_size if format.activations == "group" else None
        inputs = _arguments(format, 8, format.activations, size, dynamic=format.activations != "tensor")
    return {"weights": weights, "input_activations": inputs, "output_activations": None, "format": file_format(format)}


def _arguments(format: WeightFormat, bits: int, strategy: str, size: int | None, *, dynamic: bool) -> dict[str, Any]:
    return {
        "num_bits": bits,
        "type": format.kind,
        "symmetric": True,
        "group_size": size,
        "strategy": strategy,
        "block_structure": None,
        "dynamic": dynamic,
        "actorder": None,
        "observer": None if dynamic else "minmax",
        "observer_kwargs": {},
    }


def write_config(plan: QuantPlan, config: ModelConfig) -> dict[str, Any]:
    """The table for `config.json`.

    Args:
        plan: fits the model.
        config: the shape of the quantised model.
    """
    groups: dict[str, list[str]] = {}
    for module in plan.modules:
        groups.setdefault(json.dumps(scheme(plan.format(module))), []).append(stored_name(module))
    found = {text: json.loads(text) for text in groups}
    formats = {group["format"] for group in found.values()}
    ignored = [stored_name(module) for module in linear_shapes(config) if module not in plan.modules]
    return {
        "quant_method": METHOD,
        "format": formats.pop() if len(formats) == 1 else _MIXED,
        "quantization_status": _DONE,
        "global_compression_ratio": None,
        "config_groups": {
            f"group_{number}": {"targets": [_CLASS] if len(groups) == 1 else names, **found[text]}
            for number, (text, names) in enumerate(groups.items())
        },
        "kv_cache_scheme": None,
        "ignore": ignored,
        _OWN: plan.to_json(),
    }


def read_config(data: Any, config: ModelConfig, names: Iterable[str]) -> QuantPlan:
    """The plan that a table describes.

    Args:
        data: the value of `quantization_config`.
        config: the shape that the rest of the file describes.
        names: of the stored tensors, ours.

    Raises:
        CheckpointError: another method, or a scheme that Puna does not have.
    """
    groups = _check(data)
    ignore = [str(name) for name in data.get("ignore") or ()]
    has_head = any(name.startswith(f"{HEAD}.") for name in names)
    modules: dict[str, str] = {}
    for module in linear_shapes(config):
        if module == HEAD and not has_head:
            continue  # a tied output matrix is the embedding
        stored = stored_name(module)
        if any(_matches(stored, pattern) for pattern in ignore):
            continue
        for group in groups.values():
            if any(_matches(stored, str(target)) for target in group.get("targets", ())):
                modules[module] = _format_of(group)
                break
    if not modules:
        raise CheckpointError("Its quantization_config names no linear layer of the model.")
    return _own_plan(data.get(_OWN), modules) or QuantPlan(modules)


def _check(data: Any) -> Mapping[str, Mapping[str, Any]]:
    """The groups of a table that this module can read."""
    if not isinstance(data, Mapping):
        raise CheckpointError("Its quantization_config is no table.")
    method = data.get("quant_method")
    if method != METHOD:
        raise CheckpointError(
            f"It is quantised by the method {method!r}; Puna reads {METHOD!r}.",
            hint="Use the bfloat16 release of the model, and quantise it with puna quantize.",
        )
    known = ("float-quantized", "int-quantized", PACKED, _NAIVE, _MIXED)
    if data.get("format") not in known:
        raise CheckpointError(f"It is stored in the format {data.get('format')!r}; Puna reads {', '.join(known)}.")
    if data.get("quantization_status", _DONE) != _DONE:
        raise CheckpointError(
            f"Its quantization_status is {data['quantization_status']!r}; its weights are not stored in the format yet."
        )
    groups = data.get("config_groups")
    if not isinstance(groups, Mapping) or not all(isinstance(group, Mapping) for group in groups.values()):
        raise CheckpointError("Its quantization_config has no table of config_groups.")
    return groups


def _matches(module: str, pattern: str) -> bool:
    """Whether a target or an ignored name means a module: by its name, its class, or a regular expression."""
    if not pattern.startswith("re:"):
        return pattern in (module, _CLASS)
    try:
        return re.match(pattern[3:], module) is not None
    except re.error as error:
        raise CheckpointError(f"Its quantization_config holds the pattern {pattern!r}: {error}.") from error


def _format_of(group: Mapping[str, Any]) -> str:
    """The first format with the scheme of a group."""
    found = _essence(group)
    for format in FORMATS.values():
        if format.strategy != "none" and _essence(scheme(format)) == found:
            return format.name
    weights, inputs = group.get("weights") or {}, group.get("input_activations")
    what = " ".join(str(weights.get(key)) for key in ("type", "num_bits", "strategy", "group_size"))
    rest = "inputs as they are" if not inputs else f"inputs rounded by {inputs.get('strategy')}"
    known = ", ".join(name for name in FORMATS if name != "bf16")
    raise CheckpointError(
        f"It has weights of the scheme {what!r} with {rest}; Puna reads {known}.",
        hint="Use the bfloat16 release of the model, and quantise it with puna quantize.",
    )


def _essence(group: Mapping[str, Any]) -> tuple[Any, ...]:
    """What of a scheme changes its numbers."""

    def of(arguments: Any) -> tuple[Any, ...] | None:
        if not arguments:
            return None
        size = arguments.get("group_size")
        return (
            arguments.get("num_bits"),
            arguments.get("type"),
            arguments.get("symmetric", True),
            arguments.get("strategy"),
            None if size == -1 else size,  # older files say so of whole rows
            tuple(arguments.get("block_structure") or ()),
            arguments.get("dynamic", False),
            arguments.get("actorder") == "group",
        )

    return of(group.get("weights")), of(group.get("input_activations")), of(group.get("output_activations"))


def _own_plan(data: Any, modules: Mapping[str, str]) -> QuantPlan | None:
    """The plan that a file of ours names, as long as it says what the groups say; an edited file's groups count."""
    try:
        plan = QuantPlan.from_json(data)
    except (ArtifactError, ConfigError, AttributeError):
        return None
    same = plan.modules.keys() == modules.keys() and all(
        _essence(scheme(plan.format(module))) == _essence(scheme(FORMATS[name])) for module, name in modules.items()
    )
    return plan if same else None
