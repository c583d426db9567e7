"""A step's layout, against what each slice says of itself."""

from __future__ import annotations

from collections.abc import Sequence as Sequence_

import pytest
import torch

from puna.core.completion import SamplingParams
from puna.engine.batch import SHORT, StepBatch, lay_out
from puna.engine.sampler import Sampler
from puna.engine.scheduler import Slice
from puna.engine.sequence import Request, Sequence

PAGE = 4
CPU = torch.device("cpu")


def sequence(first: int, length: int, pages: list[int], new: Sequence_[int] = (), **params) -> Sequence:
    prompt = tuple(range(first, first + length))
    request = Request(prompt, SamplingParams(**params))
    return Sequence(first, request, 999, Sampler(request.params, ()), tokens=[*prompt, *new], pages=pages)


def rows(batch: StepBatch) -> list[list[int]]:
    return [list(places) for places in batch.rows]


def test_slices_follow_one_another_and_short_ones_come_first():
    long = sequence(1000, 30, [7, 2, 9, 4, 5, 1, 0, 3])
    decoding = sequence(100, 6, [6, 8], new=[55])
    batch = lay_out([Slice(long, 3, 30), Slice(decoding, 6, 7)], PAGE, CPU)
    assert [part.sequence for part in batch.slices] == [decoding, long]
    assert batch.ids_1N.tolist() == [[55, *range(1003, 1030)]]
    assert batch.positions_1N.tolist() == [[6, *range(3, 30)]]
    assert (batch.short, batch.longest) == (1, 30)
    assert batch.slots_N.tolist()[:3] == [8 * PAGE + 2, 7 * PAGE + 3, 2 * PAGE]
    assert rows(batch) == [[0], [27]], "the last token of each chooses the next"
    (block,) = batch.blocks
    assert (block.first, block.count, block.length) == (1, 27, 30)
    assert block.pages.tolist() == [7, 2, 9, 4, 5, 1, 0, 3]


def test_each_short_token_is_a_query_that_sees_the_tokens_before_it():
    one, other = sequence(0, 9, [3, 1, 2]), sequence(50, 3, [5])
    batch = lay_out([Slice(one, 5, 9), Slice(other, 0, 2)], PAGE, CPU)
    assert batch.lengths_Q.tolist() == [6, 7, 8, 9, 1, 2]
    assert batch.lengths_Q.dtype == batch.table_QB.dtype == torch.int32
    assert batch.table_QB.tolist() == [[3, 1, 2]] * 4 + [[5, -1, -1]] * 2
    assert batch.blocks == ()
    assert rows(batch) == [[3], []], "a part of a prompt chooses nothing"


def test_guesses_follow_the_last_token_and_all_their_logits_are_wanted():
    one = sequence(0, 4, [3, 1, 2], new=[70, 71])
    one.drafts = [80, 81, 82]
    batch = lay_out([Slice(one, 5, 8)], PAGE, CPU)
    assert batch.ids_1N.tolist() == [[71, 80, 81]]
    assert batch.positions_1N.tolist() == [[5, 6, 7]]
    assert rows(batch) == [[0, 1, 2]]
    whole = lay_out([Slice(one, 2, 9)], PAGE, CPU)
    assert whole.ids_1N.tolist() == [[2, 3, 70, 71, 80, 81, 82]]
    assert rows(whole) == [[3, 4, 5, 6]]


def test_all_logits_of_a_prompt_are_wanted_where_its_own_logprobs_are():
    one = sequence(0, 10, [0, 1, 2], new=[77], prompt_logprobs=True)
    assert rows(lay_out([Slice(one, 2, 6)], PAGE, CPU)) == [[0, 1, 2, 3]]
    assert rows(lay_out([Slice(one, 8, 11)], PAGE, CPU)) == [[0, 1, 2]]
    assert rows(lay_out([Slice(one, 10, 11)], PAGE, CPU)) == [[0]]


@pytest.mark.parametrize("count", [SHORT, SHORT + 1])
def test_a_slice_is_a_block_where_it_is_not_short(count: int):
    one = sequence(0, 40, list(range(10)))
    batch = lay_out([Slice(one, 0, count)], PAGE, CPU)
    assert (batch.short, len(batch.blocks)) == ((count, 0) if count == SHORT else (0, 1))
    if batch.blocks:
        assert batch.blocks[0].pages.tolist() == [0, 1, 2, 3, 4], "only the pages that it sees"
        assert batch.table_QB.shape == (0, 1)


def test_no_two_tokens_of_a_step_share_a_slot():
    ones = [sequence(i, 5 + 7 * i, list(range(10 * i, 10 * i + 10))) for i in range(5)]
    batch = lay_out([Slice(one, 1, len(one.tokens)) for one in ones], PAGE, CPU)
    assert len(set(batch.slots_N.tolist())) == batch.ids_1N.shape[1] == sum(len(one.tokens) - 1 for one in ones)
