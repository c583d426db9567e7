from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from puna.base.errors import ArtifactError, CheckpointError, ConfigError, StorageError
from puna.model.checkpoint import Checkpoint
from puna.model.lora import (
    LoraConfig,
    LoraLinear,
    apply_lora,
    load_adapter,
    lora_parameters,
    merge,
    save_adapter,
)
from puna.model.transformer import Transformer

KINDS = {
    "lora": LoraConfig(rank=4, alpha=8, targets=("q_proj", "v_proj")),
    "all layers": LoraConfig(rank=3, alpha=5),
    "dora": LoraConfig(rank=4, alpha=8, targets=("q_proj", "down_proj"), use_dora=True),
    "rslora": LoraConfig(rank=4, alpha=8, targets=("o_proj",), use_rslora=True),
    "both": LoraConfig(rank=2, alpha=3, use_dora=True, use_rslora=True),
}


@pytest.fixture(params=KINDS)
def config(request: pytest.FixtureRequest) -> LoraConfig:
    return KINDS[request.param]


def ids() -> Tensor:
    return torch.randint(0, 96, (2, 12), generator=torch.Generator().manual_seed(0))


def shake(model: torch.nn.Module) -> None:
    """Gives adapters values as training does: no matrix stays zero."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))


@torch.no_grad()
def test_nothing_changes_at_first(tiny, random_model, config: LoraConfig) -> None:
    before = random_model(tiny())(ids())
    model = apply_lora(random_model(tiny()), config)
    assert torch.allclose(model(ids()), before, atol=1e-5)


def test_only_adapters_learn(tiny, random_model, config: LoraConfig) -> None:
    model = apply_lora(random_model(tiny()), config)
    adapters = lora_parameters(model)
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == (name in adapters), name
    per_layer = 3 if config.use_dora else 2
    assert len(adapters) == per_layer * len(config.targets) * model.config.num_hidden_layers
    base = {name: p.clone() for name, p in model.named_parameters() if name not in adapters}
    optimizer = torch.optim.SGD(adapters.values(), lr=0.1)
    losses = []
    for _ in range(3):
        loss = torch.nn.functional.cross_entropy(model(ids())[:, :-1].flatten(0, 1), ids()[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[2] < losses[0]
    assert all(torch.equal(dict(model.named_parameters())[name], tensor) for name, tensor in base.items())


@torch.no_grad()
def test_merged_models_compute_the_same(tiny, random_model, config: LoraConfig) -> None:
    plain = random_model(tiny())
    untouched = plain(ids())
    model = apply_lora(random_model(tiny()), config)
    shake(model)
    before = model(ids())
    assert not torch.allclose(before, untouched, atol=0.01)
    merged = merge(model)
    assert torch.allclose(merged(ids()), before, atol=1e-5)
    assert not any(isinstance(module, LoraLinear) for module in merged.modules())
    assert dict(merged.named_parameters()).keys() == dict(plain.named_parameters()).keys()
    assert all(parameter.requires_grad for parameter in merged.parameters())


def test_merging_leaves_the_checkpoint_alone(tiny, random_model) -> None:
    model = random_model(tiny())
    checkpoint = Checkpoint.of(model)
    before = checkpoint.weights["layers.0.mlp.up_proj.weight"].clone()
    shake(apply_lora(model, LoraConfig(rank=2)))
    merge(model)
    assert torch.equal(checkpoint.weights["layers.0.mlp.up_proj.weight"], before)
    assert not torch.equal(model.layers[0].mlp.up_proj.weight, before)


def test_adapters_start_as_those_of_peft(tiny, random_model) -> None:
    model = apply_lora(random_model(tiny(hidden_size=128)), LoraConfig(rank=16))
    layer = model.layers[0].self_attn.q_proj
    assert isinstance(layer, LoraLinear)
    bound = 1 / math.sqrt(128)  # kaiming-uniform with a = sqrt(5)
    assert layer.lora_A.abs().max().item() <= bound
    assert layer.lora_A.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)
    assert torch.equal(layer.lora_B, torch.zeros_like(layer.lora_B))
    first, again, other = (
        lora_parameters(apply_lora(random_model(tiny()), LoraConfig(), seed))["layers.0.mlp.up_proj.lora_A"]
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_scales() -> None:
    assert LoraConfig(rank=16, alpha=32).scale == 2.0
    assert LoraConfig(rank=16, alpha=32, use_rslora=True).scale == 8.0


def test_dropout_only_in_training(tiny, random_model) -> None:
    model = apply_lora(random_model(tiny()).eval(), LoraConfig(rank=2, dropout=0.5))
    shake(model)
    with torch.no_grad():
        assert torch.equal(model(ids()), model(ids()))
        model.train()
        assert not torch.equal(model(ids()), model(ids()))


def test_dora_learns_length_and_direction_apart(tiny, random_model) -> None:
    model = apply_lora(random_model(tiny()), KINDS["dora"])
    layer = model.layers[0].self_attn.q_proj
    assert isinstance(layer, LoraLinear)
    assert layer.lora_magnitude_vector is not None
    with torch.no_grad():
        layer.lora_B.normal_()
        assert torch.allclose(layer.merged().norm(dim=1), layer.lora_magnitude_vector, atol=1e-5)
        layer.lora_magnitude_vector.mul_(2)
        assert torch.allclose(layer.merged().norm(dim=1), layer.lora_magnitude_vector, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_adapters_of_half_precision_models(tiny, random_model, kind: str) -> None:
    exact = apply_lora(random_model(tiny()), KINDS[kind])
    half = apply_lora(random_model(tiny()).bfloat16(), KINDS[kind])
    shake(exact)
    shake(half)
    assert all(parameter.dtype == torch.float32 for parameter in lora_parameters(half).values())
    logits = exact(ids())
    scale = float(logits.abs().max())
    assert torch.allclose(half(ids()), logits, atol=0.1 * scale)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.allclose(exact(ids()), logits, atol=0.1 * scale)
    merged = merge(half)
    assert all(parameter.dtype == torch.bfloat16 for parameter in merged.parameters())
    assert torch.allclose(merged(ids()), logits, atol=0.1 * scale)


@torch.no_grad()
def test_our_own_files_round_trip(tiny, random_model, config: LoraConfig, tmp_path: Path) -> None:
    model = apply_lora(random_model(tiny()), config)
    shake(model)
    save_adapter(model, tmp_path / "adapter", base="llama")
    save_adapter(model, tmp_path / "adapter", base="llama")  # over itself
    back = load_adapter(random_model(tiny()), tmp_path / "adapter")
    assert torch.equal(back(ids()), model(ids()))
    assert all(parameter.requires_grad for parameter in lora_parameters(back).values())
    assert json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["base_model_name_or_path"] == "llama"


# Both ways with PEFT


def their_base(model: Transformer, folder: Path) -> Any:
    transformers = pytest.importorskip("transformers")
    Checkpoint.of(model).save(folder)
    return transformers.AutoModelForCausalLM.from_pretrained(folder)


@torch.no_grad()
def test_peft_reads_us(tiny, random_model, config: LoraConfig, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    theirs = their_base(random_model(tiny()), tmp_path / "base")
    model = apply_lora(random_model(tiny()), config)
    shake(model)
    save_adapter(model, tmp_path / "adapter")
    theirs = peft.PeftModel.from_pretrained(theirs, tmp_path / "adapter").eval()
    assert torch.allclose(theirs(ids()).logits, model(ids()), atol=1e-4)
    assert torch.allclose(theirs.merge_and_unload()(ids()).logits, merge(model)(ids()), atol=1e-4)


@torch.no_grad()
def test_we_read_peft(tiny, random_model, config: LoraConfig, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    theirs = peft.get_peft_model(
        their_base(random_model(tiny()), tmp_path / "base"),
        peft.LoraConfig(
            r=config.rank,
            lora_alpha=config.alpha,
            target_modules=list(config.targets),
            use_dora=config.use_dora,
            use_rslora=config.use_rslora,
            task_type="CAUSAL_LM",
        ),
    ).eval()
    shake(theirs)
    theirs.save_pretrained(tmp_path / "adapter")
    ours = load_adapter(random_model(tiny()), tmp_path / "adapter")
    assert torch.allclose(ours(ids()), theirs(ids()).logits, atol=1e-4)


def test_gradients_are_those_of_peft(tiny, random_model, config: LoraConfig, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    theirs = their_base(random_model(tiny()), tmp_path / "base")
    model = apply_lora(random_model(tiny()), config)
    shake(model)
    save_adapter(model, tmp_path / "adapter")
    theirs = peft.PeftModel.from_pretrained(theirs, tmp_path / "adapter", is_trainable=True)
    model(ids()).logsumexp(-1).sum().backward()
    theirs(ids()).logits.logsumexp(-1).sum().backward()
    found = {
        name.removeprefix("base_model.model.model.").replace(".default", "").removesuffix(".weight"): parameter.grad
        for name, parameter in theirs.named_parameters()
        if parameter.requires_grad
    }
    mine = lora_parameters(model)
    assert found.keys() == mine.keys()
    for name, parameter in mine.items():
        assert parameter.grad is not None
        assert torch.allclose(parameter.grad, found[name], atol=1e-3, rtol=1e-3), name


# What is refused


@pytest.mark.parametrize(
    ("targets", "said"),
    [(("q_prj",), "'q_proj'"), (("lm_head",), "no layer 'lm_head'"), (("q_proj", "embed_tokens"), "embed_tokens")],
)
def test_unknown_targets(tiny, random_model, targets: tuple[str, ...], said: str) -> None:
    model = random_model(tiny())
    with pytest.raises(ConfigError, match=said):
        apply_lora(model, LoraConfig(targets=targets))
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("settings", [{"rank": 0}, {"dropout": 1.0}, {"dropout": -0.1}, {"targets": ()}])
def test_configs_that_cannot_be(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        LoraConfig(**settings)


def test_one_adapter_at_a_time(tiny, random_model, tmp_path: Path) -> None:
    model = apply_lora(random_model(tiny()), LoraConfig())
    save_adapter(model, tmp_path / "adapter")
    with pytest.raises(ConfigError, match="already"):
        apply_lora(model, LoraConfig())
    with pytest.raises(ConfigError, match="already"):
        load_adapter(model, tmp_path / "adapter")


def test_nothing_to_save(tiny, random_model, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no adapters"):
        save_adapter(random_model(tiny()), tmp_path / "adapter")
    (tmp_path / "diary.txt").touch()
    with pytest.raises(StorageError, match="holds no adapter"):
        save_adapter(apply_lora(random_model(tiny()), LoraConfig()), tmp_path)
    assert (tmp_path / "diary.txt").exists()


def test_an_adapter_for_another_base(tiny, random_model, tmp_path: Path) -> None:
    save_adapter(apply_lora(random_model(tiny()), LoraConfig()), tmp_path / "adapter")
    for other, said in (
        (tiny(hidden_size=64), "wrong shape"),
        (tiny(num_hidden_layers=3), "14 tensors are missing"),
        (tiny(num_hidden_layers=1), "14 tensors are unexpected"),
    ):
        model = random_model(other)
        with pytest.raises(CheckpointError, match=said):
            load_adapter(model, tmp_path / "adapter")
        assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"peft_type": "IA3"}, "IA3"),
        ({"alpha_pattern": {"q_proj": 4}}, "alpha_pattern"),
        ({"bias": "all"}, "bias"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"use_qalora": True}, "use_qalora"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out"),
        ({"init_lora_weights": "pissa_niter_16"}, "pissa"),
        ({"a_key_of_the_future": 1}, "a_key_of_the_future"),
        ({"r": 5}, "wrong shape"),
        ({"r": "many"}, "rank"),
        ({"use_dora": True}, "missing"),
    ],
)
def test_adapters_of_another_kind(tiny, random_model, tmp_path: Path, change: dict[str, Any], said: str) -> None:
    save_adapter(apply_lora(random_model(tiny()), LoraConfig()), tmp_path / "adapter")
    path = tmp_path / "adapter" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(CheckpointError, match=said):
        load_adapter(random_model(tiny()), tmp_path / "adapter")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda folder: (folder / "adapter_config.json").unlink(), "adapter_config.json"),
        (lambda folder: (folder / "adapter_model.safetensors").write_bytes(b"x" * 40), "no safetensors file"),
        (lambda folder: (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin"), "pickled"),
        (lambda folder: (folder / "adapter_model.safetensors").unlink(), "no file"),
    ],
)
def test_damaged_folders(tiny, random_model, tmp_path: Path, damage: Callable[[Path], Any], said: str) -> None:
    save_adapter(apply_lora(random_model(tiny()), LoraConfig()), tmp_path / "adapter")
    damage(tmp_path / "adapter")
    with pytest.raises(ArtifactError, match=said):
        load_adapter(random_model(tiny()), tmp_path / "adapter")
