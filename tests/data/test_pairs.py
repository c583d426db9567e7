"""Batches of pairs: what is in them, and that they depend on the seed and the step alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from puna.base.errors import InputError
from puna.core.tokens import Batch
from puna.data.pairs import Pair, PairLoader
from puna.data.shards import TokenShards, write_shards

PASSAGES = 12


@pytest.fixture
def shards(tmp_path: Path) -> TokenShards:
    """Twelve passages and nine questions; every token of segment i has the id i."""
    lengths = [5 + i % 4 for i in range(PASSAGES)] + [2 + i % 3 for i in range(9)]
    return write_shards(tmp_path / "shards", ((np.full(n, i), None) for i, n in enumerate(lengths)), 100)


PAIRS = [Pair(PASSAGES + i, i % 5, (5 + i % 4, 11)) for i in range(9)]


def groups(batch: Batch[np.ndarray]) -> tuple[dict[int, int], dict[int, int]]:
    """(segment -> number) of the passages and of the questions in a batch."""
    passages: dict[int, int] = {}
    questions: dict[int, int] = {}
    for row in range(len(batch.ids)):
        for number in range(batch.document_ids[row].max() + 1):
            here = batch.document_ids[row] == number
            (segment,), (target,), (asks,) = (
                np.unique(array[row][here]) for array in (batch.ids, batch.targets, batch.loss_mask)
            )
            assert segment not in passages and segment not in questions
            (questions if asks else passages)[int(segment)] = int(target)
    return passages, questions


def test_a_batch_holds_each_questions_passages_once_and_says_which_answers(shards: TokenShards) -> None:
    loader = PairLoader(shards, PAIRS, 16, 60)
    assert 2 <= loader.order.per_step < len(PAIRS)
    by_question = {pair.question: pair for pair in PAIRS}
    for step in range(6):
        (batch,) = loader.micro_batches(step)
        passages, questions = groups(batch)
        assert sorted(passages.values()) == list(range(len(passages)))
        assert len(questions) <= loader.order.per_step
        assert set(passages) == {p for q in questions for p in (by_question[q].passage, *by_question[q].others)}
        assert all(passages[by_question[q].passage] == number for q, number in questions.items())
        outside = batch.document_ids < 0
        assert (batch.targets[outside] == -1).all()
        assert not batch.loss_mask[outside].any()


def test_an_epoch_asks_every_question_once(shards: TokenShards) -> None:
    loader = PairLoader(shards, PAIRS, 16, 72)
    assert loader.order.per_step == 3
    asked = [question for step in range(6) for question in groups(loader.micro_batches(step)[0])[1]]
    assert sorted(asked) == sorted(2 * [pair.question for pair in PAIRS])


def test_there_is_always_something_to_tell_apart(shards: TokenShards) -> None:
    assert PairLoader(shards, PAIRS, 16, 1).order.per_step == 2


def test_a_step_is_a_function_of_the_seed(shards: TokenShards) -> None:
    one, same, other = (PairLoader(shards, PAIRS, 16, 60, seed=seed) for seed in (3, 3, 4))
    one.micro_batches(0)
    (a,), (b,) = one.micro_batches(7), same.micro_batches(7)
    assert np.array_equal(a.ids, b.ids) and np.array_equal(a.targets, b.targets)
    assert any(set(groups(one.micro_batches(s)[0])[1]) != set(groups(other.micro_batches(s)[0])[1]) for s in range(3))


def test_pairs_that_do_not_fit_are_left_out(shards: TokenShards) -> None:
    alone = [Pair(pair.question, pair.passage) for pair in PAIRS]
    loader = PairLoader(shards, alone, 7, 60)
    assert loader.pairs == [pair for pair in alone if shards.lengths[pair.passage] <= 7]
    assert 2 <= len(loader.pairs) < len(PAIRS)
    with pytest.raises(InputError, match=r"0 of 9 questions fit rows of 3 tokens") as caught:
        PairLoader(shards, PAIRS, 3, 60)
    assert "context_length" in caught.value.hint
