"""GGUF models: there and back, against hand-made Meta layouts, and files that are damaged on the way.

That llama.cpp runs them is checked in `test_verify.py`.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from puna.base.card import Card
from puna.base.errors import ArtifactError, CheckpointError, ConfigError
from puna.export import gguf
from puna.export.gguf_config import ROPE
from puna.export.gguf_file import GgufFile, TensorEntry, write_gguf
from puna.export.gguf_types import TYPES
from puna.model import meta
from puna.model.checkpoint import Checkpoint
from puna.model.transformer import shapes
from puna.testing import tiny_config, tiny_model, tiny_tokenizer

Make = Callable[..., Checkpoint]
IDS = torch.arange(3, 43).view(2, 20)


@pytest.mark.parametrize("kind", gguf.WRITTEN)
@pytest.mark.parametrize(
    "changes", [{}, {"tie_word_embeddings": True, "scaled": True}, {"head_dim": 16, "num_key_value_heads": 4}]
)
def test_a_model_comes_back(checkpoint: Make, tmp_path: Path, kind: str, changes: dict[str, Any]) -> None:
    before = checkpoint(**changes)
    gguf.save(tmp_path / "a.gguf", before, kind)
    after = gguf.load(tmp_path / "a.gguf")
    assert after.config == before.config
    assert after.tokenizer == before.tokenizer
    assert list(after.weights) == list(shapes(before.config))
    step = {"f32": 0.0, "f16": 2.0**-11, "bf16": 2.0**-8, "q8_0": 0.51 / 127, "q4_0": 1.01 / 8}[kind]
    for name, weight in before.weights.items():
        error = (after.weights[name].float() - weight).abs().max()
        assert error <= (0.0 if weight.ndim == 1 else step) * weight.abs().max(), name


def test_a_float32_file_gives_the_same_logits(checkpoint: Make, tmp_path: Path) -> None:
    before = checkpoint(scaled=True)
    gguf.save(tmp_path / "a.gguf", before, "f32")
    assert torch.equal(gguf.load(tmp_path / "a.gguf").model()(IDS), before.model()(IDS))


def test_weights_that_were_rounded_once_are_not_rounded_again(checkpoint: Make, tmp_path: Path) -> None:
    gguf.save(tmp_path / "a.gguf", checkpoint(), "q4_0")
    first = gguf.load(tmp_path / "a.gguf")
    gguf.save(tmp_path / "b.gguf", first, "q4_0", name="a")
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()


def test_rows_of_queries_and_keys_are_in_metas_order(checkpoint: Make, tmp_path: Path) -> None:
    """Written one by one: row 2i of a head is ours of i, and row 2i + 1 ours of i + K/2."""
    before = checkpoint()
    gguf.save(tmp_path / "a.gguf", before, "f32")
    file, config = GgufFile(tmp_path / "a.gguf"), before.config
    K = config.head_dim
    for stored, own, heads in (
        ("attn_q", "q_proj", config.num_attention_heads),
        ("attn_k", "k_proj", config.num_key_value_heads),
    ):
        theirs, ours = file.tensor(f"blk.1.{stored}.weight"), before.weights[f"layers.1.self_attn.{own}.weight"]
        for head in range(heads):
            for i in range(K // 2):
                assert torch.equal(theirs[head * K + 2 * i], ours[head * K + i])
                assert torch.equal(theirs[head * K + 2 * i + 1], ours[head * K + i + K // 2])
    assert torch.equal(file.tensor("blk.1.attn_v.weight"), before.weights["layers.1.self_attn.v_proj.weight"])


def test_types_stand_where_llama_cpp_wants_them(checkpoint: Make, tmp_path: Path) -> None:
    gguf.save(tmp_path / "a.gguf", checkpoint(scaled=True), "q4_0")
    kinds = {name: entry.kind.name for name, entry in GgufFile(tmp_path / "a.gguf").tensors.items()}
    assert kinds["blk.0.attn_norm.weight"] == kinds["output_norm.weight"] == kinds[ROPE] == "F32"
    assert kinds["token_embd.weight"] == kinds["output.weight"] == "Q8_0"
    assert kinds["blk.1.ffn_down.weight"] == kinds["blk.0.attn_q.weight"] == "Q4_0"


def test_rows_that_are_no_whole_number_of_blocks_are_float16(checkpoint: Make, tmp_path: Path) -> None:
    before = checkpoint(intermediate_size=72)
    gguf.save(tmp_path / "a.gguf", before, "q8_0")
    kinds = {name: entry.kind.name for name, entry in GgufFile(tmp_path / "a.gguf").tensors.items()}
    assert kinds["blk.0.ffn_down.weight"] == "F16"
    assert kinds["blk.0.ffn_up.weight"] == "Q8_0"
    assert gguf.load(tmp_path / "a.gguf").config == before.config


def test_metadata_says_what_the_model_is(checkpoint: Make, tmp_path: Path) -> None:
    before = checkpoint()
    with_card = Checkpoint(before.config, before.weights, None, Card("checkpoint", content="abc"))
    gguf.save(tmp_path / "small.gguf", with_card, "q8_0")
    found = GgufFile(tmp_path / "small.gguf").metadata
    assert (found["general.architecture"], found["general.name"]) == ("llama", "small")
    assert (found["general.file_type"], found["general.quantization_version"]) == (7, 2)
    assert found["puna.source"] == "abc"
    assert gguf.load(tmp_path / "small.gguf").tokenizer is None
    gguf.save(tmp_path / "small.gguf", before, "bf16", name="Kantuta")
    found = GgufFile(tmp_path / "small.gguf").metadata
    assert (found["general.name"], found["general.file_type"]) == ("Kantuta", 32)
    assert "general.quantization_version" not in found


@pytest.mark.parametrize("name", shapes(tiny_config()))
def test_names_translate_both_ways(name: str) -> None:
    assert gguf.our_name(gguf.gguf_name(name)) == name


def test_large_layers_keep_their_numbers() -> None:
    assert gguf.gguf_name("layers.117.mlp.gate_proj.weight") == "blk.117.ffn_gate.weight"
    assert gguf.our_name("blk.117.attn_output.weight") == "layers.117.self_attn.o_proj.weight"
    assert gguf.our_name("blk.3.attn_q.bias") == "blk.3.attn_q.bias"


def test_an_unknown_type_names_the_known_ones(checkpoint: Make, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="q4_0"):
        gguf.save(tmp_path / "a.gguf", checkpoint(), "q4_k_m")
    assert set(gguf.WRITTEN) == {"f32", "f16", "bf16", "q8_0", "q4_0"}


# Files of others ------------------------------------------------------------------------------------------------------


def rewritten(source: Path, target: Path, tensors: dict[str, torch.Tensor], kinds: dict[str, str]) -> Path:
    """A file of ours with other tensors, as another program would have written them."""
    file = GgufFile(source)
    values = {name: file.tensor(name) for name in file.tensors} | tensors
    found = [TensorEntry(n, tuple(t.shape), TYPES[kinds.get(n, "F32")]) for n, t in values.items()]
    write_gguf(target, _entries(file.metadata), found, values.__getitem__)
    return target


def _entries(metadata: dict[str, Any]) -> dict[str, tuple[str, Any]]:
    kinds = {str: "string", bool: "bool", int: "uint32", float: "float32", list: "[string]"}
    return {
        key: (kinds[type(value)], value) if type(value) in kinds else ("[int32]", value.tolist())
        for key, value in metadata.items()
        if not key.startswith("puna.")
    }


def test_a_file_of_another_writer_is_read(checkpoint: Make, tmp_path: Path) -> None:
    """Without our own keys, and with the wide types mixed."""
    before = checkpoint()
    gguf.save(tmp_path / "a.gguf", before, "f32")
    kinds = {"output.weight": "BF16", "blk.0.attn_k.weight": "F16", "blk.1.ffn_up.weight": "Q8_0"}
    after = gguf.load(rewritten(tmp_path / "a.gguf", tmp_path / "b.gguf", {}, kinds))
    assert after.config == before.config
    assert after.weights["lm_head.weight"].dtype == torch.bfloat16
    model = after.model()
    torch.testing.assert_close(model(IDS), before.model()(IDS), rtol=0.1, atol=0.1)


def test_tensors_that_do_not_belong_or_lack_are_named(checkpoint: Make, tmp_path: Path) -> None:
    gguf.save(tmp_path / "a.gguf", checkpoint(), "f32")
    extra = rewritten(tmp_path / "a.gguf", tmp_path / "b.gguf", {"blk.0.attn_q.bias": torch.zeros(32)}, {})
    with pytest.raises(CheckpointError, match=r"1 tensor is unexpected \(blk\.0\.attn_q\.bias\)"):
        gguf.load(extra)
    other = rewritten(tmp_path / "a.gguf", tmp_path / "c.gguf", {"blk.1.ffn_up.weight": torch.zeros(8, 32)}, {})
    with pytest.raises(CheckpointError, match="wrong shape"):
        gguf.load(other)


@pytest.mark.parametrize(
    ("key", "value"),
    [("llama.block_count", 1 << 31), ("llama.attention.head_count", 1 << 31), ("llama.attention.key_length", 1 << 30)],
)
def test_a_shape_out_of_proportion_is_refused_at_once(checkpoint: Make, tmp_path: Path, key: str, value: int) -> None:
    gguf.save(tmp_path / "a.gguf", checkpoint(head_dim=8), "f32")
    file = GgufFile(tmp_path / "a.gguf")
    changes = {key: value} | ({"llama.attention.value_length": value} if "key_length" in key else {})
    changes |= {"llama.rope.dimension_count": value} if "key_length" in key else {}
    changes |= {"llama.attention.head_count_kv": value} if "head_count" in key else {}
    entries = _entries(file.metadata | changes)
    write_gguf(tmp_path / "b.gguf", entries, list(file.tensors.values()), file.tensor)
    with pytest.raises(CheckpointError, match="announces"):
        gguf.load(tmp_path / "b.gguf")


WRONG: list[tuple[str, Any]] = [
    ("string", "x"),
    ("bool", True),
    ("int32", -1),
    ("uint64", (1 << 64) - 1),
    ("float32", float("nan")),
    ("[string]", ["x"]),
    ("[uint32]", [1, 2]),
    ("[float32]", [0.5]),
]


def test_a_value_of_any_other_kind_gives_another_model_or_a_clear_error(checkpoint: Make, tmp_path: Path) -> None:
    """Each key in turn takes values of each kind."""
    gguf.save(tmp_path / "a.gguf", checkpoint(scaled=True), "f32")
    file = GgufFile(tmp_path / "a.gguf")
    kinds = {type(value): kind for kind, value in [("string", ""), ("bool", True), ("[string]", [])]}
    kinds |= {int: "uint32", float: "float64"}
    entries = {
        key: (kinds.get(type(value), "[uint32]"), value.tolist() if type(value) not in kinds else value)
        for key, value in file.metadata.items()
    }
    refused = 0
    for key in entries:
        for wrong in WRONG:
            write_gguf(tmp_path / "b.gguf", {**entries, key: wrong}, list(file.tensors.values()), file.tensor)
            try:
                gguf.load(tmp_path / "b.gguf")
            except ArtifactError:
                refused += 1
    assert refused > 4 * len(entries)


def test_no_language_model(tmp_path: Path) -> None:
    write_gguf(tmp_path / "a.gguf", {"general.architecture": ("string", "clip")}, [], {}.__getitem__)
    with pytest.raises(CheckpointError, match=r"holds no token_embd\.weight"):
        gguf.load(tmp_path / "a.gguf")


def test_an_error_in_the_metadata_names_the_file(checkpoint: Make, tmp_path: Path) -> None:
    gguf.save(tmp_path / "a.gguf", checkpoint(), "f32")
    file = GgufFile(tmp_path / "a.gguf")
    entries = _entries(file.metadata | {"general.architecture": "gemma"})
    write_gguf(tmp_path / "b.gguf", entries, list(file.tensors.values()), file.tensor)
    with pytest.raises(CheckpointError, match=r"b\.gguf: general\.architecture is 'gemma'"):
        gguf.load(tmp_path / "b.gguf")


# Damage ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("whole") / "a.gguf"
    gguf.save(path, Checkpoint.of(tiny_model(), tiny_tokenizer()), "q8_0")
    return path.read_bytes()


@settings(max_examples=60)
@given(data=st.data())
def test_a_model_cut_off_anywhere_gives_one_clear_error(
    whole: bytes, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    cut = data.draw(st.integers(0, len(whole) - 32))
    path = tmp_path_factory.getbasetemp() / "cut.gguf"
    path.write_bytes(whole[:cut])
    with pytest.raises(CheckpointError, match=r"cut\.gguf"):
        gguf.load(path)


WRITER = """
import sys, time
from pathlib import Path
import torch
from puna.export import gguf
from puna.model.checkpoint import Checkpoint
from puna.testing import tiny_model
before = Checkpoint.of(tiny_model())

class Slow(dict):
    def __getitem__(self, name):
        if name == "layers.1.mlp.up_proj.weight":
            print("half", flush=True)
            time.sleep(60)
        return dict.__getitem__(self, name)

gguf.save(Path(sys.argv[1]), Checkpoint(before.config, Slow(before.weights)), "q8_0")
"""


def test_a_killed_writer_leaves_the_old_file(checkpoint: Make, tmp_path: Path) -> None:
    target = tmp_path / "a.gguf"
    gguf.save(target, checkpoint(seed=1), "f32")
    before = target.read_bytes()
    with subprocess.Popen([sys.executable, "-c", WRITER, str(target)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "half\n"
        process.kill()
    assert target.read_bytes() == before
    gguf.save(target, checkpoint(), "f32")
    assert [path.name for path in tmp_path.iterdir()] == ["a.gguf"], "the next writer clears up"


def test_metas_layout_and_this_one_agree(checkpoint: Make, tmp_path: Path) -> None:
    """Both order rows alike, so a file is Meta's weights under other names."""
    before = checkpoint()
    gguf.save(tmp_path / "a.gguf", before, "f32")
    before.save_meta(tmp_path / "meta")
    theirs = torch.load(tmp_path / "meta" / "consolidated.00.pth", weights_only=True)
    file = GgufFile(tmp_path / "a.gguf")
    for name in shapes(before.config):
        assert torch.equal(theirs[meta.place(name).meta], file.tensor(gguf.gguf_name(name))), name
