"""The engine as a provider: real models of random weights."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from puna.base.errors import CheckpointError, ConfigError, InputError
from puna.core.chat import Message, ToolSpec
from puna.core.completion import Completion, Constraint, Done, SamplingParams, TextDelta, ToolCallDelta
from puna.engine.config import EngineConfig
from puna.engine.local import LocalModel
from puna.stack.conversion import NamedLogprob
from puna.stack.errors import ApiError
from puna.stack.providers.engine import EngineProvider, precision_of
from puna.stack.providers.provider import Ask, Provider
from puna.testing import tiny_checkpoint, tiny_model, tiny_tokenizer

TOKENIZER = tiny_tokenizer()
GREEDY = SamplingParams(temperature=0, max_tokens=8)
ENDLESS = SamplingParams(temperature=0, max_tokens=1800, logit_bias={97: 1000.0})
HELLO = [Message("user", "hello")]


def local() -> LocalModel:
    return LocalModel(tiny_model(2, num_hidden_layers=1), TOKENIZER, EngineConfig(page_tokens=8))


def serve(
    work: Callable[[EngineProvider], Awaitable[Any]], load: Callable[[], LocalModel] = local, **settings: Any
) -> Any:
    async def go() -> Any:
        provider = EngineProvider("local", {"tiny": load}, **settings)
        await provider.start()
        try:
            return await asyncio.wait_for(work(provider), 60)
        finally:
            await provider.stop()
            assert not any(thread.name == "puna-engine" for thread in threading.enumerate())

    return asyncio.run(go())


async def answer(provider: EngineProvider, ask: Ask) -> Completion:
    *_, done = [event async for event in provider.stream(ask)]
    assert isinstance(done, Done)
    return done.completion


def test_it_answers_as_the_model_itself_does() -> None:
    expected = local().chat(HELLO, GREEDY)
    raw = local().generate("hello", GREEDY)

    async def work(provider: Provider) -> None:
        assert isinstance(provider, EngineProvider)
        events = [event async for event in provider.stream(Ask("tiny", HELLO, GREEDY))]
        *pieces, done = events
        assert isinstance(done, Done)
        assert done.completion.ids == expected.ids
        assert "".join(piece.text for piece in pieces if isinstance(piece, TextDelta)) == expected.message.content
        assert (await answer(provider, Ask("tiny", params=GREEDY, prompt="hello"))).ids == raw.ids
        ids = TOKENIZER.encode("hello", bos=True)
        assert (await answer(provider, Ask("tiny", params=GREEDY, prompt=ids))).ids == raw.ids
        assert await provider.count_tokens("tiny", HELLO) == expected.usage.prompt_tokens

    serve(work)


def test_a_forced_call_has_one_id_and_none_is_forced_by_none() -> None:
    tool = ToolSpec("look", "", {"type": "object", "properties": {}, "additionalProperties": False})

    async def work(provider: EngineProvider) -> None:
        forced = Ask("tiny", HELLO, replace(GREEDY, max_tokens=200, tool_choice="look"), [tool])
        *_, call, done = [event async for event in provider.stream(forced)]
        assert isinstance(call, ToolCallDelta) and isinstance(done, Done)
        assert call.call.id.startswith("call_")
        assert done.completion.message.tool_calls == (call.call,)
        plain = await answer(provider, Ask("tiny", HELLO, replace(GREEDY, tool_choice="none"), [tool]))
        assert plain.usage.prompt_tokens == await provider.count_tokens("tiny", HELLO)
        form = replace(GREEDY, max_tokens=50, constraint=Constraint("choice", ["yes", "no"]))
        assert (await answer(provider, Ask("tiny", HELLO, form))).message.content in ("yes", "no")

    serve(work)


def test_probabilities_bear_names_and_the_end_has_none() -> None:
    ends = replace(GREEDY, logprobs=2, max_tokens=5, logit_bias={TOKENIZER.eot_id: 1000.0})

    async def work(provider: EngineProvider) -> None:
        found = await answer(provider, Ask("tiny", HELLO, replace(GREEDY, logprobs=2, n=2)))
        for one in (found, *found.others):
            assert len(one.logprobs) == 8
            for item, id in zip(one.logprobs, one.ids, strict=True):
                assert isinstance(item, NamedLogprob)
                assert item.token == TOKENIZER.token_bytes(id)
                assert item.names == tuple(TOKENIZER.token_bytes(other) for other, _ in item.top)
        assert (await answer(provider, Ask("tiny", HELLO, ends))).logprobs == ()

    serve(work)


def test_owners_share_no_cached_beginnings() -> None:
    async def work(provider: EngineProvider) -> list[int]:
        asks = [Ask("tiny", [Message("user", "x" * 40)], GREEDY, owner=owner) for owner in ("a", "a", "b")]
        return [(await answer(provider, ask)).usage.cached_tokens for ask in asks]

    first, second, other = serve(work)
    assert first == other == 0
    assert second > 0


def test_a_closed_stream_frees_the_engine() -> None:
    async def work(provider: EngineProvider) -> None:
        async with aclosing(provider.stream(Ask("tiny", HELLO, ENDLESS))) as events:
            await anext(events)
        await asyncio.sleep(0.2)
        model = (await provider._ready("tiny")).model
        assert not model.engine.busy
        assert model.engine.pool.free == model.engine.pool.count

    serve(work)


def test_a_prompt_that_is_too_long_is_refused_with_the_word_for_it() -> None:
    async def work(provider: EngineProvider) -> None:
        for ask in (Ask("tiny", [Message("user", "x" * 3000)], GREEDY), Ask("tiny", params=GREEDY, prompt="x" * 3000)):
            with pytest.raises(ApiError, match="the context of 'tiny' holds 2,048") as caught:
                await answer(provider, ask)
            assert caught.value.code == "context_length_exceeded"
            assert caught.value.param == ("messages" if ask.messages else "prompt")
        with pytest.raises(InputError):
            await answer(provider, Ask("tiny", params=GREEDY, prompt=[99999]))

    serve(work)


def test_vectors_have_length_one_and_the_models_width() -> None:
    async def work(provider: EngineProvider) -> None:
        embedding = next(info for info in await provider.models() if info.type == "embedding")
        vectors = await provider.embed(embedding.id, ["a", "hello there"])
        assert [len(vector) for vector in vectors] == [32, 32]
        assert sum(x * x for x in vectors[0]) == pytest.approx(1.0)

    async def loaded(provider: EngineProvider) -> None:
        await provider._ready("tiny")
        await work(provider)
        assert [info.dimensions for info in await provider.models()] == [0, 32]

    serve(loaded)


# In and out -----------------------------------------------------------------------------------------------------------


def test_the_server_is_there_while_a_model_loads() -> None:
    go_on = threading.Event()

    def slow() -> LocalModel:
        go_on.wait(30)
        return local()

    async def work(provider: EngineProvider) -> None:
        assert await provider.health() == type(await provider.health())(False, "tiny: loading")
        assert [info.meta["status"] for info in await provider.models()] == ["loading", "loading"]
        with pytest.raises(ApiError, match="still loading") as caught:
            await answer(provider, Ask("tiny", HELLO, GREEDY))
        assert (caught.value.status, caught.value.headers) == (503, {"Retry-After": "5"})
        provider.patience = 30
        waiting = asyncio.ensure_future(answer(provider, Ask("tiny", HELLO, GREEDY)))
        await asyncio.sleep(0.01)
        go_on.set()
        assert (await waiting).usage.completion_tokens
        assert (await provider.health()).ok
        info, _ = await provider.models()
        assert (info.context_length, info.precision, info.meta["status"]) == (2048, "fp32", "ready")
        assert {"tools", "json_schema", "logprobs", "seed"} <= info.features

    serve(work, slow, patience=0.05)


def test_a_server_that_stops_does_not_wait_for_a_model_that_loads() -> None:
    go_on = threading.Event()

    def slow() -> LocalModel:
        go_on.wait(30)
        return local()

    async def work(provider: EngineProvider) -> None:
        await asyncio.sleep(0.01)

    serve(work, slow)
    go_on.set()


def test_a_model_that_cannot_be_loaded_says_why(caplog: pytest.LogCaptureFixture) -> None:
    calls = 0

    def broken() -> LocalModel:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise CheckpointError("The weights are cut off.", hint="Get them again.")
        return local()

    async def work(provider: EngineProvider) -> None:
        with pytest.raises(ApiError, match=r"The weights are cut off\. Get them again\."):
            await answer(provider, Ask("tiny", HELLO, GREEDY))
        assert not (await provider.health()).ok
        assert await provider.models() == []
        await provider.load("tiny")
        assert (await answer(provider, Ask("tiny", HELLO, GREEDY))).usage.completion_tokens

    serve(work, broken)
    assert "cannot be loaded" in caplog.text


BROKEN_ENGINE = """
import asyncio, sys
from puna.stack.providers.engine import EngineProvider

async def go():
    provider = EngineProvider("local", {"tiny": lambda: None})
    await provider.start()
    while "loading" in (message := (await provider.health()).message):
        await asyncio.sleep(0.01)
    print(message)
    await provider.stop()

sys.modules["puna.engine.serving"] = None  # as where torch cannot be imported
asyncio.run(go())
"""


def test_an_engine_that_cannot_be_imported_says_why() -> None:
    done = subprocess.run(
        [sys.executable, "-c", BROKEN_ENGINE], capture_output=True, text=True, check=True, timeout=120
    )
    assert "tiny: import of puna.engine.serving halted" in done.stdout


def test_models_come_and_go() -> None:
    async def work(provider: EngineProvider) -> None:
        streaming = asyncio.ensure_future(answer(provider, Ask("tiny", HELLO, replace(ENDLESS, max_tokens=60))))
        while not (await provider._ready("tiny")).model.engine.busy:
            await asyncio.sleep(0.001)
        await provider.unload("tiny")
        assert (await streaming).usage.completion_tokens == 60  # what was under way has finished
        with pytest.raises(ApiError, match="not in memory"):
            await answer(provider, Ask("tiny", HELLO, GREEDY))
        assert (await provider.health()).message == "tiny: unloaded"
        await provider.load("tiny")
        await provider.load("tiny")  # twice is once
        await provider.add("other", local)
        with pytest.raises(ConfigError, match="has a model 'other' already"):
            await provider.add("other", local)
        for name in ("tiny", "other"):
            assert (await answer(provider, Ask(name, HELLO, GREEDY))).usage.completion_tokens
        with pytest.raises(ApiError) as caught:
            await answer(provider, Ask("nobody", HELLO, GREEDY))
        assert caught.value.status == 404

    serve(work)


def test_a_checkpoint_is_served_with_its_precision(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path / "model", dtype="bfloat16")

    async def work(provider: EngineProvider) -> None:
        served = await provider._ready("tiny")
        assert precision_of(served.model) == "bf16"
        assert (await answer(provider, Ask("tiny", HELLO, GREEDY))).usage.completion_tokens

    serve(work, lambda: LocalModel.load(folder, dtype="bfloat16", device="cpu"))


def test_the_module_imports_no_torch() -> None:
    code = "import sys, puna.stack.app, puna.stack.providers.engine; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
