"""Checkpoints in Meta's layout: `params.json` and `consolidated.NN.pth`, one file for each tensor-parallel rank.

A `.pth` file is a pickle. `load` therefore reads it in a process of its own, and there only as tensors
(`weights_only`); that process merges the ranks into safetensors, which the caller maps. Run as a program, this module
is that process.

Meta's rotary embedding turns neighbouring channels, Hugging Face's the two halves of a head, so the rows of wq and wk
change places on the way in and out. Where a model has more ranks than key-value heads, Meta's files repeat heads (the
405B model in 16 files, whose params.json says so); they are recognised by comparing and kept once.
"""

from __future__ import annotations

import json
import os
import pickle
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from puna.base.errors import CheckpointError, ConfigError, PunaError
from puna.base.files import read_json, require_space, write_json
from puna.model import config as configs
from puna.model.config import ModelConfig
from puna.model.hf import MappedWeights, Spec, first_few, read_weights, write_weights
from puna.model.transformer import shapes

PARAMS = "params.json"
_SHARD = re.compile(r"consolidated\.(\d+)\.pth")
_LEGACY = "rope.freqs"  # Llama 1 and 2 store the rotary frequencies


@dataclass(frozen=True, slots=True)
class Place:
    """Where a parameter stands in Meta's files: its name, and the dimension that ranks split (None: all hold it)."""

    meta: str
    split: int | None = None


@cache
def _table() -> Mapping[str, Place]:
    text = resources.files("puna.model").joinpath("assets/meta.toml").read_text(encoding="utf-8")
    return {name: Place(**row) for name, row in tomllib.loads(text).items()}


def place(name: str) -> Place:
    """The place of a parameter by our name: "layers.7.mlp.up_proj.weight" -> ("layers.7.feed_forward.w3.weight", 0)."""
    layer = re.match(r"layers\.(\d+)\.", name)
    if layer is None:
        return _table()[name]
    row = _table()[f"layers.N.{name[layer.end() :]}"]
    return replace(row, meta=row.meta.replace("N", layer[1], 1))


def to_halves(weight: Tensor, heads: int) -> Tensor:
    """Rows of wq or wk, (heads * K, D), from Meta's order (pairs of neighbours) to Hugging Face's (two halves)."""
    return weight.reshape(heads, -1, 2, weight.shape[1]).transpose(1, 2).reshape(weight.shape)


def to_pairs(weight: Tensor, heads: int) -> Tensor:
    """The inverse of `to_halves`."""
    return weight.reshape(heads, 2, -1, weight.shape[1]).transpose(1, 2).reshape(weight.shape)


def load(folder: Path) -> tuple[ModelConfig, MappedWeights]:
    """Reads a folder by way of another process; the converted files need as much disk, until the weights are dropped.

    Raises:
        CheckpointError: damaged or incomplete files, or pickles with anything but tensors in them.
    """
    size = sum(path.stat().st_size for path in shard_files(folder))
    with tempfile.TemporaryDirectory(prefix="puna-", ignore_cleanup_errors=True) as temporary:
        require_space(temporary, size)
        _run_child(folder, Path(temporary))
        config = configs.from_hf(read_json(Path(temporary) / "config.json"))
        # The files lose their names when this block ends, and live on for as long as they are mapped.
        return config, read_weights(Path(temporary))


def _run_child(source: Path, target: Path) -> None:
    path = os.pathsep.join(entry for entry in sys.path if entry)
    child = subprocess.run(
        # -P: without it Python would import modules from the working directory, which may be the download itself.
        [sys.executable, "-P", "-m", "puna.model.meta", str(source), str(target)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        check=False,
    )
    if child.returncode == 0:
        return
    if child.returncode == CheckpointError.exit_code:
        report = json.loads(child.stdout.splitlines()[-1])
        raise CheckpointError(report["message"], hint=report["hint"])
    if child.returncode < 0:
        raise CheckpointError(
            f"Signal {-child.returncode} ended the process that read {source}.",
            hint="Signal 9 mostly means that memory ran out." if child.returncode == -9 else "",
        )
    last = child.stderr.strip().splitlines()[-1:] or ["it said nothing"]
    raise CheckpointError(f"The process that read {source} failed: {last[0]}.")


def main(source: str, target: str) -> int:
    """The other process: converts, and prints an error as JSON."""
    try:
        convert(Path(source), Path(target))
    except PunaError as error:
        print(json.dumps({"message": error.message, "hint": error.hint}))
        return CheckpointError.exit_code
    return 0


def convert(source: Path, target: Path) -> None:
    """Merges Meta's files into safetensors and a config.json. Reads pickles, as tensors only.

    Args:
        source: Meta's folder.
        target: exists, and is empty.
    """
    ranks = [_Rank.read(path) for path in shard_files(source)]
    try:
        model = _Merged(read_json(source / PARAMS), ranks)
    except ConfigError as error:
        raise CheckpointError(f"{source / PARAMS}: {error.message}", hint=error.hint) from error
    specs = model.specs()
    known = {place(name).meta for name in specs} | {_LEGACY}
    if unknown := [name for name in ranks[0].tensors if name not in known]:
        raise CheckpointError(f"{source} holds {len(unknown)} tensors that no Llama has: {first_few(unknown)}.")
    write_weights(target, specs, model.tensor)
    dtype = str(specs["norm.weight"].dtype).removeprefix("torch.")
    write_json(target / "config.json", configs.to_hf(model.config, dtype))


def shard_files(folder: Path) -> list[Path]:
    """The files of all ranks in their order; a gap in their numbers is refused."""
    found = {int(match[1]): path for path in folder.iterdir() if (match := _SHARD.fullmatch(path.name))}
    if not found:
        raise CheckpointError(f"{folder} holds {PARAMS} and no consolidated.00.pth.", hint="Fetch the weights as well.")
    if missing := [f"consolidated.{number:02d}.pth" for number in range(max(found)) if number not in found]:
        raise CheckpointError(
            f"{folder} lacks {len(missing)} of at least {max(found) + 1} files: {first_few(missing)}.",
            hint="The download may be incomplete: fetch it again.",
        )
    return [found[number] for number in sorted(found)]


@dataclass(frozen=True, slots=True)
class _Rank:
    """One `.pth` file, mapped."""

    path: Path
    tensors: Mapping[str, Tensor]

    @classmethod
    def read(cls, path: Path) -> _Rank:
        """Maps a pickle of tensors; one with anything else in it is refused and not executed."""
        try:
            state = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
        except pickle.UnpicklingError as error:
            raise CheckpointError(
                f"{path} holds Python objects that are no tensors, or is damaged. Nothing in it was executed.",
                hint="Do not trust this file; download the model from its publisher.",
            ) from error
        except (RuntimeError, EOFError, OSError) as error:
            reason = str(error).splitlines()[0]
            raise CheckpointError(f"{path} cannot be read: {reason}", hint="Download or copy it again.") from error
        if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
            raise CheckpointError(f"{path} is no table of tensors.")
        return cls(path, state)

    def __getitem__(self, name: str) -> Tensor:
        if name not in self.tensors:
            raise CheckpointError(f"{self.path} has no tensor {name!r}.", hint="Does its params.json belong to it?")
        return self.tensors[name]


class _Merged:
    """The files of all ranks as one model.

    Attributes:
        config: the shape that params.json and the weights say together.
    """

    def __init__(self, params: Mapping[str, Any], ranks: Sequence[_Rank]) -> None:
        self.ranks = ranks
        if params.get("vocab_size") == -1:  # Llama 1 and 2 leave it to the tokenizer
            params = {**params, "vocab_size": self._rows("output.weight")}
        config = replace(
            configs.from_meta(params),
            tie_word_embeddings="output.weight" not in ranks[0].tensors,
            intermediate_size=self._rows("layers.0.feed_forward.w1.weight"),
        )
        stored = self._rows("layers.0.attention.wk.weight") // config.head_dim
        self._copies = self._repeats(config.num_hidden_layers) if stored == len(ranks) else 1
        self.config = replace(config, num_key_value_heads=stored // self._copies)

    def _rows(self, name: str) -> int:
        return sum(rank[name].shape[0] for rank in self.ranks)

    def _repeats(self, layers: int) -> int:
        """How many neighbouring ranks, of one key-value head each, hold the same head in every layer."""
        names = [f"layers.{layer}.attention.{weight}.weight" for layer in range(layers) for weight in ("wk", "wv")]
        count = len(self.ranks)

        def repeated(times: int) -> bool:
            pairs = ((self.ranks[i], self.ranks[i - i % times]) for i in range(count))
            return all(torch.equal(rank[name], first[name]) for rank, first in pairs for name in names)

        return next(times for times in range(count, 0, -1) if count % times == 0 and repeated(times))

    def specs(self) -> dict[str, Spec]:
        first = self.ranks[0]
        return {name: Spec(shape, first[place(name).meta].dtype) for name, shape in shapes(self.config).items()}

    def tensor(self, name: str) -> Tensor:
        """A whole parameter by our name, with its rows in Hugging Face's order."""
        where = place(name)
        parts = [rank[where.meta] for rank in self.ranks]
        if name.endswith(("k_proj.weight", "v_proj.weight")):
            parts = parts[:: self._copies]
        split = where.split
        if name == "embed_tokens.weight" and parts[0].shape[1] != self.config.hidden_size:
            split = 1
        expected = shapes(self.config)[name]
        try:
            whole = parts[0] if split is None else torch.cat(parts, dim=split)
        except RuntimeError as error:
            raise CheckpointError(f"The parts of {where.meta} do not fit together: {error}.") from error
        if tuple(whole.shape) != expected:
            raise CheckpointError(
                f"{where.meta} has shape {tuple(whole.shape)} in all; params.json asks for {expected}.",
                hint="Does params.json belong to these weights?",
            )
        heads = _rotated_heads(name, self.config)
        return to_halves(whole, heads) if heads else whole


def _rotated_heads(name: str, config: ModelConfig) -> int:
    """The heads of a parameter whose rows the two layouts order differently; 0 for all others."""
    if name.endswith("q_proj.weight"):
        return config.num_attention_heads
    return config.num_key_value_heads if name.endswith("k_proj.weight") else 0


def write(
    folder: Path, config: ModelConfig, weights: Mapping[str, Tensor], ranks: int, dtype: torch.dtype | None
) -> None:
    """Writes Meta's files for `ranks` ranks into an existing folder; memory grows by one file.

    Raises:
        ConfigError: the shape cannot be split over so many ranks.
    """
    heads = config.num_key_value_heads
    for what in ("num_attention_heads", "intermediate_size", "vocab_size"):
        if getattr(config, what) % ranks:
            raise ConfigError(f"{what} is {getattr(config, what)}; it cannot be split over {ranks} files.")
    if heads % ranks and ranks % heads:
        raise ConfigError(f"num_key_value_heads is {heads}; neither it nor {ranks} files divides the other.")
    for rank in range(ranks):
        torch.save(_cut_all(config, weights, rank, ranks, dtype), folder / f"consolidated.{rank:02d}.pth")
    params = configs.to_meta(config) | {"n_kv_heads": max(heads, ranks)}
    write_json(folder / PARAMS, params)


def _cut_all(
    config: ModelConfig, weights: Mapping[str, Tensor], rank: int, ranks: int, dtype: torch.dtype | None
) -> dict[str, Tensor]:
    """The content of one rank's file. Copies: torch would save all that a part is a view of."""
    return {
        place(name).meta: _cut(name, tensor, config, rank, ranks).to(device="cpu", dtype=dtype, copy=True)
        for name, tensor in weights.items()
    }


def _cut(name: str, weight: Tensor, config: ModelConfig, rank: int, ranks: int) -> Tensor:
    """The part of a parameter that one rank holds."""
    weight = weight.detach()
    if heads := _rotated_heads(name, config):
        weight = to_pairs(weight, heads)
    split = place(name).split
    if split is None:
        return weight
    if name.endswith(("k_proj.weight", "v_proj.weight")) and ranks > config.num_key_value_heads:
        return weight.chunk(config.num_key_value_heads)[rank * config.num_key_value_heads // ranks]
    return weight.chunk(ranks, dim=split)[rank]


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
