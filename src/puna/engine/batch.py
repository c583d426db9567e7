"""The tokens of one step, laid out for the model: slices of many sequences, one after another in a single row.

Slices of few tokens come first: each of their tokens is a query of its own against its sequence's pages. Longer slices
follow, each computed as a block. Which token belongs to whom is known here and in the cache alone; the model sees one
row with positions.

Shapes: N tokens of the step, Q short queries, B pages of the longest sequence.
"""

from __future__ import annotations

from collections.abc import Sequence as Sequence_
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from puna.engine.scheduler import Slice

# Up to so many tokens a slice is read as single queries: guesses being checked, the last tokens of a cached prompt.
SHORT = 16


@dataclass(frozen=True, slots=True)
class Block:
    """A long slice: tokens [first, first + count) of the row, attending to `length` tokens with themselves at the end.

    Attributes:
        pages: int64, of the cache.
    """

    first: int
    count: int
    length: int
    pages: Tensor


@dataclass(frozen=True, slots=True)
class StepBatch:
    """A step.

    Attributes:
        slices: in the order of the row.
        ids_1N: token ids.
        positions_1N: of each in its sequence.
        slots_N: where each goes in the cache: page * page_tokens + place.
        table_QB: int32, pages of each short query's sequence; -1 pads.
        lengths_Q: int32, tokens that each short query sees, itself included.
        blocks: the long slices.
        longest: all positions are below it.
        rows: for each slice the places in the row whose logits are wanted.
    """

    slices: tuple[Slice, ...]
    ids_1N: Tensor
    positions_1N: Tensor
    slots_N: Tensor
    table_QB: Tensor
    lengths_Q: Tensor
    blocks: tuple[Block, ...]
    longest: int
    rows: tuple[range, ...]

    @property
    def short(self) -> int:
        """Q, the short queries, which are the first tokens of the row."""
        return self.lengths_Q.shape[0]

    @property
    def adapted(self) -> bool:
        """Whether any of the sequences has a LoRA adapter."""
        return any(part.sequence.adapter is not None for part in self.slices)


def lay_out(slices: Sequence_[Slice], page_tokens: int, device: torch.device) -> StepBatch:
    """The batch of a plan."""
    ordered = sorted(slices, key=lambda part: part.count > SHORT)
    ids: list[int] = []
    positions, slots, tables, lengths = [], [], [], []
    blocks, rows = [], []
    for part in ordered:
        sequence, first = part.sequence, len(ids)
        known = len(sequence.tokens)
        ids += sequence.tokens[part.start : part.end]
        ids += sequence.drafts[: max(0, part.end - known)]
        place = np.arange(part.start, part.end)
        pages = np.asarray(sequence.pages, dtype=np.int64)
        positions.append(place)
        slots.append(pages[place // page_tokens] * page_tokens + place % page_tokens)
        if part.count <= SHORT:
            tables += [pages] * part.count
            lengths += range(part.start + 1, part.end + 1)
        else:
            used = -(-part.end // page_tokens)
            blocks.append(Block(first, part.count, part.end, torch.from_numpy(pages[:used]).to(device)))
        rows.append(_wanted(part, first))
    width = max((len(pages) for pages in tables), default=1)
    table_QB = np.full((len(tables), width), -1, dtype=np.int32)
    for row, pages in zip(table_QB, tables, strict=True):
        row[: len(pages)] = pages
    position_N = np.concatenate(positions)
    return StepBatch(
        tuple(ordered),
        torch.tensor([ids], dtype=torch.int64, device=device),
        torch.from_numpy(position_N)[None].to(device),
        torch.from_numpy(np.concatenate(slots)).to(device),
        torch.from_numpy(table_QB).to(device),
        torch.tensor(lengths, dtype=torch.int32, device=device),
        tuple(blocks),
        int(position_N.max()) + 1,
        tuple(rows),
    )


def _wanted(part: Slice, first: int) -> range:
    """Places of the row with logits to sample from or to check guesses with; all of them for the prompt's own."""
    if part.sequence.request.params.prompt_logprobs and part.start < len(part.sequence.request.prompt):
        return range(first, first + part.count)
    known = len(part.sequence.tokens)
    return range(first + max(0, known - 1 - part.start), first + part.count) if part.samples else range(first, first)
