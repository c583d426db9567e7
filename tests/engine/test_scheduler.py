"""The scheduler alone: no model, the test plays the engine."""

from __future__ import annotations

import random
from collections.abc import Sequence as Sequence_

import pytest

from puna.core.completion import SamplingParams
from puna.engine.config import EngineConfig
from puna.engine.pages import PagePool
from puna.engine.sampler import Sampler
from puna.engine.scheduler import Scheduler, Slice
from puna.engine.sequence import Request, Sequence

NUMBERS = iter(range(10**9))


def sequence(length: int, *, priority: int = 0, tenant: str = "", first: int = 0, **params) -> Sequence:
    prompt = tuple(range(first, first + length))
    request = Request(prompt, SamplingParams(**params), priority, tenant)
    return Sequence(next(NUMBERS), request, 10**6, Sampler(request.params, ()), tokens=list(prompt))


def scheduler(pages: int = 1000, **config) -> Scheduler:
    settings = {"page_tokens": 4, "step_tokens": 64, "mixed_step_tokens": 16} | config
    return Scheduler(PagePool(pages), EngineConfig(**settings))


def carry_out(plan: Sequence_[Slice]) -> None:
    """What the engine does with a plan: all is computed, and who has nothing pending gains a token."""
    for part in plan:
        part.sequence.computed = part.end
        if part.samples:
            part.sequence.computed = len(part.sequence.tokens)
            part.sequence.tokens.append(7)


def counts(plan: Sequence_[Slice]) -> dict[Sequence, int]:
    return {part.sequence: part.count for part in plan}


def test_a_prompt_is_computed_in_parts_of_the_budget():
    made, long = scheduler(), sequence(150)
    made.add(long)
    sizes = []
    for _ in range(4):
        plan = made.plan()
        sizes.append(counts(plan)[long])
        carry_out(plan)
    assert sizes == [64, 64, 22, 1]
    assert len(long.tokens) == 152


def test_answers_get_their_token_while_a_long_prompt_gets_the_rest_of_a_small_budget():
    made = scheduler()
    answers = [sequence(5, first=100 * i) for i in range(3)]
    for answer in answers:
        made.add(answer)
    carry_out(made.plan())
    long = sequence(1000, first=5000)
    made.add(long)
    for _ in range(10):
        plan = made.plan()
        assert [counts(plan)[answer] for answer in answers] == [1, 1, 1]
        assert counts(plan)[long] == 13
        carry_out(plan)


def test_every_answer_gets_its_token_where_more_run_than_the_budget_has_tokens():
    made = scheduler(mixed_step_tokens=2)
    answers = [sequence(3, first=100 * i) for i in range(6)]
    for answer in answers:
        made.add(answer)
    carry_out(made.plan())
    assert counts(made.plan()) == dict.fromkeys(answers, 1)


def test_prompts_under_way_wait_where_answers_take_more_than_the_budget():
    made = scheduler(step_tokens=64, mixed_step_tokens=4)
    answers = [sequence(3, first=100 * i) for i in range(6)]
    for answer in answers:
        made.add(answer)
    long = sequence(100, first=5000)
    made.add(long)
    carry_out(made.plan())
    assert long.computed == 64 - 18
    assert counts(made.plan()) == dict.fromkeys(answers, 1)


def test_urgent_requests_go_first_and_equal_ones_in_the_order_of_arrival():
    made = scheduler(max_running=1)
    late, early, urgent = sequence(3), sequence(3), sequence(3, priority=-1)
    early.number, late.number = 1, 2
    for waiting in (late, early, urgent):
        made.add(waiting)
    order = []
    for _ in range(3):
        (part,) = made.plan()
        order.append(part.sequence)
        made.remove(part.sequence)
    assert order == [urgent, early, late]


def test_a_tenant_with_many_requests_does_not_keep_another_waiting():
    made = scheduler(max_running=1)
    greedy = [sequence(20, tenant="a", first=1000 * i) for i in range(5)]
    modest = sequence(20, tenant="b", first=9000)
    for waiting in (*greedy, modest):
        made.add(waiting)
    order = []
    for _ in range(6):
        (part,) = made.plan()
        order.append(part.sequence)
        made.remove(part.sequence)
    assert order.index(modest) == 1


def test_equal_beginnings_are_computed_once_even_in_one_step():
    made = scheduler()
    first, second = sequence(22), sequence(22)
    other = sequence(22, tenant="other")
    for waiting in (first, second, other):
        made.add(waiting)
    plan = made.plan()
    assert counts(plan) == {first: 22, second: 2, other: 20 + 2}
    assert second.cached_tokens == 20
    assert second.pages[:5] == first.pages[:5]
    assert not set(other.pages) & set(first.pages)
    assert second.pages[5] != first.pages[5], "what is written to is one's own"


def test_a_whole_prompt_that_is_known_still_computes_its_last_page():
    made = scheduler()
    made.add(sequence(16))
    carry_out(made.plan())
    again = sequence(16)
    made.add(again)
    assert counts(made.plan())[again] == 4
    assert again.cached_tokens == 12


def test_prompts_whose_own_logprobs_are_wanted_are_computed_whole():
    made = scheduler(mixed_step_tokens=64)
    made.add(sequence(16))
    carry_out(made.plan())
    again = sequence(16, prompt_logprobs=True)
    made.add(again)
    assert counts(made.plan())[again] == 16


def test_prompts_whose_own_logprobs_are_wanted_are_computed_in_small_parts():
    """The logits of all their tokens are held at a time: a gigabyte for 2,048 tokens of Llama 3's vocabulary."""
    made = scheduler(step_tokens=64, mixed_step_tokens=16)
    wanted = sequence(40, prompt_logprobs=True)
    made.add(wanted)
    sizes = []
    for _ in range(3):
        plan = made.plan()
        sizes.append(counts(plan)[wanted])
        carry_out(plan)
    assert sizes == [16, 16, 8]


def test_after_a_reset_all_wait_and_every_page_is_free():
    made = scheduler(pages=32)
    running, waiting = sequence(20), sequence(60, first=900)
    made.add(running)
    carry_out(made.plan())
    made.add(waiting)
    made.reset()
    assert (made.running, made.waiting) == ([], [waiting, running])
    assert (made.pool.free, made.pool.known) == (32, 0)
    assert (running.computed, running.pages, running.preemptions, waiting.preemptions) == (0, [], 1, 0)
    assert counts(made.plan()) == {running: 21, waiting: 43}


def test_what_tenants_have_had_is_forgotten_when_none_is_left():
    """Their names are the clients' to choose: nothing may grow with them."""
    made = scheduler()
    for i in range(100):
        made.add(sequence(3, tenant=f"tenant {i}"))
        (part,) = made.plan()
        made.remove(part.sequence)
    assert len(made._served) == 1


def test_without_a_prefix_cache_nothing_is_shared():
    made = scheduler(prefix_cache=False)
    first, second = sequence(22), sequence(22)
    made.add(first)
    made.add(second)
    assert counts(made.plan()) == {first: 22, second: 22}
    assert made.pool.known == 0


def test_the_least_urgent_gives_way_and_comes_back_with_what_it_had():
    made = scheduler(pages=8, mixed_step_tokens=64)
    old, young = sequence(12), sequence(12, first=500)
    made.add(old)
    made.add(young)
    preempted = False
    for _ in range(200):
        carry_out(made.plan())
        preempted = preempted or bool(young.preemptions)
        for ended in [s for s in (old, young) if len(s.tokens) >= 28 and s in made.running]:
            made.remove(ended)
        if not made.running and not made.waiting:
            break
    assert preempted
    assert not old.preemptions
    assert (len(old.tokens), len(young.tokens)) == (28, 28)
    assert made.pool.free == 8


def test_guesses_are_computed_with_the_last_token_and_are_never_named():
    made, answer = scheduler(), sequence(6)
    made.add(answer)
    carry_out(made.plan())
    answer.drafts = [1, 2, 3, 4, 5]
    (part,) = made.plan()
    assert (part.start, part.end) == (6, 12)
    assert len(answer.pages) == 3
    assert made.pool.known == 1, "tokens 4 to 7 are not all there yet"


def test_guesses_that_do_not_fit_the_budget_are_left_out():
    made = scheduler(mixed_step_tokens=4)
    answers = [sequence(4, first=100 * i) for i in range(3)]
    for answer in answers:
        made.add(answer)
    carry_out(made.plan())
    for answer in answers:
        answer.drafts = [1, 2, 3]
    assert sorted(counts(made.plan()).values()) == [1, 1, 4]


def test_removing_gives_everything_back():
    made = scheduler(pages=16)
    running, waiting = sequence(20), sequence(60, first=900)
    made.add(running)
    made.plan()
    made.add(waiting)
    made.remove(running)
    made.remove(waiting)
    assert made.pool.free == 16
    assert made.plan() == []
    made.remove(running)


@pytest.mark.parametrize("seed", range(5))
def test_whatever_comes_and_goes_all_are_served_and_no_page_is_lost(seed: int):
    draw = random.Random(seed)
    made = scheduler(pages=24, max_running=5)
    lengths: dict[Sequence, int] = {}
    done = []
    for step in range(600):
        if draw.random() < 0.2 and step < 300:
            new = sequence(
                draw.randint(1, 40), first=draw.choice([0, 0, 1000]), tenant=draw.choice("ab"),
                priority=draw.choice([0, 0, 1]),
            )  # fmt: skip
            lengths[new] = len(new.tokens) + draw.randint(1, 20)
            made.add(new)
        plan = made.plan()
        assert bool(plan) == bool(made.running)
        assert bool(made.running) or not made.waiting
        held = [page for s in made.running for page in s.pages]
        assert made.pool.free == 24 - len(set(held))
        for part in plan:
            assert part.count > 0
            assert len(part.sequence.pages) * 4 >= part.end
            if draw.random() < 0.3:
                part.sequence.drafts = [1] * draw.randint(0, 4)
        carry_out(plan)
        for s in list(made.running):
            if len(s.tokens) >= lengths[s] or draw.random() < 0.01:
                made.remove(s)
                done.append(s)
    assert len(done) == len(lengths) > 40
    assert made.pool.free == 24
