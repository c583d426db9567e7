from __future__ import annotations

import pytest
import torch

from puna.core.completion import SamplingParams
from puna.engine.adapters import Adapters
from puna.engine.batch import lay_out
from puna.engine.paged_cache import PagedCache
from puna.engine.runner import Runner
from puna.engine.sampler import Sampler
from puna.engine.scheduler import Slice
from puna.engine.sequence import Request, Sequence
from puna.model.transformer import Transformer
from puna.testing import tiny_model

PAGE = 8
CPU = torch.device("cpu")


def runner(model: Transformer, vocab_size: int = 272) -> Runner:
    cache = PagedCache(model.config, 30, PAGE, torch.float32, CPU)
    return Runner(model, cache, vocab_size, Adapters(model))


def sequence(tokens: list[int], pages: list[int], **params) -> Sequence:
    request = Request(tuple(tokens), SamplingParams(**params))
    return Sequence(0, request, 999, Sampler(request.params, ()), tokens=list(tokens), pages=pages)


def run(made: Runner, *parts: tuple[Sequence, int, int]) -> list[torch.Tensor]:
    batch = lay_out([Slice(*part) for part in parts], PAGE, CPU)
    found = dict(zip((part.sequence for part in batch.slices), made.run(batch), strict=True))
    return [found[one] for one, _, _ in parts]


@torch.inference_mode()
def expected(model: Transformer, tokens: list[int]) -> torch.Tensor:
    return model(torch.tensor([tokens]))[0]


@pytest.mark.parametrize("tied", [True, False])
def test_logits_are_those_of_the_wanted_places_and_the_vocabularys_ids(tied: bool):
    model = tiny_model(2, tie_word_embeddings=tied)
    made = runner(model, vocab_size=100)
    tokens = [(3 * i) % 200 for i in range(40)]
    one, other = sequence(tokens, [4, 9, 2, 0, 7]), sequence([5, 6], [1])
    first = run(made, (one, 0, 30), (other, 0, 2))
    assert [tuple(rows.shape) for rows in first] == [(0, 100), (1, 100)]
    (second,) = run(made, (one, 30, 40))
    assert second.dtype == torch.float32
    assert torch.allclose(second, expected(model, tokens)[-1:, :100], atol=1e-5)
    assert torch.allclose(first[1], expected(model, [5, 6])[-1:, :100], atol=1e-5)


def test_all_places_are_wanted_where_the_prompts_own_logprobs_are():
    model = tiny_model(2)
    made, tokens = runner(model), [1, 2, 3, 4, 5]
    (rows,) = run(made, (sequence(tokens, [3], prompt_logprobs=True), 0, 5))
    assert torch.allclose(rows, expected(model, tokens), atol=1e-5)


def test_a_step_that_chooses_nothing_computes_no_logits():
    model = tiny_model(2)
    (rows,) = run(runner(model), (sequence(list(range(40)), [0, 1, 2, 3, 4]), 0, 20))
    assert rows.shape == (0, 272)


def test_logits_are_float32_and_keep_no_gradient():
    model = tiny_model(2).bfloat16()
    made = Runner(model, PagedCache(model.config, 4, PAGE, torch.bfloat16, CPU), 272, Adapters(model))
    (rows,) = run(made, (sequence([1, 2], [0]), 0, 2))
    assert (rows.dtype, rows.requires_grad) == (torch.float32, False)
    assert torch.allclose(rows, expected(tiny_model(2), [1, 2])[-1:], atol=0.2)
