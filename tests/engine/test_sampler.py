from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from puna.base.errors import CheckpointError
from puna.core.completion import SamplingParams
from puna.engine.sampler import Sampler, candidates, logprob_of, penalized

transformers = pytest.importorskip("transformers")

VOCAB = 60
PLAIN = SamplingParams(temperature=1.0, top_p=1.0)


def random_logits(seed: int, size: int = VOCAB) -> Tensor:
    return 3 * torch.randn(size, generator=torch.Generator().manual_seed(seed))


def ours(logits_V: Tensor, params: SamplingParams, prompt: list[int]) -> Tensor:
    """The probability of every token, float64."""
    if params.repetition_penalty != 1:
        logits_V = penalized(logits_V, set(prompt), params.repetition_penalty)
    ids_N, weights_N = candidates(logits_V, params)
    return torch.zeros(len(logits_V), dtype=torch.float64).scatter(0, ids_N, weights_N / weights_N.sum())


def theirs(logits_V: Tensor, params: SamplingParams, prompt: list[int]) -> Tensor:
    """The same from transformers' processors, in the order in which its `generate` puts them."""
    from transformers.generation import logits_process as hf

    steps: list[Any] = [hf.RepetitionPenaltyLogitsProcessor(params.repetition_penalty)]
    steps += [hf.TemperatureLogitsWarper(params.temperature)]
    steps += [hf.TopKLogitsWarper(params.top_k)] if params.top_k else []
    steps += [hf.TopPLogitsWarper(params.top_p)] if params.top_p < 1 else []
    steps += [hf.MinPLogitsWarper(params.min_p)] if params.min_p else []
    ids, scores = torch.tensor([prompt]), logits_V[None]
    for step in steps:
        scores = step(ids, scores)
    return scores[0].softmax(-1)


def test_the_distribution_is_that_of_transformers_processors():
    """Random logits have no ties, where conventions differ: see the next test."""
    grid = itertools.product([0.3, 1.0, 2.5], [0, 1, 7, 1000], [1.0, 0.9, 0.3, 1e-6], [0.0, 0.05, 0.6], [1.0, 1.3, 0.7])
    for case, (temperature, top_k, top_p, min_p, penalty) in enumerate(grid):
        params = SamplingParams(temperature, top_k, top_p, min_p, penalty)
        prompt = [case % VOCAB, 3, 3, 17]
        logits_V = random_logits(case).double()
        expected, found = theirs(logits_V, params, prompt), ours(logits_V, params, prompt)
        assert torch.equal(found > 0, expected > 0), params
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12, msg=str(params))


def test_of_tokens_tied_at_the_limit_of_top_k_the_first_are_kept():
    """transformers keeps all of them, so more than k."""
    logits_V = torch.tensor([1.0, 2.0, 2.0, 3.0, 2.0])
    params = replace(PLAIN, top_k=2)
    assert candidates(logits_V, params)[0].tolist() == [3, 1]
    assert int((theirs(logits_V, params, [0]) > 0).sum()) == 4


def test_a_token_that_reaches_top_p_exactly_is_the_last():
    logits_V = torch.tensor([2.0, 2.0])
    assert candidates(logits_V, replace(PLAIN, top_p=0.5))[0].tolist() == [0]
    assert candidates(logits_V, replace(PLAIN, top_p=0.51))[0].tolist() == [0, 1]


@given(
    st.lists(st.floats(-30, 30, width=32), min_size=1, max_size=30),
    st.floats(1e-3, 10),
    st.integers(0, 40),
    st.floats(1e-9, 1),
    st.floats(0, 0.999),
)
def test_the_most_probable_token_always_stays_and_no_setting_adds_one(
    values: list[float], temperature: float, top_k: int, top_p: float, min_p: float
):
    logits_V = torch.tensor(values)
    ids_N, weights_N = candidates(logits_V, SamplingParams(temperature, top_k, top_p, min_p))
    kept = ids_N.tolist()
    assert kept[0] == int(logits_V.argmax())
    assert len(set(kept)) == len(kept) <= min(len(values), top_k or len(values))
    assert weights_N[0] > 0
    assert sorted(kept, key=lambda i: (-logits_V[i].item(), i)) == kept


@pytest.mark.parametrize("temperature", [5e-324, 1e-310, 1e-5])
def test_a_temperature_near_zero_is_greedy(temperature: float):
    logits_V = random_logits(4)
    sampler = Sampler(replace(PLAIN, temperature=temperature, seed=0), [])
    assert {sampler.choose(logits_V) for _ in range(20)} == {int(logits_V.argmax())}


def test_greedy_takes_the_first_of_the_most_probable_tokens():
    sampler = Sampler(SamplingParams(temperature=0), [])
    assert sampler.choose(torch.tensor([0.0, 5.0, 1.0, 5.0, 5.0])) == 1


@pytest.mark.parametrize("params", [PLAIN, SamplingParams(0.7, top_k=12, top_p=0.95, min_p=0.02)])
def test_draws_follow_the_distribution(params: SamplingParams):
    """Chi-square over 4,000 draws: its mean is the number of degrees of freedom, its deviation sqrt(2 * that)."""
    logits_V, draws = random_logits(11, 20) / 2, 4000
    sampler = Sampler(replace(params, seed=3), [])
    counts = Counter(sampler.choose(logits_V) for _ in range(draws))
    expected = ours(logits_V, params, []) * draws
    assert all(expected[token] > 0 for token in counts)
    terms = [(counts[i] - e) ** 2 / e for i, e in enumerate(expected.tolist()) if e > 0]
    freedom = len(terms) - 1
    assert sum(terms) < freedom + 4 * (2 * freedom) ** 0.5


def drawn(sampler: Sampler, count: int = 30) -> list[int]:
    return [sampler.choose(random_logits(step)) for step in range(count)]


@pytest.mark.parametrize("seed", [0, 1, -1, 2**63, 2**64, -(2**70)])
def test_a_seed_reproduces_whatever_its_size(seed: int):
    params = replace(PLAIN, seed=seed)
    assert drawn(Sampler(params, [])) == drawn(Sampler(params, []))


def test_seeds_differ_from_each_other_and_none_draws_one():
    made = [tuple(drawn(Sampler(replace(PLAIN, seed=seed), []))) for seed in (0, 1, 2, None, None)]
    assert len(set(made)) == 5


def test_rows_do_not_disturb_each_other_nor_torchs_own_numbers():
    alone = drawn(Sampler(replace(PLAIN, seed=7), []))
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first, second = Sampler(replace(PLAIN, seed=7), []), Sampler(replace(PLAIN, seed=8), [])
    mixed = []
    for step in range(30):
        mixed.append(first.choose(random_logits(step)))
        second.choose(random_logits(step))
    assert mixed == alone
    assert torch.equal(torch.get_rng_state(), before)


def test_the_penalty_counts_the_prompt_and_each_new_token():
    params = SamplingParams(temperature=0, repetition_penalty=100.0)
    sampler = Sampler(params, [0, 2])
    logits_V = torch.tensor([9.0, 4.0, 8.0, 3.0, -0.5])
    assert [sampler.choose(logits_V) for _ in range(3)] == [1, 3, 0]


@pytest.mark.parametrize(("presence", "frequency"), [(0.0, 0.7), (1.5, 0.0), (-0.4, 1.1), (2.0, -0.3)])
def test_penalties_and_bias_are_those_of_a_slow_loop(presence: float, frequency: float):
    """Penalties count what the answer holds and nothing of the prompt, each time anew; a bias is added first."""
    bias = {3: 1.5, 7: -100.0, 10**9: 5.0, -1: 5.0}
    params = SamplingParams(
        temperature=0,
        repetition_penalty=1.2,
        presence_penalty=presence,
        frequency_penalty=frequency,
        logit_bias=bias,
    )
    prompt, said = [3, 3, 5], []
    sampler = Sampler(params, prompt)
    for step in range(40):
        logits_V = random_logits(step % 3)
        values = logits_V.double().tolist()
        for token in range(VOCAB):
            values[token] += bias.get(token, 0.0)
            if token in prompt or token in said:
                values[token] *= 1.2 if values[token] < 0 else 1 / 1.2
            values[token] -= presence * (token in said) + frequency * said.count(token)
        expected = max(range(VOCAB), key=lambda token: values[token])
        assert sampler.choose(logits_V) == expected
        said.append(expected)
    assert 7 not in said
    assert len(set(said)) > 3


def test_a_token_that_was_forced_is_penalized_like_a_chosen_one():
    sampler = Sampler(SamplingParams(temperature=0, frequency_penalty=2.0), [])
    logits_V = torch.tensor([5.0, 4.0, 0.0])
    sampler.note(0)
    assert sampler.choose(logits_V) == 1


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_no_numbers_are_refused(value: float, temperature: float):
    logits_V = random_logits(0)
    logits_V[5] = value
    with pytest.raises(CheckpointError, match="logits are not numbers") as caught:
        Sampler(SamplingParams(temperature), []).choose(logits_V)
    assert "float32" in caught.value.hint


@pytest.mark.parametrize("params", [PLAIN, SamplingParams(0.7, top_k=40), SamplingParams(2.0, top_p=0.99, min_p=0.01)])
def test_what_a_grammar_forbids_is_never_drawn(params: SamplingParams):
    logits_V = random_logits(1)
    allowed = [4, 17, 33]
    masked_V = torch.full_like(logits_V, float("-inf"))
    masked_V[allowed] = logits_V[allowed]
    sampler = Sampler(replace(params, seed=1, presence_penalty=0.1, logit_bias={5: 50.0}), [])
    assert {sampler.choose(masked_V) for _ in range(100)} <= set(allowed)


def test_answers_to_one_request_have_seeds_one_after_another():
    params = replace(PLAIN, seed=2**64 - 1)
    assert drawn(Sampler(params, [], 1)) == drawn(Sampler(replace(PLAIN, seed=0), []))
    assert drawn(Sampler(params, [], 1)) != drawn(Sampler(params, [], 0))


def test_choosing_leaves_the_logits_as_they_are():
    logits_V = random_logits(0)
    kept = logits_V.clone()
    sampler = Sampler(SamplingParams(0.5, 5, 0.9, 0.1, 2.0, 1.0, 1.0, {3: 1.0}, seed=1), [1, 2])
    for _ in range(3):
        sampler.choose(logits_V)
    assert torch.equal(logits_V, kept)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_logprobs_are_those_of_the_whole_distribution(dtype: torch.dtype):
    logits_V = random_logits(2).to(dtype)
    expected = logits_V.double().log_softmax(-1)
    best = expected.argsort(descending=True)[:3].tolist()
    found = logprob_of(logits_V, 5, 3)
    assert (found.id, [i for i, _ in found.top]) == (5, best)
    assert found.logprob == pytest.approx(expected[5].item(), abs=1e-5)
    assert [value for _, value in found.top] == pytest.approx(expected[best].tolist(), abs=1e-5)


def test_more_alternatives_than_tokens_are_all_of_them():
    assert len(logprob_of(random_logits(0), 0, 10 * VOCAB).top) == VOCAB
    assert logprob_of(random_logits(0), 0, 0).top == ()
