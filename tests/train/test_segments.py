"""Segments told from a batch, by hand: two in the first row, one in the second, and padding behind each."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from puna.core.tokens import Batch
from puna.data.packing import fill, pack
from puna.train.segments import segment_lengths, segment_numbers, segment_sums

DOCUMENTS = torch.tensor([[0, 0, 0, 1, 1, -1], [0, 0, -1, -1, -1, -1]])
POSITIONS = torch.tensor([[0, 1, 2, 0, 1, 0], [0, 1, 0, 0, 0, 0]])
BATCH = Batch(POSITIONS, POSITIONS, POSITIONS, DOCUMENTS, DOCUMENTS >= 0)


def test_tokens_are_numbered_by_their_segment_and_padding_has_none() -> None:
    kept, segment, first = segment_numbers(BATCH)
    assert kept.tolist() == [True] * 5 + [False] + [True] * 2 + [False] * 4
    assert segment.tolist() == [0, 0, 0, 1, 1, 2, 2]
    assert first.tolist() == [0, 3, 6]
    assert segment_lengths(BATCH).tolist() == [3, 2, 2]


def test_sums_are_of_numbers_and_of_vectors_and_have_a_gradient() -> None:
    values = torch.arange(12.0).view(2, 6).requires_grad_()
    assert segment_sums(values, BATCH).tolist() == [0 + 1 + 2, 3 + 4, 6 + 7]
    vectors = torch.stack([values, -values], dim=-1)
    assert segment_sums(vectors, BATCH).tolist() == [[3, -3], [7, -7], [13, -13]]
    segment_sums(values, BATCH).sum().backward()
    assert values.grad is not None
    assert values.grad.flatten().tolist() == [float(kept) for kept in (DOCUMENTS >= 0).flatten()]


def test_means_are_those_of_each_segment_without_padding(make_shards: Callable) -> None:
    shards = make_shards([3, 5, 2])
    packing = pack(shards.lengths, 6)
    batch = fill(shards, packing, np.arange(packing.rows)).map(torch.from_numpy)
    hidden = torch.randn(*batch.ids.shape, 4)
    _, _, first = segment_numbers(batch)
    expected = [
        hidden[row][batch.document_ids[row] == number].mean(0)
        for row in range(len(batch.ids))
        for number in range(int(batch.document_ids[row].max()) + 1)
    ]
    torch.testing.assert_close(segment_sums(hidden, batch) / segment_lengths(batch).unsqueeze(1), torch.stack(expected))
    assert first.tolist() == sorted(first.tolist())
    assert (batch.positions.flatten()[first] == 0).all()
