from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from puna.base.errors import InputError
from puna.core.completion import SamplingParams, StopReason
from puna.engine.generator import Generator, Row
from puna.model.transformer import Transformer
from puna.testing import tiny_checkpoint, tiny_model

GREEDY = SamplingParams(temperature=0, max_tokens=64)
SAMPLED = SamplingParams(temperature=0.8, top_p=0.95, max_tokens=20, seed=5, logprobs=3)
PROMPTS = [[1, 2, 3], [40] * 30, [7], [9, 8, 7, 6, 5, 4, 3, 2, 1], [7]]


def generator(model: Transformer, stop_ids: dict[int, StopReason] | None = None) -> Generator:
    return Generator(model, stop_ids or {}, model.config.vocab_size)


def generate(generator: Generator, prompts: list[list[int]], params: SamplingParams) -> list[Row]:
    rows = generator.rows(prompts, params)
    for _ in generator.run(rows):
        pass
    return rows


@torch.inference_mode()
def plain_greedy(model: Transformer, prompt: list[int], count: int) -> list[int]:
    """No cache, no padding: the whole sequence anew for each token."""
    ids = list(prompt)
    for _ in range(count):
        ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
    return ids[len(prompt) :]


@pytest.mark.parametrize("seed", [2, 3])
def test_greedy_tokens_are_those_of_a_loop_without_a_cache(seed: int):
    model = tiny_model(seed)
    (row,) = generate(generator(model), [[5, 17, 200]], GREEDY)
    assert row.ids == plain_greedy(model, [5, 17, 200], 64)
    assert row.stop_reason == "length"


def test_greedy_tokens_are_those_of_transformers(tmp_path: Path):
    transformers = pytest.importorskip("transformers")
    reference = transformers.LlamaForCausalLM.from_pretrained(tiny_checkpoint(tmp_path / "model", seed=2))
    reference.generation_config.eos_token_id = None
    prompt = torch.tensor([[5, 17, 200]])
    expected = reference.generate(
        prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=64, pad_token_id=0
    )
    (row,) = generate(generator(tiny_model(2)), prompt.tolist(), GREEDY)
    assert row.ids == expected[0, 3:].tolist()
    assert len(set(row.ids)) > 10


@pytest.mark.parametrize("params", [replace(GREEDY, max_tokens=20, logprobs=3), SAMPLED])
def test_a_row_of_a_batch_is_what_it_is_alone(params: SamplingParams):
    model = tiny_model(3)
    together = generate(generator(model), PROMPTS, params)
    for prompt, row in zip(PROMPTS, together, strict=True):
        (alone,) = generate(generator(model), [prompt], params)
        assert row.ids == alone.ids
        for found, expected in zip(row.logprobs, alone.logprobs, strict=True):
            assert found.logprob == pytest.approx(expected.logprob, abs=1e-5)
            assert [value for _, value in found.top] == pytest.approx([v for _, v in expected.top], abs=1e-5)
    assert together[2].ids == together[4].ids


@pytest.mark.parametrize("params", [GREEDY, SAMPLED])
def test_rows_that_end_early_leave_the_others_as_they_are(params: SamplingParams):
    model = tiny_model(2)
    params = replace(params, max_tokens=20)
    free = [row.ids for row in generate(generator(model), PROMPTS, params)]
    stops: dict[int, StopReason] = {free[0][2]: "end_of_turn", free[1][7]: "end_of_message"}

    def cut(ids: list[int]) -> list[int]:
        return next((ids[: i + 1] for i, token in enumerate(ids) if token in stops), ids)

    rows = generate(generator(model, stops), PROMPTS, params)
    assert [row.ids for row in rows] == [cut(ids) for ids in free]
    assert [row.stop_reason for row in rows] == [stops.get(row.ids[-1], "length") for row in rows]
    assert len({len(row.ids) for row in rows}) > 2


def test_whoever_consumes_the_tokens_may_end_a_row():
    model = tiny_model(2)
    whole = generate(generator(model), PROMPTS, GREEDY)
    rows = generator(model).rows(PROMPTS, GREEDY)
    for running in generator(model).run(rows):
        for row in running:
            if len(row.ids) == 3 + row.index:
                row.stop_reason = "stop"
    assert [row.ids for row in rows] == [row.ids[: 3 + i] for i, row in enumerate(whole)]


def test_each_step_names_the_rows_that_gained_a_token():
    model = tiny_model(2)
    instance = generator(model, {generate(generator(model), PROMPTS, GREEDY)[0].ids[2]: "end_of_turn"})
    rows = instance.rows(PROMPTS, GREEDY)
    lengths = [0] * len(rows)
    for running in instance.run(rows):
        for row in running:
            lengths[row.index] += 1
        assert [len(row.ids) for row in rows] == lengths


def test_logprobs_are_the_models_own_whatever_is_sampled_from():
    model = tiny_model(1)
    params = SamplingParams(temperature=3.0, top_k=5, repetition_penalty=1.5, max_tokens=8, seed=0, logprobs=2)
    (row,) = generate(generator(model), [[1, 2, 3]], params)
    with torch.inference_mode():
        expected = model(torch.tensor([[1, 2, 3, *row.ids]]))[0, 2:-1].double().log_softmax(-1)
    assert [p.id for p in row.logprobs] == row.ids
    for logprobs_V, found in zip(expected, row.logprobs, strict=True):
        best, ids = logprobs_V.topk(2)
        assert found.logprob == pytest.approx(logprobs_V[found.id].item(), abs=1e-5)
        assert [i for i, _ in found.top] == ids.tolist()
        assert [value for _, value in found.top] == pytest.approx(best.tolist(), abs=1e-5)


def test_no_logprobs_unless_asked_for():
    (row,) = generate(generator(tiny_model()), [[1]], replace(GREEDY, max_tokens=3))
    assert row.logprobs == []


@pytest.mark.parametrize("count", [1, 2, 63])
def test_max_tokens_is_kept(count: int):
    rows = generate(generator(tiny_model()), PROMPTS, replace(GREEDY, max_tokens=count))
    assert [len(row.ids) for row in rows] == [count] * len(PROMPTS)
    assert {row.stop_reason for row in rows} == {"length"}


def test_generation_ends_where_the_context_does():
    model = tiny_model(max_position_embeddings=32)
    prompts = [[1] * 31, [2] * 5, [3] * 20]
    rows = generate(generator(model), prompts, replace(GREEDY, max_tokens=1000))
    assert [len(row.prompt) + len(row.ids) for row in rows] == [32, 32, 32]
    assert {row.stop_reason for row in rows} == {"length"}
    assert rows[1].ids == plain_greedy(model, prompts[1], 27)


@pytest.mark.parametrize("size", [32, 33, 1000])
def test_a_prompt_that_fills_the_context_is_refused_with_both_numbers(size: int):
    with pytest.raises(InputError, match=f"has {size} tokens; the model's context holds 32") as caught:
        generator(tiny_model(max_position_embeddings=32)).rows([[1], [1] * size], GREEDY)
    assert "at most 31" in caught.value.hint


@pytest.mark.parametrize("prompt", [[-1], [1, 272], [2**40]])
def test_ids_that_the_model_does_not_have_are_refused(prompt: list[int]):
    with pytest.raises(InputError, match="the model's are 0 to 271"):
        generator(tiny_model()).rows([prompt], GREEDY)


def test_an_empty_prompt_is_refused():
    with pytest.raises(InputError, match="no tokens"):
        generator(tiny_model()).rows([[1], []], GREEDY)


def test_no_rows_take_no_steps():
    assert list(generator(tiny_model()).run([])) == []


def test_ids_from_vocab_size_on_are_never_chosen():
    """An embedding is often padded to a round number of rows."""
    model = tiny_model(1)
    rows = generate(Generator(model, {}, 20), PROMPTS, replace(SAMPLED, temperature=5.0, top_p=1.0, logprobs=1000))
    assert all(token < 20 for row in rows for token in row.ids)
    assert all(len(p.top) == 20 for row in rows for p in row.logprobs)


def test_a_seed_gives_the_same_text_in_any_batch_and_no_seed_gives_another():
    model = tiny_model(4)
    alone = generate(generator(model), [[7]], SAMPLED)[0].ids
    assert generate(generator(model), [[7]], SAMPLED)[0].ids == alone
    assert [row.ids for row in generate(generator(model), [[7]] * 3 + [[1] * 9], SAMPLED)[:3]] == [alone] * 3
    unseeded = generate(generator(model), [[7]] * 3, replace(SAMPLED, seed=None, temperature=2.0))
    assert len({tuple(row.ids) for row in unseeded}) == 3
