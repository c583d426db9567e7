"""Steps of few tokens on CUDA, captured once as graphs and replayed: a step launches hundreds of small kernels, and
launching them one by one takes longer than they run.

A graph has fixed shapes and fixed addresses. Steps are padded to the next power of two in tokens and in pages of the
longest sequence, by saying their last query again: what it writes it has written already, and its logits are not looked
at. Steps with long slices, or with adapters, are computed as ever.

Shapes: N queries of the step after padding, B pages of a sequence after padding, V vocab_size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from puna.engine.batch import StepBatch

MOST_QUERIES = 64
_WARM_UPS = 2  # libraries choose their algorithms and get their memory before anything is captured

# Makes a computation repeatable at once: gives where its results will be, and what computes them anew.
Capture = Callable[[Callable[[], Tensor]], tuple[Tensor, Callable[[], None]]]


def capture_on_cuda(compute: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], None]]:
    """As a CUDA graph."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(_WARM_UPS):
            compute()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = compute()
    return result, graph.replay


@dataclass(frozen=True, slots=True)
class _Graph:
    """A captured step: the batch whose tensors it reads, where it writes, and how to run it."""

    batch: StepBatch
    logits_NV: Tensor
    replay: Callable[[], None]


class StepGraphs:
    """The captured steps of one model and one cache.

    Args:
        compute: the logits (N, V) of every query of a batch that has short slices alone.
        longest: a bound of all positions; the rotary tables are made for it before a graph holds their addresses.
        capture: how a step is made repeatable.
    """

    def __init__(
        self, compute: Callable[[StepBatch], Tensor], longest: int, capture: Capture = capture_on_cuda
    ) -> None:
        self._compute, self._longest, self._capture = compute, longest, capture
        self._graphs: dict[tuple[int, int], _Graph] = {}

    def takes(self, batch: StepBatch) -> bool:
        return not batch.adapted and not batch.blocks and 0 < batch.short <= MOST_QUERIES

    def run(self, batch: StepBatch) -> Tensor:
        """The logits of the batch's queries, (Q, V); the next step overwrites them."""
        key = _power_of_two(batch.short), _power_of_two(batch.table_QB.shape[1])
        wide = padded(batch, *key)
        graph = self._graphs.get(key)
        if graph is None:
            graph = self._graphs[key] = self._captured(replace(wide, longest=self._longest))
        else:
            for kept, new in zip(_tensors(graph.batch), _tensors(wide), strict=True):
                kept.copy_(new)
        graph.replay()
        return graph.logits_NV[: batch.short]

    def _captured(self, batch: StepBatch) -> _Graph:
        logits_NV, replay = self._capture(lambda: self._compute(batch))
        return _Graph(batch, logits_NV, replay)


def padded(batch: StepBatch, queries: int, pages: int) -> StepBatch:
    """A batch of short slices with its last query said again, and tables with room for more pages."""
    more, width = queries - batch.short, pages - batch.table_QB.shape[1]

    def repeat(x: Tensor) -> Tensor:
        return torch.cat([x, x[-1:].expand(more, *x.shape[1:])]) if more else x

    return replace(
        batch,
        ids_1N=repeat(batch.ids_1N[0])[None],
        positions_1N=repeat(batch.positions_1N[0])[None],
        slots_N=repeat(batch.slots_N),
        table_QB=F.pad(repeat(batch.table_QB), (0, width), value=-1),
        lengths_Q=repeat(batch.lengths_Q),
    )


def _tensors(batch: StepBatch) -> tuple[Tensor, ...]:
    return batch.ids_1N, batch.positions_1N, batch.slots_N, batch.table_QB, batch.lengths_Q


def _power_of_two(number: int) -> int:
    return 1 << (number - 1).bit_length()
