from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from puna.base.card import Card
from puna.base.errors import CheckpointError, ConfigError, StorageError
from puna.base.files import write_json
from puna.model import hf
from puna.model.checkpoint import Checkpoint
from puna.model.config import ModelConfig, RopeScaling, to_hf
from puna.model.lora import LoraConfig, apply_lora
from puna.model.transformer import Transformer, shapes

SHAPES: dict[str, dict[str, Any]] = {
    "one group for each head": {"num_key_value_heads": 4},
    "grouped queries": {},
    "tied": {"tie_word_embeddings": True},
    "factor 8": {"rope_scaling": RopeScaling(8.0), "max_position_embeddings": 131072},
    "factor 32": {"rope_scaling": RopeScaling(32.0), "max_position_embeddings": 131072, "num_key_value_heads": 1},
    "wide heads": {"head_dim": 24, "num_hidden_layers": 3},
}


@pytest.fixture(params=SHAPES)
def config(request: pytest.FixtureRequest, tiny) -> ModelConfig:
    return tiny(**SHAPES[request.param])


@pytest.fixture
def saved(tiny, random_model, tmp_path: Path) -> Path:
    """A small checkpoint in Hugging Face's layout."""
    Checkpoint.of(random_model(tiny())).save(tmp_path / "model")
    return tmp_path / "model"


def edit_config(folder: Path, **changes: Any) -> None:
    data = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(data))


def edit_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    from safetensors.torch import load_file, save_file

    tensors = {name: tensor.clone() for name, tensor in load_file(folder / "model.safetensors").items()}
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


@torch.no_grad()
def greedy(model: Transformer, prompt: list[int], count: int) -> list[int]:
    ids = list(prompt)
    for _ in range(count):
        ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
    return ids[len(prompt) :]


# Parity with transformers


def their_model(config: ModelConfig, folder: Path, **arguments: Any) -> Any:
    """Random weights in transformers' own class, saved by its own code."""
    transformers = pytest.importorskip("transformers")
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": config.rope_theta}
    if scaling := config.rope_scaling:
        rope |= {
            "rope_type": "llama3",
            "factor": scaling.factor,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        }
    theirs = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=config.vocab_size,
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            num_hidden_layers=config.num_hidden_layers,
            num_attention_heads=config.num_attention_heads,
            num_key_value_heads=config.num_key_value_heads,
            head_dim=config.head_dim,
            max_position_embeddings=config.max_position_embeddings,
            rms_norm_eps=config.rms_norm_eps,
            rope_parameters=rope,
            tie_word_embeddings=config.tie_word_embeddings,
            bos_token_id=1,
            eos_token_id=2,
            initializer_range=0.15,
        )
    ).eval()
    theirs.save_pretrained(folder, **arguments)
    return theirs


def token_rows(rows: int, length: int) -> torch.Tensor:
    return torch.randint(3, 96, (rows, length), generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_we_read_transformers(config: ModelConfig, tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs = their_model(config, tmp_path)
    checkpoint = Checkpoint.load(tmp_path)
    assert checkpoint.config == config
    ours = checkpoint.model().eval()
    ids = token_rows(2, 40)
    assert torch.allclose(ours(ids), theirs(ids).logits, atol=1e-4)
    if config.rope_scaling:
        # Not farther out: transformers computes angles in float32, which is off by 4e-3 radians at 131,072.
        far = torch.arange(8200, 8240).expand(2, -1)
        logits = theirs(ids, position_ids=far).logits
        assert torch.allclose(ours(ids, far), logits, atol=1e-4)
        mixed = torch.cat((torch.arange(20), torch.arange(9000, 9020))).expand(2, -1)
        assert torch.allclose(ours(ids, mixed), theirs(ids, position_ids=mixed).logits, atol=1e-4)
    prompt = ids[0, :7].tolist()
    told = theirs.generate(ids[:1, :7], max_new_tokens=64, min_new_tokens=64, do_sample=False, eos_token_id=None)
    assert greedy(ours, prompt, 64) == told[0, 7:].tolist()


@torch.no_grad()
def test_transformers_reads_us(config: ModelConfig, random_model, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    ours = random_model(config)
    Checkpoint.of(ours).save(tmp_path / "model")
    theirs, report = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model", output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert theirs.dtype == torch.float32
    ids = token_rows(2, 40)
    assert torch.allclose(ours(ids), theirs(ids).logits, atol=1e-4)
    assert theirs.generation_config.eos_token_id in (2, [2])
    prompt = ids[0, :7].tolist()
    told = theirs.generate(ids[:1, :7], max_new_tokens=64, min_new_tokens=64, do_sample=False, eos_token_id=None)
    assert greedy(ours, prompt, 64) == told[0, 7:].tolist()


@torch.no_grad()
def test_bfloat16_in_many_files_both_ways(tiny, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = tiny(num_hidden_layers=4)
    their_model(config, tmp_path / "wide").to(torch.bfloat16).save_pretrained(
        tmp_path / "theirs", max_shard_size="20KB"
    )
    checkpoint = Checkpoint.load(tmp_path / "theirs")
    assert len(list((tmp_path / "theirs").glob("*.safetensors"))) > 3
    assert {tensor.dtype for tensor in checkpoint.weights.values()} == {torch.bfloat16}
    ids = token_rows(1, 30)
    exact = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "theirs", dtype=torch.float32)(ids).logits
    assert torch.allclose(checkpoint.model().eval()(ids), exact, atol=1e-4)

    checkpoint.save(tmp_path / "ours", max_shard_bytes=20_000)
    assert len(list((tmp_path / "ours").glob("*.safetensors"))) > 3
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours", dtype=torch.float32)
    assert torch.allclose(again(ids).logits, exact, atol=1e-4)
    assert transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours").dtype == torch.bfloat16


# The noun


@torch.no_grad()
def test_save_and_load_keep_everything(config: ModelConfig, random_model, tmp_path: Path) -> None:
    model = random_model(config)
    card = Card("checkpoint", inputs={"corpus": "abc"}, metrics={"loss": 2.5})
    Checkpoint.of(model, card=card, generation={"temperature": 0.6, "top_p": 0.9}).save(tmp_path / "a")
    back = Checkpoint.load(tmp_path / "a")
    assert back.config == config
    assert back.card is not None
    assert (back.card.inputs, back.card.metrics) == (card.inputs, card.metrics)
    assert len(back.card.content) == 64
    assert back.generation == {"bos_token_id": 1, "eos_token_id": 2, "temperature": 0.6, "top_p": 0.9}
    assert back.tokenizer is None
    state = model.state_dict()
    assert back.weights.keys() == state.keys()
    assert all(torch.equal(back.weights[name], state[name]) for name in state)


def test_the_tokenizer_travels_with_the_weights(tiny, random_model, tmp_path: Path) -> None:
    from puna.tokenizer import Tokenizer

    tokenizer = Tokenizer.train(["the llama eats the grass of the high plain " * 20], vocab_size=600)
    config = tiny().with_vocabulary(tokenizer.vocab_size, tokenizer.bos_id, tuple(tokenizer.stop_ids))
    checkpoint = Checkpoint.of(random_model(config), tokenizer)
    checkpoint.save(tmp_path / "hf")
    checkpoint.save_meta(tmp_path / "meta")
    text = "the llama eats grass"
    for folder in ("hf", "meta"):
        back = Checkpoint.load(tmp_path / folder, allow_pickle=True)
        assert back.tokenizer is not None
        assert back.tokenizer.encode(text) == tokenizer.encode(text)
        assert back.config.eos_token_id == tuple(tokenizer.stop_ids)
    Checkpoint.of(random_model(tiny(vocab_size=500)), tokenizer).save(tmp_path / "small")
    with pytest.raises(CheckpointError, match="tokenizer of"):
        Checkpoint.load(tmp_path / "small")


def test_a_model_is_ready_to_train(saved: Path) -> None:
    model = Checkpoint.load(saved).model()
    assert all(parameter.requires_grad and parameter.is_leaf for parameter in model.parameters())
    assert not any(parameter.is_meta for parameter in model.parameters())


def test_training_changes_neither_the_file_nor_another_model(saved: Path) -> None:
    before = (saved / "model.safetensors").read_bytes()
    checkpoint = Checkpoint.load(saved)
    policy, reference = checkpoint.model(), checkpoint.model()
    ids = torch.arange(3, 11)[None]
    with torch.no_grad():
        first = reference(ids).clone()
    optimizer = torch.optim.AdamW(policy.parameters(), lr=0.1)
    policy(ids).logsumexp(-1).sum().backward()
    optimizer.step()
    with torch.no_grad():
        assert not torch.allclose(policy(ids), first)
        assert torch.equal(reference(ids), first)
        assert torch.equal(checkpoint.model()(ids), first)
    assert (saved / "model.safetensors").read_bytes() == before
    del policy, optimizer
    assert (saved / "model.safetensors").read_bytes() == before


def test_a_model_of_a_live_checkpoint_is_another_one(tiny, random_model) -> None:
    live = random_model(tiny())
    checkpoint = Checkpoint.of(live)
    other = checkpoint.model()
    with torch.no_grad():
        live.norm.weight.zero_()
    assert float(checkpoint.weights["norm.weight"].abs().sum()) == 0.0  # the checkpoint follows
    assert float(other.norm.weight.detach().abs().sum()) > 0.0


def test_dtypes(saved: Path) -> None:
    checkpoint = Checkpoint.load(saved)
    assert checkpoint.model("bfloat16").norm.weight.dtype == torch.bfloat16
    assert checkpoint.model(torch.float64).norm.weight.dtype == torch.float64
    assert checkpoint.model(None).norm.weight.dtype == torch.float32
    with pytest.raises(ConfigError, match="int8"):
        checkpoint.model("int8")
    checkpoint.save(saved.with_name("half"), dtype="bfloat16")
    half = Checkpoint.load(saved.with_name("half"))
    assert half.model(None).norm.weight.dtype == torch.bfloat16
    assert json.loads((saved.with_name("half") / "config.json").read_text())["torch_dtype"] == "bfloat16"


def test_mixed_dtypes_are_kept(saved: Path) -> None:
    edit_weights(saved, lambda w: w.update({"model.embed_tokens.weight": w["model.embed_tokens.weight"].bfloat16()}))
    checkpoint = Checkpoint.load(saved)
    checkpoint.save(saved.with_name("again"))
    again = Checkpoint.load(saved.with_name("again"))
    assert again.weights["embed_tokens.weight"].dtype == torch.bfloat16
    assert again.weights["norm.weight"].dtype == torch.float32
    assert again.model()(torch.arange(5)[None]).shape == (1, 5, 96)


@torch.no_grad()
def test_saving_over_the_folder_that_is_mapped(saved: Path) -> None:
    checkpoint = Checkpoint.load(saved)
    model = checkpoint.model().eval()
    ids = torch.arange(3, 11)[None]
    before = model(ids)
    model.norm.weight.mul_(2)
    Checkpoint.of(model).save(saved, max_shard_bytes=10_000)
    assert not (saved / "model.safetensors").exists()
    assert torch.allclose(Checkpoint.load(saved).model()(ids), 2 * before, atol=1e-5)
    assert torch.equal(checkpoint.model()(ids), before)  # still that of the old files
    checkpoint.save(saved)
    assert torch.equal(Checkpoint.load(saved).model()(ids), before)


def test_saving_deletes_nothing_but_checkpoints(saved: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.txt").write_text("years")
    with pytest.raises(StorageError, match="not empty and holds no checkpoint"):
        Checkpoint.load(saved).save(home)
    with pytest.raises(StorageError, match="not empty"):
        Checkpoint.load(saved).save_meta(home)
    assert (home / "thesis.txt").read_text() == "years"


def test_a_failed_save_leaves_the_old_checkpoint(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path.name: path.read_bytes() for path in saved.iterdir()}

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    checkpoint = Checkpoint.load(saved)
    monkeypatch.setattr(hf, "write_json", full)
    with pytest.raises(StorageError, match="disk is full"):
        checkpoint.save(saved, max_shard_bytes=1)
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_a_disk_without_room_is_refused_at_once(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    checkpoint = Checkpoint.load(saved)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(StorageError, match="needs"):
        checkpoint.save(saved.with_name("new"))
    assert not saved.with_name("new").exists()


def test_a_save_that_was_cut_off_is_recovered(saved: Path) -> None:
    saved.rename(saved.with_name(f".{saved.name}.old"))  # the moment between the two renames
    assert Checkpoint.load(saved).config.vocab_size == 96


# What is refused


def test_folders_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no folder .*\n.*hf download"):
        Checkpoint.load(tmp_path / "meta-llama" / "Llama-3.1-8B")
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(CheckpointError, match="is a file"):
        Checkpoint.load(tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"neither config\.json nor params\.json, but model\.safetensors"):
        Checkpoint.load(tmp_path)
    (tmp_path / "adapter_config.json").touch()
    with pytest.raises(CheckpointError, match="load_adapter"):
        Checkpoint.load(tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model_type": "gpt2"}, "gpt2"),
        ({"num_hidden_layers": 3}, r"9 tensors are missing \(layers\.2\.input"),
        ({"num_hidden_layers": 1}, "9 tensors are unexpected"),
        ({"intermediate_size": 81}, r"6 tensors are of the wrong shape .*\(80, 32\) instead of \(81, 32\)"),
        ({"vocab_size": "many"}, "vocab_size"),
        ({"num_key_value_heads": 3}, "must divide"),
        ({"tie_word_embeddings": True}, "differs from embed_tokens"),
    ],
)
def test_a_config_that_does_not_fit(saved: Path, change: dict[str, Any], said: str) -> None:
    edit_config(saved, **change)
    with pytest.raises(CheckpointError, match=said) as caught:
        Checkpoint.load(saved)
    assert str(saved) in caught.value.message


def test_a_config_that_is_no_table(saved: Path) -> None:
    (saved / "config.json").write_text("[1]")
    with pytest.raises(CheckpointError, match="no table"):
        Checkpoint.load(saved)


def test_a_missing_output_matrix(saved: Path) -> None:
    edit_weights(saved, lambda weights: weights.pop("lm_head.weight"))
    with pytest.raises(CheckpointError, match=r"lm_head\.weight(.|\n)*tie_word_embeddings"):
        Checkpoint.load(saved)


def test_extras_of_older_writers_are_dropped(tiny, random_model, tmp_path: Path) -> None:
    model = random_model(tiny(tie_word_embeddings=True))
    Checkpoint.of(model).save(tmp_path / "model")

    def add(weights: dict[str, torch.Tensor]) -> None:
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()
        weights["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)

    edit_weights(tmp_path / "model", add)
    back = Checkpoint.load(tmp_path / "model")
    assert back.weights.keys() == dict(model.named_parameters()).keys()


def test_adapters_must_be_merged_first(tiny, random_model) -> None:
    model = apply_lora(random_model(tiny()), LoraConfig(rank=2))
    with pytest.raises(CheckpointError, match=r"lora\.merge"):
        Checkpoint.of(model)


def test_pickles_are_not_read_unasked(tmp_path: Path) -> None:
    (tmp_path / "params.json").write_text("{}")
    with pytest.raises(CheckpointError, match="pickles") as caught:
        Checkpoint.load(tmp_path)
    assert "allow_pickle=True" in caught.value.hint
    assert "puna convert" in caught.value.hint


# Memory

# Prints bytes after opening, then the peak after a forward pass and after saving as multiples of the model's size.
MEASURE = """
import sys
import torch
from puna.model.checkpoint import Checkpoint

def peak_memory():  # that of getrusage would include the parent's, from before the child was started
    line = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024

# The baseline includes the code and buffers that any first forward pass brings in.
torch.nn.functional.scaled_dot_product_attention(*torch.randn(3, 1, 1, 8, 8))
(torch.randn(64, 64) @ torch.randn(64, 64)).to(torch.bfloat16)
before = peak_memory()
checkpoint = Checkpoint.load(sys.argv[1])
opened = peak_memory() - before
model = checkpoint.model(sys.argv[2])
with torch.no_grad():
    model(torch.arange(4)[None])
size = sum(p.nbytes for p in model.parameters())
shares = [(peak_memory() - before) / size]
if sys.argv[3]:
    checkpoint.save(sys.argv[3], dtype=sys.argv[2])
shares.append((peak_memory() - before) / size)
print(opened, *shares)
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of 400 MB in float32."""
    config = ModelConfig(
        vocab_size=2048,
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=6,
        num_attention_heads=8,
        num_key_value_heads=4,
    )
    folder = tmp_path_factory.mktemp("large")
    specs = {name: hf.Spec(shape, torch.float32) for name, shape in shapes(config).items()}
    hf.write_weights(folder, specs, lambda name: torch.full(specs[name].shape, 0.01), max_shard_bytes=150_000_000)
    write_json(folder / "config.json", to_hf(config, "float32"))
    return folder


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_peak_memory_is_that_of_the_model(large: Path, tmp_path: Path, dtype: str) -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("peak memory is compared on Linux only")
    out = str(tmp_path / "again") if dtype == "float32" else ""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(large), dtype, out], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    opened, model, saved = map(float, done.stdout.split())
    assert opened < 20_000_000
    assert model < 1.2
    assert saved < 1.2


def test_the_written_config_is_that_of_the_model(saved: Path, tiny) -> None:
    assert json.loads((saved / "config.json").read_text()) == to_hf(tiny(), "float32")
