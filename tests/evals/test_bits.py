from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from puna.base.errors import ConfigError, InputError
from puna.core.document import Document
from puna.engine.local import LocalModel
from puna.evals.bits import bits_per_byte, windows
from puna.testing import tiny_model, tiny_tokenizer

TOKENIZER = tiny_tokenizer()


class Uniform:
    """Finds every token of a vocabulary of `size` as probable as any other, and notes what it was asked."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.asked: list[Sequence[int]] = []

    def token_logprobs(self, sequences: Sequence[Sequence[int]]) -> list[list[float]]:
        self.asked += sequences
        return [[-math.log(self.size)] * max(0, len(sequence) - 1) for sequence in sequences]


def encode(text: str) -> list[int]:
    return TOKENIZER.encode(text, bos=True)


def documents(*texts: str) -> list[Document]:
    return [Document(text, str(i)) for i, text in enumerate(texts)]


@given(st.integers(0, 200), st.integers(1, 50))
def test_windows_cover_each_token_once_with_half_a_context_before_it(length: int, context: int):
    scored: list[int] = []
    for window, first in windows(range(length), context):
        assert 2 <= len(window) <= context + 1
        scored += window[first:]
        assert first >= min(window[first], context // 2)
    assert scored == list(range(1, length))


def test_a_text_that_fits_the_context_is_one_window():
    assert list(windows([7, 8, 9, 10], 3)) == [([7, 8, 9, 10], 1)]
    assert list(windows([7], 3)) == list(windows([], 3)) == []


@given(st.lists(st.text(max_size=40), min_size=1, max_size=5).filter(any), st.integers(1, 20))
def test_under_a_uniform_model_each_token_costs_its_share(texts: list[str], context: int):
    model = Uniform(1000)
    found = bits_per_byte(model, encode, documents(*texts), context)
    size = sum(len(text.encode()) for text in texts)
    assert (found.bytes, found.tokens) == (size, size)  # the start token is given
    assert found.bits == pytest.approx(math.log2(1000) * size, rel=1e-12)
    assert found.value == pytest.approx(math.log2(1000), rel=1e-12)


def test_tokens_of_many_bytes_cost_less_a_byte():
    def three_bytes_each(text: str) -> list[int]:
        return [0, *range(len(text) // 3)]

    found = bits_per_byte(Uniform(8), three_bytes_each, documents("abcdef", "xyz"), 100)
    assert (found.tokens, found.bytes, found.bits, found.value) == (3, 9, pytest.approx(9), pytest.approx(1))


def test_it_is_the_log_likelihood_of_a_text_that_fits_the_context():
    model, text = LocalModel(tiny_model(), TOKENIZER), "Der Ölfilm glänzt.\n" * 3
    ids = encode(text)
    logprobs_TV = model.logits([ids])[0].double().log_softmax(-1)
    expected = -logprobs_TV[:-1].gather(1, torch.tensor(ids[1:])[:, None]).sum().item() / math.log(2)
    found = bits_per_byte(model, encode, documents(text), 2048)
    assert found.bits == pytest.approx(expected, rel=1e-6)
    assert found.value == pytest.approx(expected / len(text.encode()), rel=1e-6)


def test_a_short_context_gives_each_token_what_its_window_shows():
    model, text = LocalModel(tiny_model(), TOKENIZER), "abcdefghij"
    ids, nats = encode(text), 0.0
    for target in range(1, len(ids)):
        start = 0 if target <= 4 else 2 * ((target - 3) // 2)  # windows of 5 ids that begin at 0, 2, 4, ...
        shown = model.logits([ids[start:target]])[0, -1].double().log_softmax(-1)
        nats -= shown[ids[target]].item()
    assert bits_per_byte(model, encode, documents(text), 4).bits == pytest.approx(nats / math.log(2), rel=1e-6)


def test_many_documents_are_the_sum_of_each():
    """So many that they are scored in several parts."""
    model = LocalModel(tiny_model(), TOKENIZER)
    texts = ["x" * (1 + i % 7) + str(i) for i in range(150)]
    found = bits_per_byte(model, encode, documents(*texts), 8)
    alone = [bits_per_byte(model, encode, documents(text), 8) for text in texts]
    assert found.bits == pytest.approx(sum(one.bits for one in alone), rel=1e-6)
    assert (found.tokens, found.bytes) == (sum(one.tokens for one in alone), sum(one.bytes for one in alone))


def test_progress_is_told_every_token():
    told: list[int] = []
    found = bits_per_byte(Uniform(2), encode, documents(*["abcdefgh"] * 40), 4, told.append)
    assert sum(told) == found.tokens == 320
    assert len(told) > 1


def test_no_window_is_longer_than_the_context_and_its_target():
    model = Uniform(2)
    bits_per_byte(model, encode, documents("x" * 100), 7)
    assert max(len(window) for window in model.asked) == 8


@pytest.mark.parametrize("texts", [[], [""], ["", ""]])
def test_nothing_to_score_is_refused(texts: list[str]):
    with pytest.raises(InputError, match="no held-out text"):
        bits_per_byte(Uniform(2), encode, documents(*texts), 8)


@pytest.mark.parametrize("context", [0, -1])
def test_a_context_of_no_tokens_is_refused(context: int):
    with pytest.raises(ConfigError, match=f"context_length is {context}"):
        bits_per_byte(Uniform(2), encode, documents("x"), context)
