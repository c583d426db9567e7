from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from puna.base.errors import CheckpointError, ConfigError
from puna.model.lora import LoraConfig, apply_lora
from puna.model.transformer import Transformer
from puna.train.muon import Muon
from puna.train.optimizer import OptimizerConfig, Optimizers

Make = Callable[..., Transformer]
SETTINGS: dict[str, Any] = {
    "lr": 0.01,
    "embedding_lr": 0.03,
    "muon_lr": 0.02,
    "weight_decay": 0.1,
    "muon_weight_decay": 0.05,
}


def homes(optimizers: Optimizers, model: Transformer) -> dict[str, tuple[str, float, float]]:
    """Each parameter's optimizer, learning rate and weight decay, from torch's own groups."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    found: dict[str, tuple[str, float, float]] = {}
    for optimizer in optimizers.optimizers:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                assert names[parameter] not in found, "one parameter, one optimizer"
                found[names[parameter]] = type(optimizer).__name__, group["lr"], group["weight_decay"]
    return found


def give_gradients(model: torch.nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.randn(parameter.shape, generator=generator)


def copied(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in state.items()}


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_each_parameter_has_its_optimizer_and_its_decay(tiny_model: Make, kind: Any, tied: bool) -> None:
    model = tiny_model(tie_word_embeddings=tied)
    found = homes(OptimizerConfig(kind, **SETTINGS).build(model), model)
    assert found.keys() == dict(model.named_parameters()).keys()
    for name, home in found.items():
        if name in ("embed_tokens.weight", "lm_head.weight"):
            assert home == ("AdamW", 0.03, 0.1)
        elif "norm" in name:
            assert home == ("AdamW", 0.01, 0.0)
        elif kind == "muon":
            assert home == ("Muon", 0.02, 0.05)
        else:
            assert home == ("AdamW", 0.01, 0.1)


def test_without_a_rate_of_their_own_tables_take_the_common_one(tiny_model: Make) -> None:
    model = tiny_model()
    assert homes(OptimizerConfig(lr=0.01).build(model), model)["embed_tokens.weight"][1] == 0.01


def test_adamw_is_torchs_on_the_same_groups(tiny_model: Make) -> None:
    ours, theirs = tiny_model(), tiny_model()
    optimizers = OptimizerConfig("adamw", lr=0.01, betas=(0.8, 0.9), eps=1e-6, weight_decay=0.2).build(ours)
    reference = torch.optim.AdamW(
        [
            {"params": [p for p in theirs.parameters() if p.ndim == 2], "weight_decay": 0.2},
            {"params": [p for p in theirs.parameters() if p.ndim < 2], "weight_decay": 0.0},
        ],
        lr=0.01,
        betas=(0.8, 0.9),
        eps=1e-6,
        foreach=False,
        fused=False,
    )
    for step in range(5):
        for model, optimizer in ((ours, optimizers), (theirs, reference)):
            give_gradients(model, step)
            optimizer.step()
    for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5, msg=name)


def test_a_factor_is_of_each_groups_peak(tiny_model: Make) -> None:
    model = tiny_model()
    optimizers = OptimizerConfig("muon", **SETTINGS).build(model)
    for factor in (0.5, 0.1, 1.0):
        optimizers.set_factor(factor)
        rates = {home[:2] for home in homes(optimizers, model).values()}
        assert rates == {("AdamW", 0.03 * factor), ("AdamW", 0.01 * factor), ("Muon", 0.02 * factor)}


def test_gradients_are_given_back(tiny_model: Make) -> None:
    model = tiny_model()
    optimizers = OptimizerConfig("muon").build(model)
    give_gradients(model, 0)
    optimizers.zero_grad()
    assert all(parameter.grad is None for parameter in model.parameters())


def test_frozen_parameters_are_left_alone(tiny_model: Make) -> None:
    model = tiny_model()
    model.embed_tokens.requires_grad_(False)
    model.layers[0].requires_grad_(False)
    found = homes(OptimizerConfig("muon").build(model), model)
    assert found.keys() == {name for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_adapters_are_moved_and_nothing_else(tiny_model: Make, kind: Any) -> None:
    model = apply_lora(tiny_model(), LoraConfig(rank=2))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizers = OptimizerConfig(kind).build(model)
    give_gradients(model, 0)
    optimizers.step()
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {name for name in before if ".lora_" in name}


def steps(model: Transformer, optimizers: Optimizers, seeds: range) -> Iterator[int]:
    for seed in seeds:
        give_gradients(model, seed)
        optimizers.step()
        yield seed


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_a_resumed_state_gives_the_very_same_steps(tiny_model: Make, kind: Any) -> None:
    ours, resumed = tiny_model(), tiny_model(seed=5)
    optimizers = OptimizerConfig(kind, **SETTINGS).build(ours)
    list(steps(ours, optimizers, range(3)))
    resumed.load_state_dict(ours.state_dict())
    # Other groups than at the time of writing: the state goes by names.
    regrouped = OptimizerConfig(kind, **{**SETTINGS, "embedding_lr": None}).build(resumed)
    regrouped.load_state_dict(copied(optimizers.state_dict()))
    assert regrouped.state_dict().keys() == optimizers.state_dict().keys()
    for name, value in regrouped.state_dict().items():
        assert torch.equal(value, optimizers.state_dict()[name]), name
    again = OptimizerConfig(kind, **SETTINGS).build(resumed)
    again.load_state_dict(copied(optimizers.state_dict()))
    for _ in zip(steps(ours, optimizers, range(3, 6)), steps(resumed, again, range(3, 6)), strict=True):
        for (name, a), b in zip(ours.named_parameters(), resumed.parameters(), strict=True):
            assert torch.equal(a, b), name


def test_a_state_is_named_by_parameter(tiny_model: Make) -> None:
    model = tiny_model()
    optimizers = OptimizerConfig("muon").build(model)
    assert optimizers.state_dict() == {}
    list(steps(model, optimizers, range(1)))
    kept = {"AdamW": {"step", "exp_avg", "exp_avg_sq"}, "Muon": {"momentum_buffer"}}
    expected = {f"{name}/{key}" for name, home in homes(optimizers, model).items() for key in kept[home[0]]}
    assert optimizers.state_dict().keys() == expected
    assert any(isinstance(optimizer, Muon) for optimizer in optimizers.optimizers)


def test_the_state_of_another_optimizer_or_model_is_refused_before_anything_changes(tiny_model: Make) -> None:
    states = {}
    for kind in ("adamw", "muon"):
        model = tiny_model()
        optimizers = OptimizerConfig(kind).build(model)
        list(steps(model, optimizers, range(1)))
        states[kind] = copied(optimizers.state_dict())
    for kind, state in [("adamw", states["muon"]), ("muon", states["adamw"]), ("adamw", {"x/step": torch.ones(())})]:
        fresh = OptimizerConfig(kind).build(tiny_model())  # type: ignore[arg-type]
        with pytest.raises(CheckpointError, match="optimizer state holds"):
            fresh.load_state_dict(state)
        assert fresh.state_dict() == {}
    partial = {name: value for name, value in states["adamw"].items() if not name.endswith("exp_avg_sq")}
    with pytest.raises(CheckpointError, match="exp_avg, step"):
        OptimizerConfig("adamw").build(tiny_model()).load_state_dict(partial)


@pytest.mark.parametrize(
    "settings",
    [
        {"lr": 0.0},
        {"muon_lr": -1.0},
        {"embedding_lr": 0.0},
        {"betas": (0.9, 1.0)},
        {"betas": (-0.1, 0.9)},
        {"eps": -1e-8},
        {"momentum": 1.0},
        {"weight_decay": -0.1},
        {"muon_weight_decay": -0.1},
        {"lr": float("nan")},
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        OptimizerConfig(**settings)
