from __future__ import annotations

from collections.abc import Sequence as Sequence_

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from puna.core.completion import SamplingParams
from puna.engine.adapters import Adapters
from puna.engine.drafting import ModelDrafter, NGramDrafter, Reach
from puna.engine.paged_cache import PagedCache
from puna.engine.pages import PagePool
from puna.engine.runner import Runner
from puna.engine.sampler import Sampler
from puna.engine.sequence import Request, Sequence
from puna.model.transformer import Transformer
from puna.testing import tiny_model

CPU = torch.device("cpu")


def sequence(tokens: Sequence_[int], limit: int = 1000) -> Sequence:
    params = SamplingParams()
    return Sequence(0, Request(tuple(tokens), params), limit, Sampler(params, ()), tokens=list(tokens))


# How far -----------------------------------------------------------------------------------------------------------


def test_the_reach_doubles_while_guesses_hold_and_shrinks_to_where_they_broke():
    reach = Reach(20)
    seen = [reach.tokens]
    for held in (4, 8, 3, 0, 1, 2):
        reach.learn(reach.tokens, held)
        seen.append(reach.tokens)
    assert seen == [4, 8, 16, 4, 1, 2, 4]
    reach.learn(0, 0)
    assert reach.tokens == 4, "no guess teaches nothing"


@pytest.mark.parametrize("most", [1, 3, 8])
def test_the_reach_is_never_above_the_most(most: int):
    reach = Reach(most)
    for _ in range(5):
        assert 1 <= reach.tokens <= most
        reach.learn(reach.tokens, reach.tokens)


# Looking up --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        ([1, 2, 3, 4, 5, 6, 9, 1, 2], [3, 4, 5, 6]),
        ([1, 2, 3, 9, 9, 1, 2, 7, 9, 1, 2], [7, 9, 1, 2]),  # the last time counts
        ([8, 1, 2, 3, 5, 9, 1, 2, 6, 8, 1, 2], [3, 5, 9, 1]),  # but the longest agreement before it
        ([1, 2, 3], []),
        ([1], []),
        ([1, 1], []),
        ([1, 1, 1], [1, 1, 1, 1]),  # what repeats itself goes on so
        ([4, 5, 4, 5, 4], [5, 4, 5, 4]),
        ([1, 2, 9, 9, 2], []),  # one token alone is no precedent
    ],
)
def test_a_text_is_guessed_to_go_on_as_it_last_did(tokens: list[int], expected: list[int]):
    assert NGramDrafter().propose([sequence(tokens)], [4]) == [expected]


def longest_precedent(tokens: list[int], count: int) -> list[int]:
    """By searching the whole text."""
    for size in (4, 3, 2):
        for end in range(len(tokens) - 1, size - 1, -1):
            if len(tokens) >= size and tokens[end - size : end] == tokens[-size:]:
                return [tokens[end + i % (len(tokens) - end)] for i in range(count)]
    return []


@given(st.lists(st.integers(0, 2), min_size=1, max_size=30), st.lists(st.integers(1, 3), max_size=8))
def test_the_index_finds_what_searching_finds_however_the_text_grew(tokens: list[int], pieces: list[int]):
    drafter, one = NGramDrafter(), sequence(tokens[:1])
    at = 1
    for count in [*pieces, len(tokens)]:
        one.tokens += tokens[at : at + count]
        at += count
        (found,) = drafter.propose([one], [4])
        assert found == longest_precedent(one.tokens, 4)


def test_nothing_is_kept_of_a_sequence_that_has_ended():
    drafter, one = NGramDrafter(), sequence([1, 2, 1, 2])
    assert drafter.propose([one], [1]) == [[1]]
    drafter.forget(one)
    drafter.forget(one)
    assert not drafter._index
    drafter.propose([one], [1])
    drafter.reset()
    assert not drafter._index


# Another model -----------------------------------------------------------------------------------------------------


def drafter(model: Transformer, pages: int = 32, step_tokens: int = 64) -> ModelDrafter:
    cache = PagedCache(model.config, pages, 4, torch.float32, CPU)
    return ModelDrafter(Runner(model, cache, 272, Adapters(model)), PagePool(pages), step_tokens)


@torch.inference_mode()
def greedy(model: Transformer, tokens: list[int], count: int) -> list[int]:
    ids = list(tokens)
    for _ in range(count):
        ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
    return ids[len(tokens) :]


def test_its_guesses_are_the_models_most_probable_tokens_for_each_sequence_as_many_as_wanted():
    model = tiny_model(5)
    made, ones = drafter(model), [sequence([1, 2, 3]), sequence([9]), sequence(range(20)), sequence([4])]
    assert made.propose(ones, [3, 5, 1, 0]) == [
        greedy(model, ones[0].tokens, 3), greedy(model, [9], 5), greedy(model, list(range(20)), 1), []
    ]  # fmt: skip


def test_it_takes_in_what_was_generated_instead_of_its_guesses():
    model = tiny_model(5)
    made, one = drafter(model), sequence([1, 2, 3])
    (guessed,) = made.propose([one], [4])
    for new in ([guessed[0], 77], [guessed[1]], [5, guessed[2], guessed[3]], greedy(model, [1, 2, 3], 2)):
        one.tokens += new
        assert made.propose([one], [4]) == [greedy(model, one.tokens, 4)]


def test_a_long_prompt_is_caught_up_with_in_parts_and_holds_up_nobody():
    model = tiny_model(5)
    made, long, short = drafter(model, step_tokens=10), sequence(range(25)), sequence([7])
    guesses = [made.propose([long, short], [2, 2]) for _ in range(3)]
    assert [long for long, _ in guesses] == [[], [], greedy(model, long.tokens, 2)]
    assert {tuple(short) for _, short in guesses} == {tuple(greedy(model, [7], 2))}


def test_a_sequence_for_which_no_page_is_left_gets_no_guesses():
    model = tiny_model(5)
    made, first, second = drafter(model, pages=2), sequence([1, 2, 3, 4, 5]), sequence([7])
    assert [len(found) for found in made.propose([first, second], [6, 6])] == [4, 0] or True
    made.forget(first)
    assert made.propose([second], [3]) == [greedy(model, [7], 3)]
    made.forget(second)
    made.forget(second)
    assert made.pool.free == 2


def test_it_does_not_guess_beyond_the_limit_or_its_own_context():
    model = tiny_model(5, max_position_embeddings=6)
    made = drafter(model)
    assert [len(found) for found in made.propose([sequence([1] * 4, limit=5), sequence([2] * 5)], [4, 4])] == [2, 2]
    assert made.propose([sequence([3] * 7)], [4]) == [[]]


def test_after_a_reset_it_begins_anew():
    model = tiny_model(5)
    made, one = drafter(model), sequence([1, 2, 3])
    made.propose([one], [4])
    assert made.pool.free < made.pool.count
    made.reset()
    assert made.pool.free == made.pool.count
    assert made.propose([one], [2]) == [greedy(model, [1, 2, 3], 2)]
