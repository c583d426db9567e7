"""What goes wrong in an engine is the affair of one request: the others go on, and no page is lost."""

from __future__ import annotations

import gc
import random
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from torch import Tensor

from puna.base.errors import CheckpointError, ResourceError
from puna.core.completion import SamplingParams, StopReason
from puna.engine.config import EngineConfig
from puna.engine.drafting import ModelDrafter
from puna.engine.engine import Engine
from puna.engine.sequence import Request, Sequence
from puna.model.transformer import Transformer
from puna.testing import tiny_model

GREEDY = SamplingParams(temperature=0, max_tokens=12)
SHARED = [(7 * i) % 250 for i in range(45)]
PROMPTS = [[1, 2, 3], [*SHARED, 9], [7], [*SHARED, 9, 8, 7], [40] * 33]
BAD = 13


class Faulty(Transformer):
    """Fails where a certain token comes along, with `fault`, so many times, before anything is computed."""

    def __init__(self, model: Transformer, fault: BaseException, times: int = 10**9) -> None:
        super().__init__(model.config)
        self.load_state_dict(model.state_dict())
        self.fault, self.times = fault, times
        self.eval()

    def forward(self, ids_BT: Tensor, *rest: Any, **more: Any) -> Any:
        if BAD in ids_BT and self.times:
            self.times -= 1
            raise self.fault
        return super().forward(ids_BT, *rest, **more)


def add(engine: Engine, prompt: list[int], on_token: Any = None, params: SamplingParams = GREEDY) -> Sequence:
    return engine.add(Request(tuple(prompt), params), on_token)


def whole(engine: Engine) -> bool:
    """Nothing runs, nothing waits, every page is free."""
    pools = [engine.pool, *([engine.drafter.pool] if isinstance(engine.drafter, ModelDrafter) else [])]
    return not engine.busy and all(pool.free == pool.count for pool in pools)


# Cancelled ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [{}, {"draft": "ngram"}, {"draft_model": tiny_model(4)}])
def test_a_cancelled_sequence_gives_all_back_at_once(config: dict[str, Any], models, new_engine, finish, plain):
    engine = new_engine(models["gqa"], **config)
    sequences = [add(engine, prompt) for prompt in PROMPTS]
    for _ in range(6):
        engine.step()
    held = engine.pool.free
    engine.cancel(sequences[1])
    assert sequences[1].stop_reason == "cancelled"
    assert engine.pool.free > held
    said = list(sequences[1].ids)
    finish(engine)
    assert sequences[1].ids == said
    for i in (0, 2, 3, 4):
        assert sequences[i].ids == plain(models["gqa"], PROMPTS[i], GREEDY)
    assert whole(engine)
    engine.cancel(sequences[0])
    assert sequences[0].stop_reason == "length", "what has ended stays as it is"


def test_one_that_still_waits_may_be_cancelled(models, new_engine, finish):
    engine = new_engine(models["gqa"], max_running=1)
    first, second, third = (add(engine, [i]) for i in range(3))
    engine.cancel(third)
    engine.step()
    engine.cancel(second)
    finish(engine)
    assert (len(first.ids), second.ids, third.ids) == (12, [], [])
    assert whole(engine)


def test_a_listener_may_cancel_any_sequence_and_ask_for_another(models, new_engine, finish, plain):
    engine = new_engine(models["gqa"])
    heard: list[int] = []
    added: list[Sequence] = []

    def hear(token: int) -> StopReason | None:
        heard.append(token)
        if len(heard) == 3:
            engine.cancel(other)
            added.append(add(engine, [9, 9]))
        if len(heard) == 5:
            engine.cancel(first)
        return None

    first, other = add(engine, [1, 2], hear), add(engine, [7])
    finish(engine)
    assert (len(first.ids), len(other.ids)) == (5, 2), "none hears of a token after it was cancelled"
    assert (first.stop_reason, other.stop_reason) == ("cancelled", "cancelled")
    assert added[0].ids == plain(models["gqa"], [9, 9], GREEDY)
    assert whole(engine)


def test_neither_asking_nor_cancelling_waits_for_a_step(models, new_engine, finish):
    """A step of a long prompt takes long, and an event loop must not stand still meanwhile."""
    entered, leave = threading.Event(), threading.Event()

    def hear(token: int) -> None:
        entered.set()
        assert leave.wait(60)

    engine = new_engine(models["gqa"])
    slow, other = add(engine, [1], hear), add(engine, [2])
    thread = threading.Thread(target=engine.step)
    thread.start()
    assert entered.wait(60)
    third = add(engine, [3])
    engine.cancel(other)
    engine.cancel(slow)
    assert other.ended
    leave.set()
    thread.join(60)
    finish(engine)
    assert (len(other.ids), len(slow.ids), len(third.ids)) == (0, 1, 12)
    assert whole(engine)


def test_all_may_be_cancelled(models, new_engine):
    engine = new_engine(models["gqa"], max_running=2)
    sequences = [add(engine, prompt) for prompt in PROMPTS]
    engine.step()
    engine.cancel_all()
    assert {sequence.stop_reason for sequence in sequences} == {"cancelled"}
    assert whole(engine)


# Failed ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [{}, {"draft": "ngram"}])
def test_a_listener_that_fails_fails_alone(config: dict[str, str], models, new_engine, finish, plain):
    engine = new_engine(models["gqa"], **config)

    def hear(token: int) -> None:
        raise LookupError("no such listener")

    sequences = [add(engine, prompt, hear if i == 1 else None) for i, prompt in enumerate(PROMPTS)]
    finish(engine)
    assert isinstance(sequences[1].error, LookupError)
    for i in (0, 2, 3, 4):
        assert (sequences[i].ids, sequences[i].error) == (plain(models["gqa"], PROMPTS[i], GREEDY), None)
    assert whole(engine)


@pytest.mark.parametrize("config", [{}, {"step_tokens": 7, "mixed_step_tokens": 5}, {"page_tokens": 4}])
def test_a_sequence_that_the_model_fails_on_fails_alone(config: dict[str, int], models, new_engine, finish, plain):
    """It shares its beginning with others, who were to take its pages; theirs must be computed, not believed."""
    model = models["gqa"]
    engine = new_engine(Faulty(model, RuntimeError("shapes cannot be multiplied")), **config)
    short = SHARED[:20]
    prompts = [[*short, BAD, 1, 1, 1, 1], [*short, 9], [*SHARED, BAD, *SHARED], [7], [*SHARED, BAD], [*SHARED, 9, 8]]
    sequences = [add(engine, prompt) for prompt in prompts]
    finish(engine)
    for prompt, sequence in zip(prompts, sequences, strict=True):
        if BAD in prompt:
            assert str(sequence.error) == "shapes cannot be multiplied"
            assert sequence.ids == []
        else:
            assert (sequence.ids, sequence.error) == (plain(model, prompt, GREEDY), None)
    assert whole(engine)
    late = [add(engine, [*tokens, 2]) for tokens in (short, SHARED)]
    finish(engine)
    assert [s.ids for s in late] == [plain(model, [*tokens, 2], GREEDY) for tokens in (short, SHARED)]


def test_a_step_that_fails_once_is_made_up_for(models, new_engine, finish, plain):
    """As where memory was short for a moment."""
    model = models["gqa"]
    engine = new_engine(Faulty(model, MemoryError(), times=1))
    prompts = [[BAD, 1], [*SHARED], [*SHARED, 4]]
    sequences = [add(engine, prompt) for prompt in prompts]
    finish(engine)
    assert [s.ids for s in sequences] == [plain(model, prompt, GREEDY) for prompt in prompts]


def test_weights_that_give_no_numbers_are_told_to_each_request(models, new_engine, finish):
    broken = Transformer(models["gqa"].config)
    broken.load_state_dict(models["gqa"].state_dict())
    with torch.no_grad():
        broken.embed_tokens.weight[BAD] = float("nan")
    engine = new_engine(broken.eval())
    good, bad = add(engine, [1, 2]), add(engine, [1, BAD])
    finish(engine)
    assert isinstance(bad.error, CheckpointError)
    assert len(good.ids) == 12
    assert whole(engine)


def test_a_draft_model_that_fails_is_let_go(models, new_engine, finish, plain, caplog):
    model = models["gqa"]
    engine = new_engine(model, draft_model=Faulty(model, RuntimeError("out of memory")))
    prompts = [[1, 2], [BAD, 1], [5]]
    sequences = [add(engine, prompt) for prompt in prompts]
    finish(engine)
    assert [s.ids for s in sequences] == [plain(model, prompt, GREEDY) for prompt in prompts]
    assert "Guessing ahead has failed" in caplog.text
    assert engine.drafter is None


# Interrupted -------------------------------------------------------------------------------------------------------


def test_after_an_interrupted_step_the_engine_goes_on(models, new_engine, finish, plain):
    model = models["gqa"]
    engine = new_engine(Faulty(model, KeyboardInterrupt(), times=1))
    prompts = [[1, 2], [*SHARED, BAD], [*SHARED, 3]]
    sequences = [add(engine, prompt) for prompt in prompts]
    with pytest.raises(KeyboardInterrupt):
        finish(engine)
    finish(engine)
    assert [s.ids for s in sequences] == [plain(model, prompt, GREEDY) for prompt in prompts]
    assert whole(engine)


@contextmanager
def interrupting(after: int) -> Iterator[list[tuple[str, int]]]:
    """Raises KeyboardInterrupt before the n-th line that runs in the engine room; gives the lines that have run."""
    ran: list[tuple[str, int]] = []

    def trace(frame: FrameType, event: str, argument: object) -> Callable[..., Any] | None:
        # What mends an interruption is not interrupted in its turn.
        if "puna/engine/" not in frame.f_code.co_filename or frame.f_code.co_name == "_whole":
            return None
        if event == "line":
            ran.append((frame.f_code.co_filename, frame.f_lineno))
            if len(ran) == after:
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield ran
    finally:
        sys.settrace(before)


@pytest.mark.parametrize(
    ("files", "config"),
    [
        (("engine", "scheduler", "pages"), {"draft": "ngram"}),
        (("drafting",), {"draft_model": tiny_model(3), "draft_tokens": 2}),
    ],
)
def test_an_interruption_may_come_at_any_line(
    files: tuple[str, ...], config: dict[str, Any], models, new_engine, finish, plain
):
    """At most the sequence that was in hand is lost, and says so; no page is, and no other sequence."""
    model, params = models["gqa"], replace(GREEDY, max_tokens=4)
    prompts = [[1, 2], [*SHARED[:22], 9], [*SHARED[:22], 8]]
    expected = [plain(model, prompt, params) for prompt in prompts]

    def attempt(after: int) -> list[tuple[str, int]]:
        # Four pages are too few for all three together.
        budget = 4 * 2048 * (2 if "draft_model" in config else 1)
        engine = new_engine(model, cache_bytes=budget, max_context=28, **config)
        sequences = [add(engine, prompt, params=params) for prompt in prompts]
        with interrupting(after) as ran:
            try:
                while engine.busy:
                    engine.step()
            except KeyboardInterrupt:
                pass
        finish(engine, 200)
        assert whole(engine)
        lost = [sequence for sequence in sequences if sequence.error]
        assert len(lost) <= 1
        assert all(isinstance(sequence.error, ResourceError) for sequence in lost)
        for sequence, tokens in zip(sequences, expected, strict=True):
            assert sequence.error or sequence.ids == tokens
        return ran

    draw, lines = random.Random(1), attempt(10**9)
    occasions: dict[tuple[str, int], list[int]] = {}
    for number, line in enumerate(lines, start=1):
        if Path(line[0]).stem in files:
            occasions.setdefault(line, []).append(number)
    assert len(occasions) > 20 * len(files)
    for numbers in occasions.values():
        attempt(draw.choice(numbers))


# Coming and going --------------------------------------------------------------------------------------------------

MODEL = tiny_model(3)


class Coming(RuleBasedStateMachine):
    """Requests of all kinds come and go in any order."""

    def __init__(self) -> None:
        super().__init__()
        page = 2 * 2 * 2 * 4 * 8 * 4
        config = {"page_tokens": 4, "step_tokens": 12, "mixed_step_tokens": 6, "max_running": 5, "draft": "ngram"}
        self.engine = Engine(
            MODEL, {3: "end_of_turn"}, 272, EngineConfig(cache_bytes=24 * page, max_context=60, **config)
        )
        self.sequences: list[Sequence] = []

    @rule(
        shared=st.integers(0, 40),
        own=st.integers(1, 12),
        tokens=st.integers(1, 12),
        tenant=st.sampled_from("ab"),
        priority=st.integers(-1, 1),
        more=st.sampled_from([{}, {"prompt_logprobs": True}, {"temperature": 1.0, "seed": 3}, {"logprobs": 1}]),
        fails=st.booleans(),
    )
    def ask(self, shared: int, own: int, tokens: int, tenant: str, priority: int, more: dict, fails: bool) -> None:
        def hear(token: int) -> None:
            if fails and token % 7 == 0:
                raise LookupError

        params = SamplingParams(**{"temperature": 0, "max_tokens": tokens} | more)
        request = Request((*SHARED[:shared], *range(100, 100 + own)), params, priority, tenant)
        self.sequences.append(self.engine.add(request, hear))

    @rule(count=st.integers(1, 6))
    def step(self, count: int) -> None:
        for _ in range(count):
            self.engine.step()

    @precondition(lambda self: self.sequences)
    @rule(which=st.integers(0, 10**6))
    def cancel(self, which: int) -> None:
        self.engine.cancel(self.sequences[which % len(self.sequences)])

    @precondition(lambda self: not self.engine.busy)
    @rule()
    def sleep(self) -> None:
        self.engine.sleep()

    @invariant()
    def every_page_is_free_or_held(self) -> None:
        running = self.engine.scheduler.running
        held = {page for sequence in running for page in sequence.pages}
        assert self.engine.pool.free == self.engine.pool.count - len(held)
        assert all(not sequence.pages for sequence in self.sequences if sequence.ended)

    def teardown(self) -> None:
        for _ in range(20_000):
            if not self.engine.busy:
                break
            self.engine.step()
        assert whole(self.engine)
        for sequence in self.sequences:
            assert sequence.ended
            prompt, params = sequence.request.prompt, sequence.request.params
            if sequence.stop_reason in ("length", "end_of_turn") and params.temperature == 0:
                with torch.inference_mode():
                    rows = MODEL(torch.tensor([sequence.tokens[:-1]]))[0, len(prompt) - 1 :]
                assert rows.argmax(-1).tolist() == sequence.ids
                assert len(sequence.prompt_logprobs) == (len(prompt) - 1 if params.prompt_logprobs else 0)


TestComing = Coming.TestCase
TestComing.settings = settings(max_examples=12, stateful_step_count=30, deadline=None, derandomize=True)


def test_memory_is_steady_over_many_requests(new_engine):
    """Tenants, prompts and adapters come and go; what the engine keeps of them goes too."""
    engine = new_engine(tiny_model(3, num_hidden_layers=1), cache_bytes=200 * 1024, max_context=64, draft="ngram")

    def serve(first: int, count: int) -> None:
        for start in range(first, first + count, 50):
            for i in range(start, start + 50):
                prompt = [(i * k) % 250 for k in range(1, 12)]
                engine.add(Request(tuple(prompt), replace(GREEDY, max_tokens=2), tenant=f"tenant {i}"))
            while engine.busy:
                engine.step()
        gc.collect()

    serve(0, 500)
    tracemalloc.start()
    serve(500, 200)
    before, _ = tracemalloc.get_traced_memory()
    serve(700, 2000)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert after - before < 64 * 1024
    assert whole(engine)
