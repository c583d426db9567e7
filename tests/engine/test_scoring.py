from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from puna.base.errors import InputError
from puna.engine.scoring import Scorer
from puna.testing import tiny_model


def rows(lengths: list[int], seed: int = 0) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(0, 270, (n,), generator=generator).tolist() for n in lengths]


class Wrapped(nn.Module):
    """An output matrix of another kind, such as a quantised one."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear
        self.weight = linear.weight

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.linear(hidden)


@torch.inference_mode()
def expected_logprobs(model, sequence: list[int]) -> list[float]:
    """One forward pass of the sequence alone, float64 softmax."""
    if len(sequence) < 2:
        return []
    logprobs = model(torch.tensor([sequence]))[0, :-1].double().log_softmax(-1)
    return logprobs.gather(1, torch.tensor(sequence[1:])[:, None]).squeeze(1).tolist()


@pytest.mark.parametrize("kind", ["tied", "linear", "wrapped"])
def test_logprobs_are_those_of_each_sequence_alone(kind: str):
    model = tiny_model(2, tie_word_embeddings=kind == "tied")
    reference = tiny_model(2, tie_word_embeddings=kind == "tied")
    if kind == "wrapped":
        model.lm_head = Wrapped(model.lm_head)  # type: ignore[assignment]
    sequences = rows([0, 1, 2, 150, 3, *range(40, 5, -1)])  # more than one batch, and not in order
    found = Scorer(model).token_logprobs(sequences)
    for sequence, logprobs in zip(sequences, found, strict=True):
        assert logprobs == pytest.approx(expected_logprobs(reference, sequence), abs=1e-5)
    ids_BT = torch.tensor([[1, 2, 3], [4, 5, 6]])
    with torch.inference_mode():
        assert torch.allclose(Scorer(model).logits(ids_BT), reference(ids_BT), atol=1e-5)


def test_long_sequences_are_computed_few_at_a_time_and_none_is_lost():
    model = tiny_model(2, max_position_embeddings=5000)
    sequences = rows([4000, 3, 4001, 10, 2500])
    found = Scorer(model).token_logprobs(sequences)
    assert [len(logprobs) for logprobs in found] == [3999, 2, 4000, 9, 2499]
    assert found[4] == pytest.approx(expected_logprobs(model, sequences[4]), abs=1e-4)


def test_no_sequences_give_no_logprobs():
    assert Scorer(tiny_model()).token_logprobs([]) == []
    assert Scorer(tiny_model()).embed([]) == []


def test_embeddings_are_means_of_the_last_hidden_states_of_length_one():
    model = tiny_model(2)
    sequences = rows([5, 1, 30, 5], seed=3)
    found = Scorer(model).embed(sequences)
    with torch.inference_mode():
        for sequence, vector in zip(sequences, found, strict=True):
            hidden_TD = model(torch.tensor([sequence]), head=lambda hidden_BTD, _: hidden_BTD)[0].double()
            mean_D = hidden_TD.mean(0)
            assert vector == pytest.approx((mean_D / mean_D.norm()).tolist(), abs=1e-5)
            assert math.hypot(*vector) == pytest.approx(1)


def test_a_sequence_beyond_the_context_is_refused_with_both_numbers():
    scorer = Scorer(tiny_model(max_position_embeddings=16))
    assert len(scorer.token_logprobs([[1] * 17])[0]) == 16, "the last token is only asked about"
    with pytest.raises(InputError, match="has 17 tokens to compute; the model's context holds 16"):
        scorer.token_logprobs([[1], [1] * 18])
    with pytest.raises(InputError, match="has 17 tokens to compute"):
        scorer.embed([[1] * 17])


@pytest.mark.parametrize("sequence", [[1, 272, 3], [1, 2, 272], [-1, 2]])
def test_ids_that_the_model_does_not_have_are_refused(sequence: list[int]):
    with pytest.raises(InputError, match="the model's are 0 to 271"):
        Scorer(tiny_model()).token_logprobs([[1, 2], sequence])


def test_nothing_cannot_be_embedded():
    with pytest.raises(InputError, match="no tokens"):
        Scorer(tiny_model()).embed([[1], []])
