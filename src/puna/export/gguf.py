"""GGUF: a model in one file, for llama.cpp and the programs built on it (Ollama, LM Studio).

`save` writes the llama architecture with its tokenizer and chat template in F32, F16, BF16, Q8_0 or Q4_0; `load` reads
such files, also those of others and in more formats (see `gguf_types`), as a checkpoint whose weights are decoded when
they are used.

llama.cpp turns neighbouring channels of a head, so the rows of the query and key projections change places on the way
out and in, as in Meta's files. Norms are float32. In a Q4_0 file the embedding and the output matrix are Q8_0: four
bits there cost more quality than they save bytes. Rows that are no whole number of blocks are F16.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from torch import Tensor

from puna.base.card import version
from puna.base.errors import CheckpointError, ConfigError, near
from puna.export.gguf_config import ARCHITECTURE, ROPE, read_config, rope_divisors, write_config
from puna.export.gguf_file import ALIGNMENT, Entry, GgufFile, TensorEntry, write_gguf
from puna.export.gguf_types import TYPES, TensorType, table
from puna.export.gguf_vocab import read_tokenizer, write_tokenizer
from puna.export.plausible import check_plausible
from puna.model.checkpoint import Checkpoint, check_fit
from puna.model.config import ModelConfig
from puna.model.meta import to_halves, to_pairs
from puna.model.transformer import shapes

# What `save` can write, by the names of the command line.
WRITTEN = tuple(kind.name.lower() for kind in TYPES.values() if kind.writable)
_QUANTIZATION_VERSION = 2  # of ggml's block formats, unchanged since 2023
_LAYER = re.compile(r"layers\.(\d+)\.")
_BLOCK = re.compile(r"blk\.(\d+)\.")


def gguf_name(name: str) -> str:
    """Our name of a parameter as GGUF's: "layers.7.mlp.up_proj.weight" -> "blk.7.ffn_up.weight"."""
    layer = _LAYER.match(name)
    if layer is None:
        return table()["names"][name]
    return table()["names"][f"layers.N.{name[layer.end() :]}"].replace("N", layer[1], 1)


def our_name(name: str) -> str:
    """The inverse of `gguf_name`; a name that no Llama has stays as it is."""
    ours = {theirs: own for own, theirs in table()["names"].items()}
    layer = _BLOCK.match(name)
    if layer is None:
        return ours.get(name, name)
    own = ours.get(f"blk.N.{name[layer.end() :]}")
    return own.replace("N", layer[1], 1) if own else name


def save(path: Path | str, checkpoint: Checkpoint, kind: str = "q8_0", *, name: str = "") -> None:
    """Writes a model as one GGUF file, atomically and one tensor at a time.

    Args:
        path: of the file; a GGUF file that stands there is replaced.
        checkpoint: the model.
        kind: one of `WRITTEN`.
        name: what programs show the model as; by default the name of the file.

    Raises:
        ConfigError: an unknown kind.
        CheckpointError: weights that the format cannot hold.
        StorageError: too little space, or a path with something else at it.
    """
    path = Path(path)
    if kind not in WRITTEN:
        raise ConfigError(f"There is no GGUF type {kind!r} to write.", hint=near(kind, WRITTEN))
    config, stored = checkpoint.config, TYPES[kind.upper()]
    tensors = [
        TensorEntry(gguf_name(own), shape, _kind_of(own, shape, stored)) for own, shape in shapes(config).items()
    ]
    divisors = rope_divisors(config)
    if divisors is not None:
        tensors.append(TensorEntry(ROPE, tuple(divisors.shape), TYPES["F32"]))

    def read(stored_name: str) -> Tensor:
        if stored_name == ROPE and divisors is not None:
            return divisors
        own = our_name(stored_name)
        heads = _rotated_heads(own, config)
        return to_pairs(checkpoint.weights[own].detach(), heads) if heads else checkpoint.weights[own]

    metadata = {
        **_general(checkpoint, stored, name or path.stem),
        **write_config(config),
        **write_tokenizer(checkpoint.tokenizer, config),
    }
    write_gguf(path, metadata, tensors, read)


def _general(checkpoint: Checkpoint, kind: TensorType, name: str) -> dict[str, Entry]:
    entries: dict[str, Entry] = {
        "general.architecture": ("string", ARCHITECTURE),
        "general.type": ("string", "model"),
        "general.name": ("string", name),
        "general.alignment": ("uint32", ALIGNMENT),
        "general.file_type": ("uint32", table()["file_types"][kind.name]),
        "puna.version": ("string", version()),
    }
    if kind.dtype is None:
        entries["general.quantization_version"] = ("uint32", _QUANTIZATION_VERSION)
    if checkpoint.card and checkpoint.card.content:
        entries["puna.source"] = ("string", checkpoint.card.content)
    return entries


def _kind_of(name: str, shape: tuple[int, ...], kind: TensorType) -> TensorType:
    if len(shape) == 1:
        return TYPES["F32"]
    if kind.name == "Q4_0" and name in ("embed_tokens.weight", "lm_head.weight"):
        kind = TYPES["Q8_0"]
    return kind if shape[-1] % kind.numbers == 0 else TYPES["F16"]


def _rotated_heads(name: str, config: ModelConfig) -> int:
    """The heads of a parameter whose rows the two layouts order differently; 0 for all others."""
    if name.endswith("q_proj.weight"):
        return config.num_attention_heads
    return config.num_key_value_heads if name.endswith("k_proj.weight") else 0


class GgufWeights(Mapping[str, Tensor]):
    """The tensors of a GGUF file by our names, decoded each time they are asked for.

    Plain formats share the memory of the file; blocks become float32, which holds all their values exactly.
    """

    def __init__(self, file: GgufFile, config: ModelConfig) -> None:
        self._file = file
        self._config = config
        self._stored = _stored_names(file)

    def __getitem__(self, name: str) -> Tensor:
        tensor = self._file.tensor(self._stored[name])
        heads = _rotated_heads(name, self._config)
        return to_halves(tensor, heads) if heads else tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored)

    def __len__(self) -> int:
        return len(self._stored)


def _stored_names(file: GgufFile) -> dict[str, str]:
    """Our name -> the stored one, for all tensors that are parameters."""
    return {our_name(stored): stored for stored in file.tensors if stored != ROPE}


def load(path: Path | str) -> Checkpoint:
    """Opens a GGUF file of the llama architecture as a checkpoint; nothing but its metadata is read.

    Raises:
        CheckpointError: a missing, damaged or cut off file, another architecture, a format that Puna does not decode,
            or tensors that do not fit the metadata.
        TokenizerError: a tokenizer that is not Llama 3's.
    """
    file = GgufFile(path)
    found = {own: file.tensors[stored].shape for own, stored in _stored_names(file).items()}
    if "embed_tokens.weight" not in found:
        raise CheckpointError(f"{file.path} holds no token_embd.weight.", hint="It is no language model.")
    rows = found["embed_tokens.weight"][0]
    divisors = file.tensor(ROPE) if ROPE in file.tensors else None
    try:
        config = read_config(file.metadata, rows, "lm_head.weight" not in found, divisors)
        check_plausible(config, len(found))
    except (CheckpointError, ConfigError) as error:
        raise CheckpointError(f"{file.path}: {error.message}", hint=error.hint) from error
    check_fit(config, found, file.path)
    tokenizer = read_tokenizer(file.metadata, str(file.path))
    if tokenizer is not None and tokenizer.vocab_size > rows:
        raise CheckpointError(f"{file.path} holds {tokenizer.vocab_size:,} tokens and a model of {rows:,}.")
    return Checkpoint(config, GgufWeights(file, config), tokenizer)
