"""Captured steps: padding changes nothing, one capture serves all steps of its size, and what does not fit is refused.

No GPU is needed: in the place of a CUDA graph, a step is computed anew into the tensor that the first one left.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from puna.core.completion import SamplingParams
from puna.engine.batch import lay_out
from puna.engine.engine import Engine
from puna.engine.graphs import MOST_QUERIES, StepGraphs, padded
from puna.engine.sampler import Sampler
from puna.engine.scheduler import Slice
from puna.engine.sequence import Request, Sequence

GREEDY = SamplingParams(temperature=0, max_tokens=12)
PROMPTS = [[5, 9, 3], list(range(40, 75)), [8] * 20, [77], [200, 3, 3, 9, 41]]


class Fake:
    """A capture that counts, and replays what was captured by the addresses that it was captured with."""

    def __init__(self) -> None:
        self.captured = self.replayed = 0

    def __call__(self, compute: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], None]]:
        self.captured += 1
        result = compute().clone()

        def replay() -> None:
            self.replayed += 1
            result.copy_(compute())

        return result, replay


def with_graphs(engine: Engine) -> Fake:
    fake = Fake()
    engine.runner.graphs = StepGraphs(engine.runner.all_logits, engine.max_context, fake)
    return fake


@pytest.mark.parametrize("name", ["gqa", "mha", "mqa-llama3"])
@pytest.mark.parametrize("draft", ["none", "ngram"])
def test_the_tokens_are_those_of_plain_decoding(models, plain, new_engine, generate, name: str, draft: str):
    engine = new_engine(models[name], draft=draft)
    fake = with_graphs(engine)
    for sequence, prompt in zip(generate(engine, PROMPTS, GREEDY), PROMPTS, strict=True):
        assert sequence.ids == plain(models[name], prompt, GREEDY)
    assert 0 < fake.captured < fake.replayed


def test_steps_of_like_size_share_a_capture(models, new_engine, generate):
    engine = new_engine(models["gqa"])
    fake = with_graphs(engine)
    generate(engine, [[1, 2, 3]], GREEDY)
    assert (fake.captured, fake.replayed) == (3, 12)  # prompt of 3 in 1 page; 1 query in 1 page, then in 2
    generate(engine, [[4, 5, 6]], GREEDY)
    assert (fake.captured, fake.replayed) == (3, 24)


def test_padding_leaves_the_cache_as_it_would_be_without(models, new_engine, generate):
    caches = []
    for graphs in (False, True):
        engine = new_engine(models["gqa"])
        for layer in (*engine.runner.cache.k_PGSK, *engine.runner.cache.v_PGSK):
            layer.zero_()
        if graphs:
            with_graphs(engine)
        generate(engine, [prompt for prompt in PROMPTS if len(prompt) < 16], GREEDY)
        caches.append(engine.runner.cache)
    for kind in ("k_PGSK", "v_PGSK"):
        for plain, padded_one in zip(getattr(caches[0], kind), getattr(caches[1], kind), strict=True):
            torch.testing.assert_close(padded_one, plain, rtol=1e-4, atol=1e-5)
            assert bool(plain.any())


def test_long_slices_crowds_and_adapters_are_not_captured(models, new_engine):
    engine = new_engine(models["gqa"], max_running=100, mixed_step_tokens=200, step_tokens=200)
    fake = with_graphs(engine)
    seen = []
    takes = engine.runner.graphs.takes  # type: ignore[union-attr]

    def watched(batch):
        seen.append((takes(batch), batch.short, len(batch.blocks)))
        return seen[-1][0]

    engine.runner.graphs.takes = watched  # type: ignore[union-attr, method-assign]
    for number in range(MOST_QUERIES + 1):
        engine.add(Request((number, 7), GREEDY))
    engine.step()
    assert seen[-1] == (False, 2 * (MOST_QUERIES + 1), 0)
    engine.cancel_all()
    engine.add(Request(tuple(range(50)), GREEDY))
    engine.step()
    assert seen[-1] == (False, 0, 1)
    engine.step()
    assert seen[-1] == (True, 1, 0)
    assert fake.captured == 1


def test_another_cache_forgets_what_was_captured_for_the_old_one(models, new_engine, generate):
    engine = new_engine(models["gqa"])
    with_graphs(engine)
    generate(engine, [[1, 2, 3]], GREEDY)
    engine.sleep()
    assert engine.runner.graphs is None  # on the CPU there are none until somebody asks for them


def test_padding_says_the_last_query_again():
    made = []
    for start, pages in ((4, [3]), (9, [1, 0])):
        tokens = list(range(start + 1))
        request = Request(tuple(tokens), GREEDY)
        sequence = Sequence(0, request, 99, Sampler(GREEDY, ()), tokens=tokens, pages=pages)
        made.append(Slice(sequence, start, start + 1))
    batch = padded(lay_out(made, 8, torch.device("cpu")), 4, 4)
    assert batch.ids_1N.tolist() == [[4, 9, 9, 9]]
    assert batch.positions_1N.tolist() == [[4, 9, 9, 9]]
    assert batch.slots_N.tolist() == [28, 1, 1, 1]
    assert batch.lengths_Q.tolist() == [5, 10, 10, 10]
    assert batch.table_QB.tolist() == [[3, -1, -1, -1], *[[1, 0, -1, -1]] * 3]
    assert batch.rows == (range(1), range(1, 2))
