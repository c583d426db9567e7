from __future__ import annotations

from pathlib import Path

import pytest
import torch

from puna.base.errors import CheckpointError, ConfigError
from puna.core.completion import SamplingParams
from puna.engine.engine import Engine
from puna.engine.sequence import Request
from puna.model.lora import LoraConfig, apply_lora, load_adapter, lora_parameters, merge, save_adapter
from puna.model.transformer import Transformer
from puna.testing import tiny_model

GREEDY = SamplingParams(temperature=0, max_tokens=20)
PROMPT = tuple(range(20))


def adapter(folder: Path, seed: int, **changes: object) -> Path:
    """An adapter that changes what the model says."""
    model = apply_lora(tiny_model(2), LoraConfig(rank=4, alpha=16.0, **changes), seed)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in lora_parameters(model).values():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    save_adapter(model, folder)
    return folder


def tokens(model: Transformer, *names: str) -> list[list[int]]:
    engine = Engine(model, {}, 250)
    return said(engine, *(names or ("",)))


def said(engine: Engine, *names: str) -> list[list[int]]:
    sequences = [engine.add(Request(PROMPT, GREEDY, adapter=name)) for name in names]
    while engine.busy:
        engine.step()
    return [sequence.ids for sequence in sequences]


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    return [adapter(tmp_path / "a", 1), adapter(tmp_path / "b", 2, targets=("q_proj", "down_proj"))]


def test_adapters_mixed_in_a_batch_say_what_each_merged_model_says(folders: list[Path]):
    engine = Engine(tiny_model(2), {}, 250)
    for name, folder in zip("ab", folders, strict=True):
        engine.adapters.load(name, folder)
    found = said(engine, "a", "", "b", "a")
    merged = [tokens(merge(load_adapter(tiny_model(2), folder)))[0] for folder in folders]
    assert found == [merged[0], tokens(tiny_model(2))[0], merged[1], merged[0]]
    assert len({tuple(ids) for ids in found}) == 3


def test_a_sequence_keeps_the_adapter_that_it_began_with(folders: list[Path]):
    engine = Engine(tiny_model(2), {}, 250)
    engine.adapters.load("x", folders[0])
    first = engine.add(Request(PROMPT, GREEDY, adapter="x"))
    engine.step()
    engine.adapters.load("x", folders[1])
    second = engine.add(Request(PROMPT, GREEDY, adapter="x"))
    engine.step()
    engine.adapters.drop("x")
    while engine.busy:
        engine.step()
    merged = [tokens(merge(load_adapter(tiny_model(2), folder)))[0] for folder in folders]
    assert [first.ids, second.ids] == merged
    with pytest.raises(ConfigError, match="no adapter 'x'"):
        engine.add(Request(PROMPT, GREEDY, adapter="x"))


def test_what_cannot_be_mixed_or_does_not_fit_is_refused(tmp_path: Path):
    engine = Engine(tiny_model(2), {}, 250)
    with pytest.raises(ConfigError, match="DoRA"):
        engine.adapters.load("dora", adapter(tmp_path / "dora", 1, use_dora=True))
    with pytest.raises(CheckpointError, match="does not fit"):
        Engine(tiny_model(2, hidden_size=32), {}, 250).adapters.load("a", adapter(tmp_path / "a", 1))
    with pytest.raises(ConfigError, match="needs a name"):
        engine.adapters.load("", tmp_path / "a")
    assert engine.adapters.names() == []
