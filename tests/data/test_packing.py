from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from puna.base.errors import InputError
from puna.core.tokens import Batch
from puna.data.packing import Packing, fill, pack
from puna.data.shards import TokenShards, write_shards

lengths_and_context = st.tuples(st.lists(st.integers(0, 40), min_size=1, max_size=25).filter(any), st.integers(2, 17))


@dataclass
class Numbered:
    """Segments whose token ids count through all of them, so that each token is known by its id."""

    lengths: list[int]

    def __post_init__(self) -> None:
        self.starts = np.concatenate([[0], np.cumsum(self.lengths)])
        self.learnt = np.random.default_rng(0).random(self.starts[-1]) < 0.5
        self.segment = np.repeat(np.arange(len(self.lengths)), self.lengths)

    def ids(self, segment: int, start: int, end: int) -> np.ndarray:
        first, last = self.starts[segment], self.starts[segment + 1]
        return np.arange(first + start, min(first + end, last))

    def mask(self, segment: int, start: int, end: int) -> np.ndarray:
        return self.learnt[self.ids(segment, start, end)]


def packed(shards: Numbered, context: int, split: bool) -> tuple[Packing, Batch[np.ndarray]]:
    packing = pack(np.array(shards.lengths), context, split=split)
    return packing, fill(cast(TokenShards, shards), packing, np.arange(packing.rows))


@given(lengths_and_context)
def test_every_token_is_read_once_and_learnt_once(drawn: tuple[list[int], int]) -> None:
    shards, context = Numbered(drawn[0]), drawn[1]
    _, batch = packed(shards, context, split=True)
    tokens = np.arange(sum(shards.lengths))
    assert np.sort(batch.ids[batch.document_ids >= 0]).tolist() == tokens.tolist()
    firsts = shards.starts[:-1][np.array(shards.lengths) > 0]
    assert np.sort(batch.targets[batch.targets >= 0]).tolist() == np.setdiff1d(tokens, firsts).tolist()


@given(lengths_and_context, st.booleans())
def test_targets_follow_within_their_segment(drawn: tuple[list[int], int], split: bool) -> None:
    shards, context = Numbered(drawn[0]), drawn[1]
    if not split and all(length == 0 or length > context for length in shards.lengths):
        return
    _, batch = packed(shards, context, split)
    has_target = batch.targets >= 0
    assert (batch.targets[has_target] == batch.ids[has_target] + 1).all()
    assert (shards.segment[batch.targets[has_target]] == shards.segment[batch.ids[has_target]]).all()
    assert not batch.loss_mask[~has_target].any()
    assert (batch.loss_mask[has_target] == shards.learnt[batch.targets[has_target]]).all()


@given(lengths_and_context, st.booleans())
def test_rows_are_pieces_from_the_left_and_padding_at_the_right(drawn: tuple[list[int], int], split: bool) -> None:
    shards, context = Numbered(drawn[0]), drawn[1]
    if not split and all(length == 0 or length > context for length in shards.lengths):
        return
    packing, batch = packed(shards, context, split)
    for field in fields(batch):
        assert getattr(batch, field.name).shape == (packing.rows, context)
    padding = batch.document_ids == -1
    assert (batch.ids[padding] == 0).all()
    assert (batch.targets[padding] == -1).all()
    assert packing.padding == pytest.approx(padding.mean())
    for row in range(packing.rows):
        numbers = batch.document_ids[row]
        count = int((numbers >= 0).sum())
        assert (numbers[count:] == -1).all()
        assert count > 0, "no row is empty"
        assert set(np.diff(numbers[:count])) <= {0, 1}
        assert numbers[0] == 0
        for number in range(numbers[:count].max() + 1):
            piece = numbers == number
            assert batch.positions[row][piece].tolist() == list(range(piece.sum()))
            assert (np.diff(batch.ids[row][piece]) == 1).all()
            assert len(set(shards.segment[batch.ids[row][piece]])) == 1


@given(lengths_and_context)
def test_only_long_segments_are_cut_and_only_at_whole_rows(drawn: tuple[list[int], int]) -> None:
    lengths, context = drawn
    packing = pack(np.array(lengths), context)
    for segment, start, end in packing.pieces:
        assert start % context == 0
        assert end - start == context or end == lengths[segment]
    assert packing.left_out == 0
    assert packing.tokens == sum(lengths)


@given(lengths_and_context)
def test_without_cutting_the_too_long_are_left_out_and_counted(drawn: tuple[list[int], int]) -> None:
    lengths, context = drawn
    fitting = [i for i, length in enumerate(lengths) if 0 < length <= context]
    if not fitting:
        with pytest.raises(InputError, match="No segment fits"):
            pack(np.array(lengths), context, split=False)
        return
    packing = pack(np.array(lengths), context, split=False)
    assert packing.left_out == sum(length > context for length in lengths)
    assert sorted(packing.pieces[:, 0].tolist()) == fitting
    assert all(start == 0 and end == lengths[segment] for segment, start, end in packing.pieces)


def plain_best_fit_decreasing(sizes: list[int], capacity: int) -> list[int]:
    """What each row has free at the end, sorted: the textbook's quadratic loop."""
    free: list[int] = []
    for size in sorted(sizes, reverse=True):
        fitting = [row for row in range(len(free)) if free[row] >= size]
        if fitting:
            free[min(fitting, key=lambda row: free[row])] -= size
        else:
            free.append(capacity - size)
    return sorted(free)


@given(
    st.integers(2, 200).flatmap(lambda c: st.tuples(st.lists(st.integers(1, c), min_size=1, max_size=60), st.just(c)))
)
def test_rows_are_those_of_a_plain_best_fit_decreasing(drawn: tuple[list[int], int]) -> None:
    sizes, capacity = drawn
    packing = pack(np.array(sizes), capacity)
    used = [
        int(np.diff(packing.pieces[a:b, 1:]).sum())
        for a, b in zip(packing.first_piece[:-1], packing.first_piece[1:], strict=True)
    ]
    assert sorted(capacity - n for n in used) == plain_best_fit_decreasing(sizes, capacity)


@pytest.mark.parametrize("context", [128, 512, 2048])
def test_lengths_as_in_real_text_leave_next_to_no_padding(context: int) -> None:
    lengths = np.random.default_rng(0).lognormal(6, 1.2, 20_000).astype(np.int64)
    packing = pack(lengths, context)
    assert packing.tokens == lengths.sum()
    assert packing.padding < 0.002


def test_a_plan_depends_on_the_lengths_alone() -> None:
    lengths = np.random.default_rng(1).integers(0, 300, 500)
    first, second = pack(lengths, 128), pack(lengths.copy(), 128)
    assert (first.pieces == second.pieces).all()
    assert (first.first_piece == second.first_piece).all()


@pytest.mark.parametrize("context", [1, 0, -5])
def test_a_context_too_short_to_learn_in_is_refused(context: int) -> None:
    with pytest.raises(InputError, match=f"context_length is {context}; it must be at least 2"):
        pack(np.array([5]), context)


@pytest.mark.parametrize("lengths", [[], [0], [0, 0]])
def test_nothing_to_pack_is_refused(lengths: list[int]) -> None:
    with pytest.raises(InputError, match="No segment fits"):
        pack(np.array(lengths, dtype=np.int64), 8)


@settings(max_examples=20)
@given(drawn=lengths_and_context)
def test_shards_on_disk_fill_rows_as_the_plan_says(tmp_path_factory: pytest.TempPathFactory, drawn: tuple) -> None:
    numbered, context = Numbered(drawn[0]), drawn[1]
    segments = [(numbered.ids(i, 0, n), numbered.mask(i, 0, n)) for i, n in enumerate(numbered.lengths)]
    shards = write_shards(tmp_path_factory.getbasetemp() / Path("packed"), segments, 1 << 20)
    packing, expected = packed(numbered, context, split=True)
    found = fill(shards, packing, np.arange(packing.rows))
    for field in fields(found):
        array, wanted = getattr(found, field.name), getattr(expected, field.name)
        assert array.dtype == wanted.dtype == (np.bool_ if field.name == "loss_mask" else np.int64)
        assert (array == wanted).all()
    one = fill(shards, packing, np.array([packing.rows - 1, 0]))
    assert (one.ids[1] == found.ids[0]).all()
    assert (one.targets[0] == found.targets[-1]).all()
