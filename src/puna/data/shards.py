"""Token shards: segments of token ids in flat files that are memory-mapped, never read whole.

A segment is a document (pre-training) or a conversation (fine-tuning, which adds one mask byte a token). A folder
holds `tokens.bin` (uint16 or uint32, whichever the vocabulary needs), `mask.bin` where there are masks, `offsets.npy`
(where each segment begins, and the total), and `card.json`. Nothing is padded and nothing is cut: packing decides
that later, for any context length, from the same files.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from puna.base.card import Card
from puna.base.errors import ArtifactError, InputError
from puna.base.files import atomic_folder

Segment = tuple[np.ndarray, np.ndarray | None]


class TokenShards:
    """Segments on disk.

    Attributes:
        offsets: (N + 1,) int64, segment i is tokens [offsets[i], offsets[i + 1]).
        masked: whether each token has a mask byte.
    """

    def __init__(self, folder: Path | str) -> None:
        folder = Path(folder)
        self.card = Card.read(folder)
        try:
            self.offsets = np.load(folder / "offsets.npy", allow_pickle=False)
            self._ids = np.memmap(folder / "tokens.bin", dtype=self.card.config["dtype"], mode="r")
            self.masked = bool(self.card.config["masked"])
            self._mask = np.memmap(folder / "mask.bin", dtype=np.bool_, mode="r") if self.masked else None
            if self.offsets[0] != 0 or (np.diff(self.offsets) < 0).any():
                raise ValueError("the index does not rise from 0")
            total = int(self.offsets[-1])
        except (OSError, EOFError, ValueError, KeyError, IndexError, TypeError) as error:
            raise ArtifactError(f"The token shards in {folder} cannot be read: {error}.") from error
        if len(self._ids) != total or (self._mask is not None and len(self._mask) != total):
            raise ArtifactError(
                f"The token shards in {folder} hold {len(self._ids)} tokens"
                + ("" if self._mask is None else f" and {len(self._mask)} mask bytes")
                + f"; their index says {total}.",
                hint="Delete the folder and run the command that wrote it again.",
            )

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def tokens(self) -> int:
        return int(self.offsets[-1])

    @property
    def lengths(self) -> np.ndarray:
        """(N,) int64."""
        return np.diff(self.offsets)

    def ids(self, segment: int, start: int, end: int) -> np.ndarray:
        """Tokens [start, end) of a segment, a view; shorter where the segment ends before."""
        first, last = self.offsets[segment], self.offsets[segment + 1]
        return self._ids[first + start : min(first + end, last)]

    def mask(self, segment: int, start: int, end: int) -> np.ndarray:
        """Which of those tokens are to be learnt, bool; all of them in unmasked shards."""
        first, last = self.offsets[segment], self.offsets[segment + 1]
        if self._mask is None:
            return np.ones(min(end, last - first) - start, dtype=np.bool_)
        return self._mask[first + start : min(first + end, last)]


def write_shards(
    folder: Path | str, segments: Iterable[Segment], vocab_size: int, config: Mapping[str, Any] | None = None
) -> TokenShards:
    """Writes segments one by one, atomically.

    Args:
        folder: becomes the shards' folder.
        segments: (ids, mask) pairs; either all have masks of the ids' length, or none has one.
        vocab_size: decides the width of an id; an id at or above it is refused.
        config: what made the segments, for the card.
    """
    dtype = np.dtype(np.uint16 if vocab_size <= 1 << 16 else np.uint32)
    offsets = [0]
    masked: bool | None = None
    with atomic_folder(folder) as temporary:
        with (temporary / "tokens.bin").open("wb") as ids_file, (temporary / "mask.bin").open("wb") as mask_file:
            for ids, mask in segments:
                if masked is None:
                    masked = mask is not None
                _check(ids, mask, vocab_size, masked, segment=len(offsets) - 1)
                ids_file.write(np.ascontiguousarray(ids, dtype=dtype).data)
                if mask is not None:
                    mask_file.write(np.ascontiguousarray(mask, dtype=np.bool_).data)
                offsets.append(offsets[-1] + len(ids))
        if not masked:
            (temporary / "mask.bin").unlink()
        if offsets[-1] == 0:
            raise InputError("There are no tokens to write.", hint="Give at least one text that is not empty.")
        np.save(temporary / "offsets.npy", np.asarray(offsets, dtype=np.int64))
        details = {"dtype": dtype.name, "masked": bool(masked), "vocab_size": vocab_size, **(config or {})}
        metrics = {"segments": len(offsets) - 1, "tokens": offsets[-1]}
        Card("tokens", config=details, metrics=metrics).write(temporary)
    return TokenShards(folder)


def _check(ids: np.ndarray, mask: np.ndarray | None, vocab_size: int, masked: bool, segment: int) -> None:
    if masked != (mask is not None) or (mask is not None and len(mask) != len(ids)):
        found = "no mask" if mask is None else f"a mask of {len(mask)}"
        raise InputError(
            f"Segment {segment} has {len(ids)} ids and {found}.",
            hint="Give every segment a mask as long as its ids, or none to any.",
        )
    for id_ in (int(ids.max()), int(ids.min())) if len(ids) else ():
        if not 0 <= id_ < vocab_size:
            raise InputError(f"Segment {segment} holds token id {id_}; the vocabulary has {vocab_size} ids.")
