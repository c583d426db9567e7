"""`ModelConfig`: the shape of a Llama, with the field names of Hugging Face's `config.json`.

The shapes themselves are rows of `assets/sizes.toml`. Reading a foreign `config.json` is strict about what changes
the mathematics: a bias, another activation or another rope type is refused rather than ignored.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cache
from importlib import resources
from typing import Any

from puna.base.config import from_dict, require, to_dict
from puna.base.errors import CheckpointError, ConfigError, near


@dataclass(frozen=True, slots=True)
class RopeScaling:
    """Llama 3.1's rescaling of rotary frequencies for long context ("llama3" in Hugging Face's terms).

    Attributes:
        factor: divides the low frequencies; 8 for Llama 3.1 and 3.3, 32 for Llama 3.2.
        low_freq_factor: wavelengths above original/low are divided.
        high_freq_factor: wavelengths below original/high are kept; those between are blended.
        original_max_position_embeddings: the context length before it was extended.
    """

    factor: float = 8.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_position_embeddings: int = 8192

    def __post_init__(self) -> None:
        require(self.factor >= 1, f"rope_scaling.factor is {self.factor}; it must be at least 1.")
        require(
            self.low_freq_factor < self.high_freq_factor,
            f"rope_scaling.low_freq_factor is {self.low_freq_factor}; it must be below high_freq_factor, "
            f"{self.high_freq_factor}.",
        )


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The shape of a model (arXiv 2407.21783, section 3.2).

    Attributes:
        vocab_size: rows of the embedding, special tokens included.
        hidden_size: D, the width of the residual stream.
        intermediate_size: F, the width of the SwiGLU.
        num_hidden_layers: the number of blocks.
        num_attention_heads: H, query heads.
        num_key_value_heads: G, key and value heads; H/G query heads share one (grouped-query attention).
        head_dim: K, channels of a head; 0 means hidden_size / num_attention_heads.
        max_position_embeddings: the longest sequence, in tokens.
        rope_theta: base of the rotary frequencies.
        rope_scaling: None for models of up to 8K context.
        rms_norm_eps: added to the mean square before its root.
        tie_word_embeddings: whether the output matrix is the embedding.
        bos_token_id: first token of every sequence.
        eos_token_id: tokens that end generation.
    """

    vocab_size: int = 128256
    hidden_size: int = 4096
    intermediate_size: int = 14336
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int = 8
    head_dim: int = 0
    max_position_embeddings: int = 8192
    rope_theta: float = 500_000.0
    rope_scaling: RopeScaling | None = None
    rms_norm_eps: float = 1e-5
    tie_word_embeddings: bool = False
    bos_token_id: int = 128000
    eos_token_id: tuple[int, ...] = (128001, 128008, 128009)

    def __post_init__(self) -> None:
        for name in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"):
            require(getattr(self, name) >= 1, f"{name} is {getattr(self, name)}; it must be at least 1.")
        heads, groups = self.num_attention_heads, self.num_key_value_heads
        require(
            groups >= 1 and heads % groups == 0,
            f"num_key_value_heads is {groups}; it must divide num_attention_heads, which is {heads}.",
        )
        if self.head_dim == 0:
            require(
                self.hidden_size % heads == 0,
                f"hidden_size is {self.hidden_size}; it must be a multiple of num_attention_heads, which is {heads}.",
                "Or set head_dim.",
            )
            object.__setattr__(self, "head_dim", self.hidden_size // heads)
        require(self.head_dim % 2 == 0, f"head_dim is {self.head_dim}; rotary embeddings need an even number.")

    def with_vocabulary(self, size: int, bos: int, eos: tuple[int, ...]) -> ModelConfig:
        """The same shape for another tokenizer."""
        return replace(self, vocab_size=size, bos_token_id=bos, eos_token_id=eos)


@cache
def _sizes() -> Mapping[str, Mapping[str, Any]]:
    return tomllib.loads(resources.files("puna.model").joinpath("assets/sizes.toml").read_text(encoding="utf-8"))


def size_names() -> list[str]:
    return list(_sizes())


def named_size(name: str) -> ModelConfig:
    """The shape of a row of `assets/sizes.toml`: "llama-3.1-8b", "cria-3m", ..."""
    if name not in _sizes():
        raise ConfigError(f"There is no size {name!r}.", hint=near(name, _sizes()))
    return from_dict(ModelConfig, _sizes()[name], at=name)


def ffn_size(hidden_size: int, multiplier: float = 1.0, multiple_of: int = 256) -> int:
    """Meta's rule for the width of the SwiGLU: 8/3 of the model's, times a factor, rounded up to a multiple."""
    width = int(multiplier * int(8 * hidden_size / 3))
    return multiple_of * -(-width // multiple_of)


# What Hugging Face's config may say beside the shape; any other value would need other mathematics than ours.
_HF_FIXED = {"model_type": "llama", "hidden_act": "silu", "attention_bias": False, "mlp_bias": False}
_HF_SHAPE = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
# What transformers' LlamaConfig takes where a file does not say.
_HF_DEFAULTS = {"max_position_embeddings": 2048, "rms_norm_eps": 1e-6, "tie_word_embeddings": False, "bos_token_id": 1}
_HF_KEYS = (*_HF_SHAPE, "num_key_value_heads", "head_dim", *_HF_DEFAULTS)


def from_hf(data: Mapping[str, Any]) -> ModelConfig:
    """Reads the content of a `config.json` of a Llama model, as transformers 4 or 5 writes it.

    Raises:
        CheckpointError: another architecture, a setting that this model does not implement, or no shape.
        ConfigError: a shape that cannot be.
    """
    for key, value in {**_HF_FIXED, "partial_rotary_factor": 1.0}.items():
        if data.get(key, value) != value:
            raise CheckpointError(
                f"config.json says {key} = {data[key]!r}; Puna reads Llama models, where it is {value!r}."
            )
    if data.get("quantization_config"):
        raise CheckpointError(
            "config.json holds a quantization_config; its weights are no float numbers.",
            hint="Write them out first: puna export FOLDER model.gguf; or use the bfloat16 release of the model.",
        )
    if missing := [key for key in _HF_SHAPE if data.get(key) is None]:
        raise CheckpointError(f"config.json has no {', '.join(map(repr, missing))}.")
    # transformers 5 gathers theta and scaling in rope_parameters; earlier versions keep them apart. Where a file has
    # both, rope_scaling decides, as it does there.
    rope = data.get("rope_scaling") or data.get("rope_parameters") or {}
    eos = data.get("eos_token_id")
    values = _HF_DEFAULTS | {key: data[key] for key in _HF_KEYS if data.get(key) is not None}
    values.setdefault("num_key_value_heads", data["num_attention_heads"])
    return from_dict(
        ModelConfig,
        values
        | {"rope_theta": rope.get("rope_theta") or data.get("rope_theta") or 10_000.0}
        | {"rope_scaling": _rope_from_hf(rope)}
        | {"eos_token_id": () if eos is None else (eos,) if isinstance(eos, int) else tuple(eos)},
    )


def _rope_from_hf(rope: Mapping[str, Any]) -> RopeScaling | None:
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return None
    if kind != "llama3":
        raise CheckpointError(f"config.json asks for rope type {kind!r}; Puna knows 'default' and 'llama3'.")
    names = {field.name for field in fields(RopeScaling)}
    return from_dict(RopeScaling, {name: rope[name] for name in names & rope.keys()}, at="rope_scaling")


def to_hf(config: ModelConfig, dtype: str) -> dict[str, Any]:
    """The content of `config.json`, for every reader.

    transformers 4 and the programs that read the file themselves look for `rope_theta`, `rope_scaling` and
    `torch_dtype`; transformers 5 writes the same facts as `rope_parameters` and `dtype`. Both are given.
    """
    scaling = None
    if config.rope_scaling:
        scaling = {"rope_type": "llama3", **to_dict(config.rope_scaling)}
    return {
        "architectures": ["LlamaForCausalLM"],
        **_HF_FIXED,
        **{key: getattr(config, key) for key in _HF_KEYS},
        "eos_token_id": list(config.eos_token_id) if len(config.eos_token_id) != 1 else config.eos_token_id[0],
        "rope_theta": config.rope_theta,
        "rope_scaling": scaling,
        "rope_parameters": {"rope_type": "default", **(scaling or {}), "rope_theta": config.rope_theta},
        "initializer_range": 0.02,
        "use_cache": True,
        "torch_dtype": dtype,
        "dtype": dtype,
    }


def from_meta(params: Mapping[str, Any]) -> ModelConfig:
    """Reads the content of Meta's `params.json`; keys that say nothing of the shape are ignored.

    It does not say the context length, the ending tokens or, in the files that Meta has published, the factor of the
    rope scaling: Meta's own code hard-codes 8, while its 3.2 models (dim 2048 and 3072) were trained with 32. Tied
    embeddings and the true width of the SwiGLU show in the weights; `meta` sets them. A table `puna`, which `to_meta`
    adds where Meta's keys cannot express a shape, holds fields of `ModelConfig` and goes before all else.
    """
    for key in ("dim", "n_layers", "n_heads", "vocab_size"):
        if not isinstance(params.get(key), int):
            raise CheckpointError(f"params.json says {key} = {params.get(key)!r}; it must be a whole number.")
    dim, heads = params["dim"], params["n_heads"]
    scaled = bool(params.get("use_scaled_rope", False))
    # Llama 2, the last without rope_theta, had a context of 4,096 tokens.
    context = 131072 if scaled else 8192 if "rope_theta" in params else 4096
    factor = params.get("rope_scaling_factor") or (32.0 if dim in (2048, 3072) else 8.0)
    config = ModelConfig(
        vocab_size=params["vocab_size"],
        hidden_size=dim,
        intermediate_size=ffn_size(dim, params.get("ffn_dim_multiplier") or 1.0, params.get("multiple_of", 256)),
        num_hidden_layers=params["n_layers"],
        num_attention_heads=heads,
        num_key_value_heads=params.get("n_kv_heads") or heads,
        head_dim=params.get("puna", {}).get("head_dim", 0),
        max_position_embeddings=context,
        rope_theta=float(params.get("rope_theta", 10_000.0)),
        rope_scaling=RopeScaling(factor=factor) if scaled else None,
        rms_norm_eps=params.get("norm_eps", 1e-5),
    )
    return from_dict(ModelConfig, to_dict(config) | params.get("puna", {}), at="params.json: puna")


def to_meta(config: ModelConfig) -> dict[str, Any]:
    """The content of `params.json`, from which `from_meta` reads the same shape (tied embeddings left out)."""
    multiplier, multiple_of = _ffn_rule(config.hidden_size, config.intermediate_size)
    params: dict[str, Any] = {
        "dim": config.hidden_size,
        "n_layers": config.num_hidden_layers,
        "n_heads": config.num_attention_heads,
        "n_kv_heads": config.num_key_value_heads,
        "vocab_size": config.vocab_size,
        "ffn_dim_multiplier": multiplier,
        "multiple_of": multiple_of,
        "norm_eps": config.rms_norm_eps,
        "rope_theta": config.rope_theta,
        "use_scaled_rope": config.rope_scaling is not None,
    }
    if config.head_dim * config.num_attention_heads != config.hidden_size:
        params["puna"] = {"head_dim": config.head_dim}
    read = to_dict(replace(from_meta(params), tie_word_embeddings=config.tie_word_embeddings))
    if unsaid := {key: value for key, value in to_dict(config).items() if read.get(key) != value}:
        params["puna"] = params.get("puna", {}) | unsaid
    return params


def _ffn_rule(hidden_size: int, width: int) -> tuple[float, int]:
    """A multiplier and a multiple with which `ffn_size` gives `width`: the roundest multiplier that does."""
    exact = width / int(8 * hidden_size / 3)
    for digits in range(1, 17):
        for multiple_of in (256, 512, 1024, 2048, 4096, 128, 64, 32, 16, 8, 4, 2, 1):
            for multiplier in (round(exact, digits), round(exact, digits) + 10**-digits):
                if ffn_size(hidden_size, multiplier, multiple_of) == width:
                    return multiplier, multiple_of
    return 1.0, 256  # none does; `to_meta` then says the width itself
