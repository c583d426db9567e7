"""Log-probabilities under the model that is held still: computed once, kept on the disk, found again by content.

The name of a kept file is a hash of what it depends on: the reference's weights, every id and mask of the segments, and
the dtype of the computation. Another run with the same ones reads 4 bytes a segment in place of a forward pass over
all of them, and none with others can read them by mistake. A damaged file is noticed by its own hash, computed anew
and told of.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from puna.align.logprobs import sequence_logprobs
from puna.base.files import atomic_write, hash_bytes, hash_json
from puna.base.progress import Progress, Silent
from puna.core.tokens import Batch
from puna.data.packing import Packing, fill, pack
from puna.data.shards import TokenShards
from puna.model.transformer import Transformer

_NAME = "logprobs"
_READ = 1 << 22  # tokens that are hashed at once


@dataclass(frozen=True, slots=True)
class Reference:
    """Log-probabilities of all segments of some shards.

    Attributes:
        logprobs_N: float32, each the sum over the segment's marked tokens.
        origin: "computed", "read" from the disk, or "recomputed" because what lay there was damaged.
        path: the file.
    """

    logprobs_N: np.ndarray
    origin: Literal["computed", "read", "recomputed"]
    path: Path


def reference_logprobs(
    model: Transformer,
    shards: TokenShards,
    folder: Path | str,
    *,
    micro_batch_tokens: int = 8192,
    dtype: torch.dtype = torch.float32,
    progress: Progress | None = None,
) -> Reference:
    """What `model` says of each segment, from `folder` where it is known there.

    Args:
        model: the reference, on its device. Its mode is put back.
        shards: segments with masks.
        folder: of the kept files.
        micro_batch_tokens: tokens of one forward pass, or more where a segment is longer.
        dtype: of the computation.
        progress: who watches, and who is told of damage.
    """
    progress = progress or Silent()
    path = Path(folder) / f"{content_key(model, shards, dtype)}.safetensors"
    damage = ""
    if path.exists():
        try:
            return Reference(_read(path, len(shards)), "read", path)
        except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
            damage = str(error)
            progress.say(f"The reference log-probabilities in {path} are damaged ({damage}); computing them again.")
    found = _compute(model, shards, micro_batch_tokens, dtype, progress)
    with atomic_write(path) as file:
        file.write(save({_NAME: found}, metadata={"sha256": hash_bytes(found.tobytes())}))
    return Reference(found, "recomputed" if damage else "computed", path)


def content_key(model: Transformer, shards: TokenShards, dtype: torch.dtype) -> str:
    """Hash of all that the log-probabilities depend on."""
    weights = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        weights.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        weights.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    tokens = hashlib.sha256(shards.offsets.tobytes())
    for segment, length in enumerate(shards.lengths.tolist()):
        for start in range(0, length, _READ):
            tokens.update(np.ascontiguousarray(shards.ids(segment, start, start + _READ), dtype=np.int64).data)
            tokens.update(np.ascontiguousarray(shards.mask(segment, start, start + _READ)).data)
    shape = {"config": repr(model.config), "dtype": str(dtype)}
    return hash_json({**shape, "weights": weights.hexdigest(), "tokens": tokens.hexdigest()})[:32]


def _read(path: Path, segments: int) -> np.ndarray:
    with safe_open(path, framework="numpy") as file:
        found, noted = file.get_tensor(_NAME), (file.metadata() or {}).get("sha256")
    if found.dtype != np.float32 or found.shape != (segments,):
        raise ValueError(f"it holds {found.dtype} of shape {found.shape} for {segments} segments")
    if hash_bytes(found.tobytes()) != noted:
        raise ValueError("its numbers are not those that were written")
    return found


@torch.no_grad()
def _compute(
    model: Transformer, shards: TokenShards, micro_batch_tokens: int, dtype: torch.dtype, progress: Progress
) -> np.ndarray:
    lengths = shards.lengths
    packing = pack(lengths, max(2, int(lengths.max()), min(micro_batch_tokens, 4 * int(lengths.max()))), split=False)
    device = model.embed_tokens.weight.device
    found = np.zeros(len(shards), dtype=np.float32)  # a segment without tokens has log-probability 0
    training = model.training
    model.eval()
    cast: Any = nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype)
    with progress.task("reference", packing.rows, "rows") as bar, cast:
        for rows, batch in _batches(shards, packing, max(1, micro_batch_tokens // packing.context_length)):
            logprobs_S, _ = sequence_logprobs(model, batch.map(lambda a: torch.from_numpy(a).to(device)))
            pieces = slice(packing.first_piece[rows[0]], packing.first_piece[rows[-1] + 1])
            found[packing.pieces[pieces, 0]] = logprobs_S.cpu().numpy()
            bar.advance(len(rows))
    model.train(training)
    return found


def _batches(
    shards: TokenShards, packing: Packing, rows_at_once: int
) -> Iterator[tuple[np.ndarray, Batch[np.ndarray]]]:
    for start in range(0, packing.rows, rows_at_once):
        rows = np.arange(start, min(start + rows_at_once, packing.rows))
        yield rows, fill(shards, packing, rows)
