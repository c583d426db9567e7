"""Adapters mixed in one batch, against models into whose weights each has been folded."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from puna.base.errors import CheckpointError, ConfigError
from puna.core.completion import SamplingParams
from puna.engine.adapters import AdaptedLinear, Adapters
from puna.engine.engine import Engine
from puna.engine.prepare import prepare
from puna.engine.scoring import Scorer
from puna.engine.sequence import Request, Sequence
from puna.model.lora import LoraConfig, apply_lora, load_adapter, lora_parameters, merge, save_adapter
from puna.model.transformer import Transformer
from puna.testing import tiny_model

GREEDY = SamplingParams(temperature=0, max_tokens=16, logprobs=0, prompt_logprobs=True)
CHANGES: dict[str, dict[str, Any]] = {
    "a": {"rank": 4, "alpha": 8.0},
    "b": {"rank": 2, "alpha": 4.0, "targets": ("q_proj", "down_proj")},
    "c": {"rank": 8, "alpha": 8.0, "use_rslora": True},
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Adapters that change what the model says."""
    folder = tmp_path_factory.mktemp("adapters")
    return {name: save(folder / name, seed, **changes) for seed, (name, changes) in enumerate(CHANGES.items())}


def save(folder: Path, seed: int, model: Transformer | None = None, **changes: Any) -> Path:
    adapted = apply_lora(model or tiny_model(2), LoraConfig(**changes), seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in lora_parameters(adapted).values():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    save_adapter(adapted, folder)
    return folder


@pytest.fixture(scope="module")
def merged(folders: dict[str, Path]) -> dict[str, Transformer]:
    """A plain model for each adapter, and for none."""
    return {"": tiny_model(2)} | {name: merge(load_adapter(tiny_model(2), folders[name])) for name in folders}


def ask(engine: Engine, name: str, prompt: tuple[int, ...] = tuple(range(20)), **changes: Any) -> Sequence:
    return engine.add(Request(prompt, replace(GREEDY, **changes), adapter=name))


@torch.inference_mode()
def assert_says(sequence: Sequence, model: Transformer) -> None:
    """Its tokens are the model's most probable ones, and all log-probabilities are the model's."""
    logits = model(torch.tensor([sequence.tokens]))[0, :-1]
    assert sequence.ids == logits.argmax(-1)[len(sequence.request.prompt) - 1 :].tolist()
    logprobs = logits.double().log_softmax(-1).gather(1, torch.tensor(sequence.tokens[1:])[:, None]).squeeze(1)
    found = [*sequence.prompt_logprobs, *(one.logprob for one in sequence.logprobs)]
    assert found == pytest.approx(logprobs[-len(found) :].tolist(), abs=1e-5)


@pytest.mark.parametrize("prepared", [False, True])
@pytest.mark.parametrize("config", [{}, {"step_tokens": 9, "mixed_step_tokens": 7}, {"draft": "ngram"}])
def test_adapters_mixed_in_one_batch_say_what_each_merged_model_says(
    prepared: bool, config: dict[str, Any], folders, merged, new_engine, finish
):
    model = prepare(tiny_model(2)) if prepared else tiny_model(2)
    engine = new_engine(model, **config)
    for name, folder in folders.items():
        engine.adapters.load(name, folder)
    assert engine.adapters.names() == ["a", "b", "c"]
    sequences = [ask(engine, name, (*range(n), 7)) for name in ("a", "", "b", "c", "a") for n in (3, 20)]
    finish(engine)
    for sequence in sequences:
        assert_says(sequence, merged[sequence.request.adapter])
    assert len({tuple(sequence.ids) for sequence in sequences}) == 8


def test_adapters_share_no_cached_beginning_even_under_one_name(folders, merged, new_engine, finish):
    engine = new_engine(tiny_model(2))
    for name in ("a", "b", "a"):
        engine.adapters.load("x", folders[name])
        found = [ask(engine, "x", prompt_logprobs=False) for _ in range(2)]
        finish(engine)
        for sequence in found:
            assert_says(sequence, merged[name])
        assert [sequence.cached_tokens > 0 for sequence in found] == [False, True]


def test_adapters_come_and_go_while_requests_run(folders, merged, new_engine, finish):
    """A sequence keeps the one that it began with, whatever happens to its name."""
    engine = new_engine(tiny_model(2))
    plain = ask(engine, "")
    engine.step()
    engine.adapters.load("x", folders["a"])
    first = ask(engine, "x")
    engine.step()
    engine.adapters.load("x", folders["b"])
    second = ask(engine, "x")
    engine.step()
    engine.adapters.drop("x")
    assert engine.adapters.names() == []
    finish(engine)
    for sequence, name in ((plain, ""), (first, "a"), (second, "b")):
        assert_says(sequence, merged[name])
    for action in (lambda: ask(engine, "x"), lambda: engine.adapters.drop("x")):
        with pytest.raises(ConfigError, match="no adapter 'x'"):
            action()


def test_loading_in_another_thread_disturbs_no_step(folders, merged, new_engine):
    engine = new_engine(tiny_model(2))
    sequences = [ask(engine, "", (i, i), max_tokens=60) for i in range(5)]
    done = threading.Event()

    def load() -> None:
        while not done.is_set():
            for name in ("a", "b"):
                engine.adapters.load(name, folders[name])
                engine.adapters.drop(name)

    thread = threading.Thread(target=load)
    thread.start()
    try:
        while engine.busy:
            engine.step()
    finally:
        done.set()
        thread.join()
    for sequence in sequences:
        assert_says(sequence, merged[""])


def test_who_scores_meanwhile_scores_with_the_model_alone(folders, merged):
    model = tiny_model(2)
    adapters = Adapters(model)
    adapters.load("a", folders["a"])
    ids = torch.tensor([[1, 2, 3]])
    expected = Scorer(merged[""]).token_logprobs([[1, 2, 3], [4, 5]])
    found: list[list[list[float]]] = []
    with adapters.active([(adapters.find("a"), 3)]), torch.inference_mode():
        thread = threading.Thread(target=lambda: found.append(Scorer(model).token_logprobs([[1, 2, 3], [4, 5]])))
        thread.start()
        thread.join()
        adapted = model(ids)
    assert found[0][0] == pytest.approx(expected[0], abs=1e-5)
    assert found[0][1] == pytest.approx(expected[1], abs=1e-5)
    with torch.inference_mode():
        assert torch.allclose(adapted, merged["a"](ids), atol=1e-4)
        assert torch.allclose(model(ids), merged[""](ids), atol=1e-5), "after the block it is the model alone again"


def test_layers_are_wrapped_once_and_keep_what_they_wrap(folders):
    model = tiny_model(2)
    adapters = Adapters(model)
    adapters.load("a", folders["a"])
    adapters.load("b", folders["b"])
    wrapped = [module for module in model.modules() if isinstance(module, AdaptedLinear)]
    assert len(wrapped) == 7 * 2
    assert not any(isinstance(module.base, AdaptedLinear) for module in wrapped)
    assert {id(p) for p in model.parameters()} == {id(p) for p in model.parameters()}
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in tiny_model(2).parameters())


@pytest.mark.parametrize(
    ("make", "error", "reason"),
    [
        (lambda to: save(to, 1, use_dora=True, rank=2), ConfigError, "uses DoRA, which cannot be mixed in a batch"),
        (lambda to: save(to, 1, tiny_model(2, hidden_size=64), rank=2), CheckpointError, "does not fit the model"),
        (lambda to: save(to, 1, tiny_model(2, num_hidden_layers=3), rank=2), CheckpointError, "does not fit the model"),
    ],
)
def test_what_cannot_be_mixed_or_does_not_fit_is_refused(
    make: Callable[[Path], Path],
    error: type[Exception],
    reason: str,
    tmp_path: Path,
    folders,
    merged,
    new_engine,
    finish,
):
    engine = new_engine(tiny_model(2))
    engine.adapters.load("a", folders["a"])
    with pytest.raises(error, match=reason):
        engine.adapters.load("a", make(tmp_path / "bad"))
    with pytest.raises(ConfigError, match="needs a name"):
        engine.adapters.load("", folders["b"])
    assert engine.adapters.names() == ["a"]
    sequence = ask(engine, "a")
    finish(engine)
    assert_says(sequence, merged["a"])


def test_an_adapter_changes_no_more_than_its_own_layers_in_bfloat16(folders, new_engine, finish):
    engine = new_engine(tiny_model(2).bfloat16())
    before = ask(engine, "")
    finish(engine)
    engine.adapters.load("a", folders["a"])
    after, adapted = ask(engine, ""), ask(engine, "a")
    finish(engine)
    assert after.ids == before.ids != adapted.ids
