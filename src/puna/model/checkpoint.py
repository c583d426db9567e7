"""`Checkpoint`: a model at rest: its shape, its weights, its tokenizer and where it came from.

Read from Hugging Face's layout or Meta's, written in either. Weights are mapped into memory and read when they are
used; formats stand in `hf` and `meta`. What a run needs to go on (optimizer state) is not here but in `train`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from puna.base.card import CARD, Card
from puna.base.device import resolve_dtype
from puna.base.errors import CheckpointError, ConfigError, StorageError
from puna.base.files import atomic_folder, hash_folder, read_json, recover_folder, require_space, write_json
from puna.model import hf, meta
from puna.model.config import ModelConfig, from_hf, to_hf
from puna.model.transformer import Transformer, shapes, without_memory

if TYPE_CHECKING:
    from puna.tokenizer import Tokenizer

CONFIG = "config.json"
GENERATION = "generation_config.json"
_TOKENIZERS = ("tokenizer.json", "tokenizer.model")
_SMALL_FILES = 64 << 20  # room for a tokenizer and the JSON files, in bytes


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """A model at rest.

    Attributes:
        config: its shape.
        weights: parameter name -> tensor. The names are those of `Transformer`, which are Hugging Face's without the
            leading `model.`.
        tokenizer: None where the folder has none.
        card: None for a folder that Puna did not write.
        generation: the content of `generation_config.json`.
    """

    config: ModelConfig
    weights: Mapping[str, Tensor]
    tokenizer: Tokenizer | None = None
    card: Card | None = None
    generation: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path | str, *, allow_pickle: bool = False) -> Checkpoint:
        """Opens a folder in Hugging Face's layout (safetensors) or Meta's (`consolidated.NN.pth`).

        Args:
            path: the folder.
            allow_pickle: whether Meta's files may be read. They are pickles: they are read as tensors only, in a
                process of their own, which first converts them to safetensors on the disk.

        Raises:
            CheckpointError: a missing, damaged or incomplete folder, another architecture, or weights that do not fit
                the config.
            TokenizerError: a tokenizer that cannot be read.
        """
        path = Path(path)
        if not path.exists():
            recover_folder(path)
        if not path.is_dir():
            raise _no_folder(path)
        if (path / CONFIG).exists():
            config, weights = _read_config(path), hf.read_weights(path)
        elif not (path / meta.PARAMS).exists():
            raise _neither(path)
        elif allow_pickle:
            config, weights = meta.load(path)
        else:
            raise CheckpointError(
                f"{path} holds Meta's files ({meta.PARAMS}, consolidated.NN.pth), which are Python pickles.",
                hint=f"If you trust them: puna convert {path} OUT --allow-pickle, or Checkpoint.load(..., "
                "allow_pickle=True).",
            )
        weights = _without_extras(config, weights, path)
        _require_floats(weights, path)
        check_fit(config, {name: weights.spec(name).shape for name in weights}, path)
        tokenizer = _read_tokenizer(path, config)
        card = Card.read(path) if (path / CARD).exists() else None
        generation = read_json(path / GENERATION) if (path / GENERATION).exists() else {}
        return cls(config, weights, tokenizer, card, generation)

    @classmethod
    def of(
        cls,
        model: Transformer,
        tokenizer: Tokenizer | None = None,
        card: Card | None = None,
        generation: Mapping[str, Any] | None = None,
    ) -> Checkpoint:
        """A live model as a checkpoint, which shares its memory: later training shows in it until it is saved."""
        weights = {name: parameter.detach() for name, parameter in model.named_parameters()}
        check_fit(model.config, {name: tuple(tensor.shape) for name, tensor in weights.items()}, "The model")
        return cls(model.config, weights, tokenizer, card, generation or {})

    def model(self, dtype: str | torch.dtype | None = "float32", device: str | torch.device = "cpu") -> Transformer:
        """A network with these weights.

        Weights of a folder that are already in `dtype` are not copied: they are read from its files when they are
        first used, and training them changes neither the files nor another model. Others are converted one by one.

        Args:
            dtype: of all parameters; None keeps what is stored.
            device: where they go.
        """
        model = without_memory(self.config)
        mapped = isinstance(self.weights, hf.MappedWeights)
        source = self.weights.copy() if isinstance(self.weights, hf.MappedWeights) else self.weights
        state = {name: source[name].to(device, _dtype(dtype), copy=not mapped) for name in shapes(self.config)}
        model.load_state_dict(state, assign=True)
        return model.requires_grad_(True)

    def save(
        self,
        folder: Path | str,
        *,
        dtype: str | torch.dtype | None = None,
        max_shard_bytes: int = hf.MAX_SHARD_BYTES,
    ) -> None:
        """Writes a folder in Hugging Face's layout, atomically; it replaces a checkpoint that stands there.

        Args:
            folder: does not exist, is empty, or holds a checkpoint (also the one that these weights are mapped from).
            dtype: of the stored weights; None keeps their own.
            max_shard_bytes: weights above this size are spread over several files.

        Raises:
            StorageError: too little space, or a folder with other things in it.
        """
        specs = self._specs(dtype)
        with self._new_folder(Path(folder), specs) as temporary:
            hf.write_weights(temporary, specs, self.weights.__getitem__, max_shard_bytes)
            data = to_hf(self.config, _main_dtype(specs))
            write_json(temporary / CONFIG, data)
            ids = {key: data[key] for key in ("bos_token_id", "eos_token_id")}
            write_json(temporary / GENERATION, ids | dict(self.generation))

    def save_meta(self, folder: Path | str, ranks: int = 1, *, dtype: str | torch.dtype | None = None) -> None:
        """Writes a folder in Meta's layout, with one file (a pickle of tensors) for each of `ranks`, atomically.

        Raises:
            ConfigError: the shape cannot be split over so many ranks.
            StorageError: as `save`.
        """
        specs = self._specs(dtype)
        with self._new_folder(Path(folder), specs) as temporary:
            meta.write(temporary, self.config, self.weights, ranks, _dtype(dtype))

    def _specs(self, dtype: str | torch.dtype | None) -> dict[str, hf.Spec]:
        wanted = _dtype(dtype)
        return {name: hf.Spec(shape, wanted or self.weights[name].dtype) for name, shape in shapes(self.config).items()}

    @contextmanager
    def _new_folder(self, folder: Path, specs: Mapping[str, hf.Spec]) -> Iterator[Path]:
        """A folder to put weights into; the tokenizer and the card join them."""
        if not hf.replaceable(folder, (CONFIG, meta.PARAMS)):
            raise StorageError(
                f"{folder} is not empty and holds no checkpoint; saving there would delete what it holds.",
                hint="Choose another folder.",
            )
        require_space(folder, sum(spec.bytes for spec in specs.values()) + _SMALL_FILES)
        with atomic_folder(folder) as temporary:
            yield temporary
            if self.tokenizer is not None:
                self.tokenizer.save(temporary)
            card = self.card or Card("checkpoint")
            replace(card, content=hash_folder(temporary, leave_out=[CARD])).write(temporary)


def check_fit(config: ModelConfig, found: Mapping[str, tuple[int, ...]], source: Path | str) -> None:
    """Compares the shapes of weights with those that `config` asks for.

    Raises:
        CheckpointError: tensors are missing, unexpected or of another shape; it gives their number and the first few.
    """
    faults = hf.differences(shapes(config), found)
    if not faults:
        return
    hint = "The weights and the config belong to different models, or the download is incomplete."
    if "lm_head.weight" in shapes(config) and "lm_head.weight" not in found:
        hint = "If the output matrix is the embedding, set tie_word_embeddings to true in config.json."
    elif any(".base_layer." in name for name in found):
        hint = "Fold the adapters into the weights first, with lora.merge."
    raise CheckpointError(f"{source} does not fit its config: {faults}.", hint=hint)


def _without_extras(config: ModelConfig, weights: hf.MappedWeights, source: Path) -> hf.MappedWeights:
    """Drops what older writers stored besides the parameters: rotary frequencies, and a tied matrix twice."""
    extras = [name for name in weights if name.endswith("rotary_emb.inv_freq")]
    if config.tie_word_embeddings and {"lm_head.weight", "embed_tokens.weight"} <= weights.keys():
        if not torch.equal(weights["lm_head.weight"], weights["embed_tokens.weight"]):
            raise CheckpointError(
                f"{source} says tie_word_embeddings, but its lm_head.weight differs from embed_tokens.weight.",
                hint="If the output matrix has weights of its own, set tie_word_embeddings to false in config.json.",
            )
        extras.append("lm_head.weight")
    return weights.without(extras)


def _require_floats(weights: hf.MappedWeights, source: Path) -> None:
    odd = next((name for name in weights if weights.spec(name).dtype not in hf.FLOATS), None)
    if odd is not None:
        raise CheckpointError(
            f"{source} stores {odd} as {weights.spec(odd).dtype}, and its config.json does not say how to read that.",
            hint="A quantised checkpoint has a quantization_config: download its config.json again.",
        )


def _read_config(folder: Path) -> ModelConfig:
    data = read_json(folder / CONFIG)
    if not isinstance(data, dict):
        raise CheckpointError(f"{folder / CONFIG} holds no table of settings.")
    try:
        return from_hf(data)
    except (ConfigError, CheckpointError) as error:
        raise CheckpointError(f"{folder}: {error.message}", hint=error.hint) from error


def _read_tokenizer(folder: Path, config: ModelConfig) -> Tokenizer | None:
    if not any((folder / name).exists() for name in _TOKENIZERS):
        return None
    from puna.tokenizer import Tokenizer

    tokenizer = Tokenizer.load(folder)
    if tokenizer.vocab_size > config.vocab_size:
        raise CheckpointError(
            f"{folder} holds a tokenizer of {tokenizer.vocab_size} tokens and a model of {config.vocab_size}.",
            hint="They belong to different models.",
        )
    return tokenizer


def _dtype(dtype: str | torch.dtype | None) -> torch.dtype | None:
    return resolve_dtype(dtype) if isinstance(dtype, str) else dtype


def _main_dtype(specs: Mapping[str, hf.Spec]) -> str:
    """The name of the dtype that most numbers have."""
    numbers: Counter[torch.dtype] = Counter()
    for spec in specs.values():
        numbers[spec.dtype] += spec.numbers
    return str(numbers.most_common(1)[0][0]).removeprefix("torch.")


def _no_folder(path: Path) -> CheckpointError:
    if path.exists():
        return CheckpointError(f"{path} is a file; a checkpoint is a folder.", hint=f"Give its folder, {path.parent}.")
    return CheckpointError(
        f"There is no folder {path}.",
        hint="Models of the Hugging Face hub are downloaded first: hf download NAME --local-dir FOLDER",
    )


def _neither(path: Path) -> CheckpointError:
    found = hf.first_few(sorted(child.name for child in path.iterdir()), 5)
    hint = "Give the folder that holds the model's files."
    if (path / "adapter_config.json").exists():
        hint = "It is an adapter: load its base model, then lora.load_adapter."
    return CheckpointError(
        f"{path} is no checkpoint: it has neither {CONFIG} nor {meta.PARAMS}, but {found or 'nothing at all'}.",
        hint=hint,
    )
