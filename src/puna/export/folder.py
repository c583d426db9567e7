"""A Hugging Face folder as it is written: weights, config.json and what else belongs to it, whole or not at all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from puna.base.card import CARD, Card
from puna.base.errors import StorageError
from puna.base.files import atomic_folder, hash_folder, require_space, write_json
from puna.model import hf
from puna.model.checkpoint import CONFIG, GENERATION, Checkpoint
from puna.quant.plan import QuantPlan

_SMALL_FILES = 64 << 20  # room for a tokenizer and the JSON files, in bytes


@dataclass(frozen=True, slots=True)
class Folder:
    """What a folder holds beside its weights.

    Attributes:
        path: does not exist, is empty, or holds a checkpoint, which is replaced.
        config: the content of config.json.
        checkpoint: whose tokenizer and settings of generation go with the weights.
        card: of the artifact.
        files: name -> content of further JSON files.
        max_shard_bytes: weights above this size are spread over several files.
    """

    path: Path
    config: Mapping[str, Any]
    checkpoint: Checkpoint | None
    card: Card
    files: Mapping[str, Any] = field(default_factory=dict)
    max_shard_bytes: int = hf.MAX_SHARD_BYTES


def write_folder(folder: Folder, specs: Mapping[str, hf.Spec], read: Callable[[str], Tensor]) -> None:
    """Writes a folder atomically, one tensor at a time.

    Args:
        folder: where, and with what.
        specs: our name -> shape and dtype of each tensor.
        read: gives a tensor by our name.

    Raises:
        StorageError: too little space, or a folder with other things in it.
    """
    path, checkpoint = folder.path, folder.checkpoint
    if not hf.replaceable(path, (CONFIG,)):
        raise StorageError(
            f"{path} is not empty and holds no checkpoint; saving there would delete what it holds.",
            hint="Choose another folder.",
        )
    require_space(path, sum(spec.bytes for spec in specs.values()) + _SMALL_FILES)
    ids = {key: folder.config[key] for key in ("bos_token_id", "eos_token_id")}
    generation = ids | dict(checkpoint.generation if checkpoint else {})
    with atomic_folder(path) as temporary:
        hf.write_weights(temporary, specs, read, folder.max_shard_bytes)
        for name, content in {CONFIG: folder.config, GENERATION: generation, **folder.files}.items():
            write_json(temporary / name, content)
        if checkpoint is not None and checkpoint.tokenizer is not None:
            checkpoint.tokenizer.save(temporary)
        replace(folder.card, content=hash_folder(temporary, leave_out=[CARD])).write(temporary)


def card_of(plan: QuantPlan, checkpoint: Checkpoint | None) -> Card:
    """A card that names the float checkpoint and the plan."""
    source = checkpoint.card.content if checkpoint and checkpoint.card else ""
    return Card("checkpoint", inputs={"checkpoint": source} if source else {}, config={"plan": plan.to_json()})
