"""The heart of the room: whatever an engine does to be fast, it says what the plain loop says."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from puna.base.errors import ConfigError, InputError, ResourceError
from puna.core.completion import SamplingParams, StopReason
from puna.engine.engine import Engine
from puna.engine.sampler import candidates
from puna.engine.sequence import Request, Sequence
from puna.model.transformer import Transformer
from puna.testing import tiny_checkpoint, tiny_model

GREEDY = SamplingParams(temperature=0, max_tokens=20)
SAMPLED = SamplingParams(temperature=0.8, top_p=0.95, max_tokens=20, seed=5)
PENALIZED = replace(SAMPLED, repetition_penalty=1.3, frequency_penalty=0.5, presence_penalty=-0.5, logit_bias={7: 2.0})
SHARED = [(7 * i) % 250 for i in range(45)]
PROMPTS = [[1, 2, 3], [*SHARED, 9], [7], [*SHARED, 9, 8, 7, *SHARED], [40] * 33, SHARED, [7]]
CASES = [("gqa", GREEDY), ("mha", GREEDY), ("mqa-llama3", GREEDY), ("gqa", SAMPLED), ("mqa-llama3", PENALIZED)]

# What an engine may do, beside batches of ragged lengths.
WAYS: dict[str, dict[str, Any]] = {
    "plainly": {},
    "in large steps": {"step_tokens": 2048, "mixed_step_tokens": 256},
    "in tiny chunks": {"step_tokens": 5, "mixed_step_tokens": 3},
    "one by one": {"max_running": 1},
    "without a prefix cache": {"prefix_cache": False},
    "with pages of one token": {"page_tokens": 1},
    "looking up guesses": {"draft": "ngram"},
    "looking up one guess": {"draft": "ngram", "draft_tokens": 1, "mixed_step_tokens": 4},
    # 120 tokens of cache for 300: sequences must give their pages back.
    "with a tiny cache": {"cache_bytes": 15, "max_context": 120},
    "with a tiny cache and guesses": {"cache_bytes": 15, "max_context": 120, "draft": "ngram", "step_tokens": 7},
}


def engine_for(way: str, model: Transformer, new_engine: Callable[..., Engine], **more: Any) -> Engine:
    config = WAYS[way] | more
    if pages := config.get("cache_bytes"):
        config |= {"cache_bytes": pages * page_size(model)}
    return new_engine(model, **config)


def page_size(model: Transformer, tokens: int = 8) -> int:
    """Bytes of a page of float32, by hand."""
    config = model.config
    return config.num_hidden_layers * 2 * config.num_key_value_heads * tokens * config.head_dim * 4


def ids(sequences: list[Sequence]) -> list[list[int]]:
    return [sequence.ids for sequence in sequences]


@torch.inference_mode()
def whole_logprobs(model: Transformer, tokens: list[int]) -> torch.Tensor:
    """(T, V) float64 of one full forward pass."""
    return model(torch.tensor([tokens]))[0].double().log_softmax(-1)


# The same tokens, however ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shape", "params"), CASES)
@pytest.mark.parametrize("way", WAYS)
def test_the_tokens_are_those_of_the_plain_loop(
    way: str, shape: str, params: SamplingParams, models: dict[str, Transformer], new_engine, plain, generate
):
    engine = engine_for(way, models[shape], new_engine)
    expected = [plain(models[shape], prompt, params) for prompt in PROMPTS]
    done = []
    for _ in range(2):  # the second time what is in the prefix cache is read
        sequences = generate(engine, PROMPTS, params)
        assert ids(sequences) == expected
        assert engine.pool.free == engine.pool.count
        done += sequences
    assert any(sequence.preemptions for sequence in done) == ("tiny cache" in way)
    assert any(sequence.cached_tokens for sequence in done) == ("without" not in way)


@pytest.mark.parametrize("way", ["plainly", "looking up guesses"])
def test_greedy_tokens_are_those_of_transformers(way: str, tmp_path: Path, new_engine, generate):
    transformers = pytest.importorskip("transformers")
    reference = transformers.LlamaForCausalLM.from_pretrained(tiny_checkpoint(tmp_path / "model", seed=2))
    reference.generation_config.eos_token_id = None
    prompt = torch.tensor([[5, 17, 200]])
    expected = reference.generate(
        prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=64, pad_token_id=0
    )
    engine = engine_for(way, tiny_model(2), new_engine)
    (sequence,) = generate(engine, prompt.tolist(), replace(GREEDY, max_tokens=64))
    assert sequence.ids == expected[0, 3:].tolist()
    assert len(set(sequence.ids)) > 10
    assert sequence.stop_reason == "length"


def nearly(model: Transformer) -> Transformer:
    """A model that mostly says the same."""
    other = Transformer(model.config)
    other.load_state_dict(model.state_dict())
    with torch.no_grad():
        for number, parameter in enumerate(other.parameters()):
            parameter += 0.03 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))
    return other.eval()


@pytest.mark.parametrize("params", [GREEDY, SAMPLED])
@pytest.mark.parametrize("likeness", ["itself", "nearly", "another"])
@pytest.mark.parametrize("config", [{}, {"step_tokens": 6, "mixed_step_tokens": 5, "page_tokens": 2}])
def test_a_draft_model_changes_nothing(
    likeness: str, params: SamplingParams, config: dict[str, int], models, new_engine, generate, plain
):
    model = models["gqa"]
    draft = {"itself": lambda: model, "nearly": lambda: nearly(model), "another": lambda: tiny_model(4)}[likeness]()
    engine = new_engine(model, draft_model=draft, draft_tokens=4, **config)
    assert ids(generate(engine, PROMPTS, params)) == [plain(model, prompt, params) for prompt in PROMPTS]
    assert engine.pool.free == engine.pool.count
    assert engine.drafter.pool.free == engine.drafter.pool.count


def steps(engine: Engine, params: SamplingParams, prompt: tuple[int, ...] = (1, 2, 3)) -> int:
    engine.add(Request(prompt, params))
    count = 0
    while engine.busy:
        engine.step()
        count += 1
    return count


def test_good_guesses_save_steps_and_bad_ones_cost_none(models, new_engine):
    """The model as its own draft guesses all; what has repeated itself is looked up."""
    model, params = models["gqa"], replace(GREEDY, max_tokens=40)
    assert steps(new_engine(model), params) == 40
    assert steps(new_engine(model, draft_model=model, draft_tokens=4), params) == 1 + math.ceil(39 / 5)
    assert 9 < steps(new_engine(model, draft_model=nearly(model), draft_tokens=4), params) < 30
    assert steps(new_engine(model, draft_model=tiny_model(4), draft_tokens=4), params) <= 40
    assert steps(new_engine(model, draft="ngram"), replace(params, logit_bias={5: 1e4})) < 12


def test_a_seed_gives_the_same_text_in_any_crowd_and_no_seed_gives_another(models, new_engine, generate):
    model = models["gqa"]
    alone = ids(generate(new_engine(model), [[7]], SAMPLED))
    assert ids(generate(new_engine(model), [[7]] * 3 + [[1] * 9], SAMPLED))[:3] == alone * 3
    engine = new_engine(model)
    crowd = [engine.add(Request((*SHARED, i), replace(SAMPLED, seed=None))) for i in range(9)]
    for _ in range(5):
        engine.step()
    late = engine.add(Request((7,), SAMPLED))
    while engine.busy:
        engine.step()
    assert late.ids == alone[0]
    assert len({tuple(sequence.ids) for sequence in crowd}) == 9
    unseeded = generate(engine, [[7]] * 3, replace(SAMPLED, seed=None, temperature=2.0))
    assert len(set(map(tuple, ids(unseeded)))) == 3


def test_several_answers_have_seeds_one_after_another(models, new_engine, finish, plain):
    engine = new_engine(models["gqa"])
    answers = [engine.add(Request((7, 8), SAMPLED), answer=i) for i in range(3)]
    finish(engine)
    assert ids(answers) == [plain(models["gqa"], [7, 8], replace(SAMPLED, seed=5 + i)) for i in range(3)]


# Guesses and chance ------------------------------------------------------------------------------------------------


def chi_square_bound(freedom: int, deviations: float) -> float:
    """The value that chance exceeds as rarely as a normal number its mean by so many deviations (Wilson-Hilferty)."""
    return freedom * (1 - 2 / (9 * freedom) + deviations * math.sqrt(2 / (9 * freedom))) ** 3


@torch.inference_mode()
def exact_pairs(model: Transformer, prompt: list[int], params: SamplingParams) -> dict[tuple[int, int], float]:
    """Probabilities of the second and third new token."""
    V = model.config.vocab_size

    def next_token(tokens: list[int]) -> Iterator[tuple[int, float]]:
        found, weights = candidates(model(torch.tensor([tokens]))[0, -1], params)
        return zip(found.tolist(), (weights / weights.sum()).tolist(), strict=True)

    pairs = Counter[tuple[int, int]]()
    for a, p_a in next_token(prompt):
        for b, p_b in next_token([*prompt, a]):
            for c, p_c in next_token([*prompt, a, b]):
                pairs[b, c] += p_a * p_b * p_c
    assert len(pairs) <= V * V
    return pairs


@pytest.mark.parametrize("likeness", ["nearly", "another"])
def test_guessing_ahead_leaves_the_distribution_as_it_is(likeness: str, new_engine):
    """Draws of two tokens that were guessed, counted against their exact probabilities."""
    shape = {"vocab_size": 6, "bos_token_id": 0, "eos_token_id": (5,)}
    model, params = tiny_model(1, **shape), SamplingParams(temperature=1.3, top_p=0.98, max_tokens=4)
    draft = nearly(model) if likeness == "nearly" else tiny_model(2, **shape)
    engine = new_engine(model, draft_model=draft, draft_tokens=2, mixed_step_tokens=512, step_tokens=512)
    draws = 2000
    sequences = [engine.add(Request((1, 2, 3), replace(params, seed=seed))) for seed in range(draws)]
    count = 0
    while engine.busy:
        engine.step()
        count += 1
    assert count < 4 * draws / engine.config.max_running - 8, "no guess was taken"
    found = Counter(tuple(sequence.ids[1:3]) for sequence in sequences)
    expected = {pair: draws * p for pair, p in exact_pairs(model, [1, 2, 3], params).items()}
    assert set(found) <= set(expected)
    often = {pair: n for pair, n in expected.items() if n >= 5}
    rest = draws - sum(often.values())
    statistic = sum((found[pair] - n) ** 2 / n for pair, n in often.items())
    statistic += (sum(found[pair] for pair in found if pair not in often) - rest) ** 2 / max(rest, 5)
    assert len(often) > 10
    assert statistic < chi_square_bound(len(often), 3.5)
    wrong = {pair: found[pair[1], pair[0]] for pair in often}
    assert sum((wrong[pair] - n) ** 2 / n for pair, n in often.items()) > 2 * chi_square_bound(len(often), 3.5)


# Log-probabilities -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["plainly", "in tiny chunks", "looking up guesses", "with a tiny cache"])
@pytest.mark.parametrize("shape", ["gqa", "mqa-llama3"])
def test_logprobs_equal_those_of_a_full_forward_pass(way: str, shape: str, models, new_engine, generate):
    """The model's own, whatever is sampled from; those of the prompt in whatever parts it was computed."""
    model = models[shape]
    params = replace(PENALIZED, temperature=3.0, top_k=5, logprobs=3, prompt_logprobs=True)
    engine = engine_for(way, model, new_engine)
    sequences = [s for _ in range(2) for s in generate(engine, PROMPTS, params)]
    for sequence in sequences:
        prompt = sequence.request.prompt
        expected = whole_logprobs(model, sequence.tokens)[:-1]
        own = expected.gather(1, torch.tensor(sequence.tokens[1:])[:, None]).squeeze(1)
        assert sequence.prompt_logprobs == pytest.approx(own[: len(prompt) - 1].tolist(), abs=1e-4)
        assert [p.id for p in sequence.logprobs] == sequence.ids
        assert [p.logprob for p in sequence.logprobs] == pytest.approx(own[len(prompt) - 1 :].tolist(), abs=1e-4)
        for logprobs_V, found in zip(expected[len(prompt) - 1 :], sequence.logprobs, strict=True):
            best, places = logprobs_V.topk(3)
            assert [id for id, _ in found.top] == places.tolist()
            assert [value for _, value in found.top] == pytest.approx(best.tolist(), abs=1e-4)
    assert any(sequence.preemptions for sequence in sequences) == ("tiny cache" in way)


def test_no_logprobs_unless_asked_for(models, new_engine, generate):
    (sequence,) = generate(new_engine(models["gqa"]), [[1, 2]], GREEDY)
    assert (sequence.logprobs, sequence.prompt_logprobs) == ([], [])


def test_ids_from_vocab_size_on_are_never_chosen(models, generate):
    """An embedding is often padded to a round number of rows."""
    params = replace(SAMPLED, temperature=5.0, top_p=1.0, logprobs=1000)
    sequences = generate(Engine(models["mha"], {}, 20), PROMPTS, params)
    assert all(token < 20 for tokens in ids(sequences) for token in tokens)
    assert all(len(p.top) == 20 for sequence in sequences for p in sequence.logprobs)


@pytest.mark.parametrize(("dtype", "bound"), [("int8", 0.03), ("fp8", 0.12)])
def test_a_quantised_cache_stays_close_and_takes_half_the_bytes(dtype: str, bound: float, new_engine, generate):
    """Half of bfloat16's, but for a scale of four bytes for each token and head."""
    model = tiny_model(3, head_dim=64)
    params = replace(GREEDY, max_tokens=1, prompt_logprobs=True)
    prompts = [SHARED, [(11 * i) % 256 for i in range(100)]]
    exact = generate(new_engine(model), prompts, params)
    engine = new_engine(model, cache_dtype=dtype, page_tokens=32)
    close = generate(engine, prompts, params)
    differences = [
        abs(a - b)
        for one, other in zip(exact, close, strict=True)
        for a, b in zip(one.prompt_logprobs, other.prompt_logprobs, strict=True)
    ]
    assert 0 < sum(differences) / len(differences) < bound / 4
    assert max(differences) < bound
    cache = engine.runner.cache
    held = [*cache.k_PGSK, *cache.v_PGSK, *cache.k_scale_PGS, *cache.v_scale_PGS]
    per_page = sum(tensor.nbytes for tensor in held) // engine.pool.count
    assert per_page / (page_size(model, 32) / 2) == pytest.approx((64 + 4) / 128)


# Ends --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["plainly", "looking up guesses"])
@pytest.mark.parametrize("params", [GREEDY, SAMPLED])
def test_sequences_that_end_early_leave_the_others_as_they_are(
    way: str, params: SamplingParams, models, new_engine, plain, generate
):
    model = models["gqa"]
    free = [plain(model, prompt, params) for prompt in PROMPTS]
    stops: dict[int, StopReason] = {free[0][2]: "end_of_turn", free[1][7]: "end_of_message"}

    def cut(ids: list[int]) -> list[int]:
        return next((ids[: i + 1] for i, token in enumerate(ids) if token in stops), ids)

    sequences = generate(engine_for(way, model, new_engine, stop_ids=stops), PROMPTS, params)
    assert ids(sequences) == [cut(tokens) for tokens in free]
    assert [s.stop_reason for s in sequences] == [stops.get(s.ids[-1], "length") for s in sequences]
    assert len({len(s.ids) for s in sequences}) > 2


@pytest.mark.parametrize("config", [{}, {"draft": "ngram"}])
def test_whoever_hears_the_tokens_may_end_a_sequence(config: dict[str, str], models, new_engine, plain, finish):
    engine = new_engine(models["gqa"], **config)
    heard: list[list[int]] = [[] for _ in PROMPTS]

    def listener(i: int) -> Callable[[int], StopReason | None]:
        def hear(token: int) -> StopReason | None:
            heard[i].append(token)
            return "stop" if len(heard[i]) == 3 + i else None

        return hear

    sequences = [engine.add(Request(tuple(prompt), GREEDY), listener(i)) for i, prompt in enumerate(PROMPTS)]
    finish(engine)
    whole = [plain(models["gqa"], prompt, GREEDY) for prompt in PROMPTS]
    assert ids(sequences) == heard == [tokens[: 3 + i] for i, tokens in enumerate(whole)]
    assert {sequence.stop_reason for sequence in sequences} == {"stop"}


def test_each_step_names_the_sequences_that_gained_a_token(models, new_engine):
    engine = new_engine(models["gqa"], step_tokens=32)
    sequences = [engine.add(Request(tuple(prompt), GREEDY)) for prompt in PROMPTS]
    lengths = dict.fromkeys(sequences, 0)
    while engine.busy:
        moved = engine.step()
        assert len(set(moved)) == len(moved)
        for sequence in sequences:
            assert (len(sequence.ids) > lengths[sequence]) == (sequence in moved)
            lengths[sequence] = len(sequence.ids)
    assert engine.step() == []


@pytest.mark.parametrize("count", [1, 2, 41])
@pytest.mark.parametrize("config", [{}, {"draft": "ngram"}])
def test_max_tokens_is_kept(count: int, config: dict[str, str], models, new_engine, generate):
    sequences = generate(new_engine(models["gqa"], **config), PROMPTS, replace(GREEDY, max_tokens=count))
    assert {len(sequence.ids) for sequence in sequences} == {count}
    assert {sequence.stop_reason for sequence in sequences} == {"length"}


@pytest.mark.parametrize("config", [{}, {"draft": "ngram"}, {"draft_model": tiny_model(4, max_position_embeddings=20)}])
def test_generation_ends_where_the_context_does(config: dict[str, Any], new_engine, generate, plain):
    model = tiny_model(max_position_embeddings=32)
    prompts = [[1] * 31, [2] * 5, [3] * 20]
    sequences = generate(new_engine(model, **config), prompts, replace(GREEDY, max_tokens=1000))
    assert [len(sequence.tokens) for sequence in sequences] == [32, 32, 32]
    assert {sequence.stop_reason for sequence in sequences} == {"length"}
    assert sequences[1].ids == plain(model, prompts[1], replace(GREEDY, max_tokens=27))


# What is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [32, 33, 1000])
def test_a_prompt_that_fills_the_context_is_refused_with_both_numbers(size: int, new_engine):
    engine = new_engine(tiny_model(max_position_embeddings=32))
    with pytest.raises(InputError, match=f"has {size} tokens; the model's context holds 32") as caught:
        engine.add(Request((1,) * size, GREEDY))
    assert "at most 31" in caught.value.hint
    assert not engine.busy


@pytest.mark.parametrize("prompt", [(-1,), (1, 272), (2**40,)])
def test_ids_that_the_model_does_not_have_are_refused(prompt: tuple[int, ...], models, new_engine):
    with pytest.raises(InputError, match=f"ids from {min(prompt)} to {max(prompt)}; the model's are 0 to 271"):
        new_engine(models["gqa"]).add(Request(prompt, GREEDY))


def test_an_empty_prompt_and_an_unknown_adapter_are_refused(models, new_engine):
    with pytest.raises(InputError, match="no tokens"):
        new_engine(models["gqa"]).add(Request((), GREEDY))
    with pytest.raises(ConfigError, match="no adapter 'poet'"):
        new_engine(models["gqa"]).add(Request((1,), GREEDY, adapter="poet"))


def test_a_budget_that_holds_no_whole_sequence_is_refused_with_both_numbers(models, new_engine):
    model = models["gqa"]
    budget = 3 * page_size(model) + 5  # of pages that hold 8 tokens
    with pytest.raises(ResourceError, match=r"of 6\.0 KiB holds 24 tokens; a sequence of 25 needs 8\.0 KiB") as caught:
        new_engine(model, cache_bytes=budget, max_context=25)
    assert "lower max_context to 24" in caught.value.hint
    with pytest.raises(ResourceError, match="holds 0 tokens"):
        new_engine(model, cache_bytes=1)
    assert new_engine(model, cache_bytes=budget, max_context=24).max_context == 24


def test_a_draft_models_pages_are_part_of_the_budget(models, new_engine):
    model = models["gqa"]
    budget = {"cache_bytes": 64 * page_size(model), "max_context": 64}
    assert new_engine(model, **budget).pool.count == 64
    engine = new_engine(model, draft_model=models["mha"], **budget)
    assert engine.pool.count == 64 // 3
    caches = [engine.runner.cache, engine.drafter.runner.cache]
    assert sum(t.nbytes for cache in caches for t in (*cache.k_PGSK, *cache.v_PGSK)) <= budget["cache_bytes"]


def test_a_draft_model_of_another_vocabulary_is_refused(models, new_engine):
    with pytest.raises(ConfigError, match="knows 100 tokens; the model 272"):
        new_engine(models["gqa"], draft_model=tiny_model(vocab_size=100))


def test_an_unset_budget_fits_the_memory_and_the_model(models):
    engine = Engine(models["mqa-llama3"], {}, 272)
    assert engine.max_context == 512
    assert engine.pool.count == 512 // 32 * 64
    assert Engine(tiny_model(max_position_embeddings=10**9), {}, 272).max_context < 10**9


# Sleep -------------------------------------------------------------------------------------------------------------


def test_asleep_the_cache_takes_no_memory_and_the_next_request_wakes_it(models, new_engine, generate, plain):
    model = models["gqa"]
    engine = new_engine(model, draft_model=model)
    assert ids(generate(engine, [SHARED], GREEDY)) == [plain(model, SHARED, GREEDY)]
    engine.sleep()
    caches = [engine.runner.cache, engine.drafter.runner.cache]
    assert sum(tensor.nbytes for cache in caches for tensor in (*cache.k_PGSK, *cache.v_PGSK)) == 0
    (sequence,) = generate(engine, [SHARED], GREEDY)
    assert sequence.ids == plain(model, SHARED, GREEDY)
    assert sequence.cached_tokens == 0
    engine.sleep()
    engine.wake()
    assert engine.runner.cache.pages == engine.pool.count


def test_at_work_it_does_not_go_to_sleep(models, new_engine):
    engine = new_engine(models["gqa"])
    sequence = engine.add(Request((1,), GREEDY))
    with pytest.raises(ResourceError, match="at work"):
        engine.sleep()
    engine.step()
    with pytest.raises(ResourceError, match="at work"):
        engine.sleep()
    engine.cancel(sequence)
    engine.sleep()
