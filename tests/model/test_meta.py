from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from puna.base.errors import CheckpointError, ConfigError, StorageError
from puna.model import meta
from puna.model.checkpoint import Checkpoint
from puna.model.config import ModelConfig, RopeScaling, from_hf
from puna.model.hf import read_weights
from puna.model.transformer import Transformer


@pytest.fixture
def wide(tiny) -> ModelConfig:
    """A shape that splits over 8 ranks, and 16."""
    return tiny(
        hidden_size=64,
        intermediate_size=160,
        num_attention_heads=16,
        num_key_value_heads=8,
        head_dim=8,
        rope_scaling=RopeScaling(8.0),
        max_position_embeddings=131072,
    )


def ids() -> Tensor:
    return torch.randint(0, 96, (2, 20), generator=torch.Generator().manual_seed(0))


def converted(folder: Path, out: Path) -> Checkpoint:
    """What `meta.load` does, without the other process."""
    out.mkdir()
    meta.convert(folder, out)
    return Checkpoint(from_hf(json.loads((out / "config.json").read_text())), read_weights(out))


def states(folder: Path) -> list[dict[str, Tensor]]:
    return [torch.load(path, weights_only=True) for path in sorted(folder.glob("*.pth"))]


def save_states(folder: Path, ranks: list[dict[str, Tensor]]) -> None:
    for rank, state in enumerate(ranks):
        torch.save(state, folder / f"consolidated.{rank:02d}.pth")


def edit_params(folder: Path, **changes: Any) -> None:
    params = json.loads((folder / "params.json").read_text()) | changes
    (folder / "params.json").write_text(json.dumps(params))


# Meta's own network, written from the formulas of its reference code: channels turn in neighbouring pairs.


def meta_logits(state: dict[str, Tensor], config: ModelConfig, ids_BT: Tensor) -> Tensor:
    from puna.model.rope import frequencies

    def norm(x: Tensor, weight: Tensor) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + config.rms_norm_eps) * weight

    H, G, K, (B, T) = config.num_attention_heads, config.num_key_value_heads, config.head_dim, ids_BT.shape
    angle = torch.outer(torch.arange(T).double(), frequencies(K, config.rope_theta, config.rope_scaling))
    turn = torch.polar(torch.ones_like(angle), angle)[:, None]

    def rotate(x: Tensor) -> Tensor:
        return torch.view_as_real(torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous()) * turn).flatten(-2)

    state = {name: tensor.double() for name, tensor in state.items()}
    h = state["tok_embeddings.weight"][ids_BT]
    for i in range(config.num_hidden_layers):
        at = {name.removeprefix(f"layers.{i}."): w for name, w in state.items() if name.startswith(f"layers.{i}.")}
        x = norm(h, at["attention_norm.weight"])
        q, k, v = ((x @ at[f"attention.{w}.weight"].T).view(B, T, n, K) for w, n in (("wq", H), ("wk", G), ("wv", G)))
        q, k = rotate(q), rotate(k)
        k, v = k.repeat_interleave(H // G, dim=2), v.repeat_interleave(H // G, dim=2)
        scores = torch.einsum("bthk,bshk->bhts", q, k) / K**0.5
        scores = scores.masked_fill(~torch.ones(T, T, dtype=torch.bool).tril(), float("-inf"))
        x = torch.einsum("bhts,bshk->bthk", scores.softmax(-1), v).reshape(B, T, -1)
        h = h + x @ at["attention.wo.weight"].T
        x = norm(h, at["ffn_norm.weight"])
        gate = torch.nn.functional.silu(x @ at["feed_forward.w1.weight"].T)
        h = h + (gate * (x @ at["feed_forward.w3.weight"].T)) @ at["feed_forward.w2.weight"].T
    return norm(h, state["norm.weight"]) @ state.get("output.weight", state["tok_embeddings.weight"]).T


@torch.no_grad()
@pytest.mark.parametrize("tied", [False, True])
def test_our_files_run_in_metas_network(wide: ModelConfig, random_model, tmp_path: Path, tied: bool) -> None:
    config = replace(wide, tie_word_embeddings=tied)
    model = random_model(config)
    Checkpoint.of(model).save_meta(tmp_path / "meta")
    (state,) = states(tmp_path / "meta")
    assert ("output.weight" in state) != tied
    assert torch.allclose(meta_logits(state, config, ids()).float(), model(ids()), atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("ranks", [1, 2, 8, 16])
def test_any_number_of_files_gives_the_same_model(wide: ModelConfig, random_model, tmp_path: Path, ranks: int) -> None:
    model = random_model(wide)
    Checkpoint.of(model).save_meta(tmp_path / "meta", ranks)
    assert len(list((tmp_path / "meta").glob("*.pth"))) == ranks
    assert json.loads((tmp_path / "meta" / "params.json").read_text())["n_kv_heads"] == max(8, ranks)
    back = converted(tmp_path / "meta", tmp_path / "hf")
    assert back.config == wide  # also for 16 files, whose params.json counts 16 key-value heads
    state = model.state_dict()
    assert all(torch.equal(back.weights[name], state[name]) for name in state)
    assert torch.equal(back.model().eval()(ids()), model(ids()))


@torch.no_grad()
def test_the_other_process_reads_the_same(wide: ModelConfig, random_model, tmp_path: Path) -> None:
    model = random_model(replace(wide, tie_word_embeddings=True))
    Checkpoint.of(model).save_meta(tmp_path / "meta", 2, dtype="bfloat16")
    back = Checkpoint.load(tmp_path / "meta", allow_pickle=True)
    assert back.config == model.config
    assert back.tokenizer is None
    assert back.weights["norm.weight"].dtype == torch.bfloat16
    state = model.state_dict()
    assert all(torch.equal(back.weights[name], state[name].bfloat16()) for name in state)
    back.save(tmp_path / "hf")  # the converted files have no names any more, and are still there
    assert torch.equal(Checkpoint.load(tmp_path / "hf").model()(ids()), back.model()(ids()))


class Exploit:
    """Pickles to a call that creates a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


def test_a_malicious_pickle_is_not_executed(wide: ModelConfig, random_model, tmp_path: Path) -> None:
    Checkpoint.of(random_model(wide)).save_meta(tmp_path / "meta")
    target = tmp_path / "broken-in"
    (state,) = states(tmp_path / "meta")
    torch.save({**state, "norm.weight": Exploit(target)}, tmp_path / "meta" / "consolidated.00.pth")
    with pytest.raises(CheckpointError, match="no tensors"):
        Checkpoint.load(tmp_path / "meta", allow_pickle=True)
    assert not target.exists()
    torch.load(tmp_path / "meta" / "consolidated.00.pth", weights_only=False)
    assert target.exists()  # the pickle does what it is said to do


def test_the_working_directory_is_not_searched_for_modules(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (folder / "torch.py").write_text(f"import os; os.mkdir({str(tmp_path / 'broken-in')!r})")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    assert Checkpoint.load(folder, allow_pickle=True).config.vocab_size == 96
    assert not (tmp_path / "broken-in").exists()


def test_rows_change_places_as_published() -> None:
    # Row i of a head in Hugging Face's order is row 2i of Meta's, and row i + K/2 is row 2i + 1.
    K, heads = 6, 3
    rows = torch.arange(heads * K)[:, None].float().expand(-1, 4).contiguous()
    halves = meta.to_halves(rows, heads)
    for h in range(heads):
        for i in range(K // 2):
            assert halves[h * K + i, 0] == h * K + 2 * i
            assert halves[h * K + i + K // 2, 0] == h * K + 2 * i + 1
    assert torch.equal(meta.to_pairs(halves, heads), rows)


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("embed_tokens.weight", meta.Place("tok_embeddings.weight", 0)),
        ("layers.0.self_attn.q_proj.weight", meta.Place("layers.0.attention.wq.weight", 0)),
        ("layers.17.self_attn.o_proj.weight", meta.Place("layers.17.attention.wo.weight", 1)),
        ("layers.3.mlp.down_proj.weight", meta.Place("layers.3.feed_forward.w2.weight", 1)),
        ("layers.3.mlp.gate_proj.weight", meta.Place("layers.3.feed_forward.w1.weight", 0)),
        ("layers.3.post_attention_layernorm.weight", meta.Place("layers.3.ffn_norm.weight")),
        ("lm_head.weight", meta.Place("output.weight", 0)),
    ],
)
def test_names_and_splits(name: str, place: meta.Place) -> None:
    assert meta.place(name) == place


def test_files_of_llama_2(tiny, random_model, tmp_path: Path) -> None:
    # It splits the embedding by width, stores the rotary frequencies, and leaves vocab_size to the tokenizer.
    config = tiny(num_key_value_heads=4, max_position_embeddings=4096, rope_theta=10_000.0)
    model = random_model(config)
    Checkpoint.of(model).save_meta(tmp_path / "meta", 2)
    ranks = states(tmp_path / "meta")
    halves = model.embed_tokens.weight.detach().chunk(2, dim=1)
    for state, half in zip(ranks, halves, strict=True):
        state["tok_embeddings.weight"] = half.clone()
        state["rope.freqs"] = torch.ones(4)
    save_states(tmp_path / "meta", ranks)
    edit_params(tmp_path / "meta", vocab_size=-1)
    back = converted(tmp_path / "meta", tmp_path / "hf")
    assert back.config == config
    assert torch.equal(back.weights["embed_tokens.weight"], model.embed_tokens.weight)


def test_the_width_is_taken_from_the_weights(tiny, random_model, tmp_path: Path) -> None:
    model = random_model(tiny())
    Checkpoint.of(model).save_meta(tmp_path / "meta")
    edit_params(tmp_path / "meta", ffn_dim_multiplier=None, multiple_of=256)
    assert converted(tmp_path / "meta", tmp_path / "hf").config.intermediate_size == 80


def test_equal_heads_of_a_model_with_enough_heads_are_kept(wide: ModelConfig, random_model, tmp_path: Path) -> None:
    # Two ranks of four heads each hold no copies, even where their heads are equal.
    model = random_model(wide)
    with torch.no_grad():
        for layer in model.layers:
            layer.self_attn.k_proj.weight.fill_(0.1)
            layer.self_attn.v_proj.weight.fill_(0.1)
    Checkpoint.of(model).save_meta(tmp_path / "meta", 2)
    assert converted(tmp_path / "meta", tmp_path / "hf").config.num_key_value_heads == 8


def test_heads_that_differ_in_one_layer_are_no_copies(wide: ModelConfig, random_model, tmp_path: Path) -> None:
    model = random_model(wide)
    Checkpoint.of(model).save_meta(tmp_path / "meta", 16)
    ranks = states(tmp_path / "meta")
    ranks[3]["layers.1.attention.wv.weight"] += 1
    save_states(tmp_path / "meta", ranks)
    assert converted(tmp_path / "meta", tmp_path / "hf").config.num_key_value_heads == 16


def test_files_come_in_the_order_of_their_numbers(wide: ModelConfig, tmp_path: Path) -> None:
    for number in (11, 2, 0, 10, 1, 3, 4, 5, 6, 7, 8, 9):
        (tmp_path / f"consolidated.{number:02d}.pth").touch()
    (tmp_path / "consolidated.txt").touch()
    assert [path.name for path in meta.shard_files(tmp_path)] == [f"consolidated.{i:02d}.pth" for i in range(12)]
    (tmp_path / "consolidated.05.pth").unlink()
    with pytest.raises(CheckpointError, match=r"lacks 1 of at least 12 files: consolidated\.05\.pth"):
        meta.shard_files(tmp_path)


def test_a_shape_that_cannot_be_split(wide: ModelConfig, random_model, tmp_path: Path) -> None:
    checkpoint = Checkpoint.of(random_model(wide))
    with pytest.raises(ConfigError, match="num_attention_heads is 16"):
        checkpoint.save_meta(tmp_path / "meta", 3)
    with pytest.raises(ConfigError, match="intermediate_size is 160"):
        Checkpoint.of(Transformer(replace(wide, num_attention_heads=64))).save_meta(tmp_path / "meta", 64)
    six = Checkpoint.of(Transformer(replace(wide, num_attention_heads=12, num_key_value_heads=6)))
    with pytest.raises(ConfigError, match="num_key_value_heads is 6"):
        six.save_meta(tmp_path / "meta", 4)
    assert not (tmp_path / "meta").exists()


@pytest.fixture
def folder(tiny, random_model, tmp_path: Path) -> Path:
    Checkpoint.of(random_model(tiny())).save_meta(tmp_path / "meta", 2)
    return tmp_path / "meta"


def convert(folder: Path) -> None:
    out = folder.with_name("out")
    out.mkdir()
    meta.convert(folder, out)


def test_weights_that_do_not_fit_their_params(folder: Path) -> None:
    edit_params(folder, n_layers=3)
    with pytest.raises(CheckpointError, match=r"consolidated\.00\.pth has no tensor 'layers\.2"):
        convert(folder)


def test_params_that_cannot_be(folder: Path) -> None:
    edit_params(folder, n_heads=5)
    with pytest.raises(CheckpointError, match=r"params\.json: .*num_key_value_heads"):
        convert(folder)


def test_unknown_tensors_are_refused(folder: Path) -> None:
    ranks = states(folder)
    ranks[0]["layers.0.attention.wq.bias"] = torch.ones(4)
    save_states(folder, ranks)
    with pytest.raises(CheckpointError, match=r"1 tensors that no Llama has: layers\.0\.attention\.wq\.bias"):
        convert(folder)


@pytest.mark.parametrize(
    ("name", "shape", "said"),
    [
        ("output.weight", (7, 32), r"shape \(55, 32\) in all.*\(96, 32\)"),
        ("layers.1.attention.wo.weight", (5, 16), "do not fit together"),
    ],
)
def test_parts_of_the_wrong_shape(folder: Path, name: str, shape: tuple[int, ...], said: str) -> None:
    ranks = states(folder)
    ranks[0][name] = torch.ones(shape)
    save_states(folder, ranks)
    with pytest.raises(CheckpointError, match=said):
        convert(folder)


def test_a_file_that_is_no_checkpoint(folder: Path) -> None:
    path = folder / "consolidated.01.pth"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match=r"consolidated\.01\.pth cannot be read"):
        meta.convert(folder, folder)
    path.write_bytes(b"not a zip")
    with pytest.raises(CheckpointError, match=r"consolidated\.01\.pth"):
        meta.convert(folder, folder)
    torch.save([1, 2], path)
    with pytest.raises(CheckpointError, match="no table of tensors"):
        meta.convert(folder, folder)


def test_errors_of_the_other_process_arrive_whole(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "consolidated.01.pth").write_bytes(b"")
    assert meta.main(str(folder), str(folder)) == CheckpointError.exit_code
    told = json.loads(capsys.readouterr().out)
    assert "consolidated.01.pth" in told["message"]
    assert told["hint"]
    (folder / "consolidated.00.pth").unlink()
    with pytest.raises(CheckpointError, match=r"lacks 1"):
        Checkpoint.load(folder, allow_pickle=True)


def test_a_process_that_dies_is_reported(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def runs(script: str) -> None:
        program = tmp_path / "program"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(program))

    runs("kill -9 $$")
    with pytest.raises(CheckpointError, match=r"Signal 9(.|\n)*memory"):
        meta.load(folder)
    runs("echo 'ImportError: no torch' >&2; exit 1")
    with pytest.raises(CheckpointError, match="ImportError: no torch"):
        meta.load(folder)


def test_converting_needs_room_on_the_disk(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(StorageError, match="needs"):
        meta.load(folder)
