"""Small models of every kind of attention, and the plainest way to generate with them, which all others must equal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from puna.core.completion import SamplingParams
from puna.engine.config import EngineConfig
from puna.engine.engine import Engine
from puna.engine.sampler import Sampler
from puna.engine.sequence import Request
from puna.engine.sequence import Sequence as Generation
from puna.model.config import RopeScaling
from puna.model.transformer import Transformer
from puna.testing import tiny_model

LLAMA3 = RopeScaling(8.0, 1.0, 4.0, 64)
SHAPES: dict[str, dict[str, Any]] = {
    "gqa": {},
    "mha": {"num_key_value_heads": 4, "tie_word_embeddings": True},
    "mqa-llama3": {"num_key_value_heads": 1, "rope_scaling": LLAMA3, "max_position_embeddings": 512},
}


@pytest.fixture(scope="session")
def models() -> dict[str, Transformer]:
    """Small float32 models, one for each kind of attention."""
    return {name: tiny_model(3, **changes) for name, changes in SHAPES.items()}


@torch.inference_mode()
def _plain(model: Transformer, prompt: Sequence[int], params: SamplingParams) -> list[int]:
    sampler, ids = Sampler(params, prompt), list(prompt)
    for _ in range(params.max_tokens):
        ids.append(sampler.choose(model(torch.tensor([ids]))[0, -1]))
    return ids[len(prompt) :]


@pytest.fixture(scope="session")
def plain() -> Callable[..., list[int]]:
    """The new tokens without a cache, a batch or a guess: the whole sequence is computed anew for each token."""
    done: dict[object, list[int]] = {}

    def generate(model: Transformer, prompt: Sequence[int], params: SamplingParams) -> list[int]:
        key = id(model), tuple(prompt), repr(params)
        if key not in done:
            done[key] = _plain(model, prompt, params)
        return done[key]

    return generate


@pytest.fixture(scope="session")
def new_engine() -> Callable[..., Engine]:
    """An engine without stop tokens, with a cache of 64 KiB a page unless told."""

    def make(model: Transformer, stop_ids: Any = None, draft_model: Transformer | None = None, **config: Any) -> Engine:
        settings = {"page_tokens": 8, "step_tokens": 64, "mixed_step_tokens": 16} | config
        return Engine(model, stop_ids or {}, model.config.vocab_size, EngineConfig(**settings), draft_model)

    return make


def _finish(engine: Engine, limit: int = 100_000) -> None:
    for _ in range(limit):
        if not engine.busy:
            return
        engine.step()
    raise AssertionError(f"the engine is at work after {limit} steps")


@pytest.fixture(scope="session")
def finish() -> Callable[..., None]:
    """Steps until nothing is left to do."""
    return _finish


@pytest.fixture(scope="session")
def generate() -> Callable[..., list[Generation]]:
    """Gives all prompts to an engine at once, and steps until they have ended."""

    def run(engine: Engine, prompts: Sequence[Sequence[int]], params: SamplingParams, **more: Any) -> list[Generation]:
        sequences = [engine.add(Request(tuple(prompt), params, **more)) for prompt in prompts]
        _finish(engine)
        return sequences

    return run
